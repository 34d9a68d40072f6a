// Command resize-image is a function that makes a smaller or larger picture of a PNG or JPEG, or of one that it paints itself.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"net/http"
	"os"
	"runtime/debug"

	"golang.org/x/image/draw"
	"golang.org/x/sync/semaphore"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() { os.Exit(serve.Main(function())) }

// What a picture may have at most. A small file can hold a large picture.
const (
	maxBody   = 16 << 20
	maxPixels = 12_000_000
	maxSide   = 16_384
	// Filters that look at more than the nearest pixels keep 32 bytes for each column of the result and row of the source.
	maxBetween = 2_000_000

	// What all invocations together may take, in bytes, by what is known before anything is decoded: a progressive JPEG takes 16 a pixel
	// while it is read. A large picture has it for itself; who does not fit in waits.
	maxMemory      = 350 << 20
	bytesRead      = 16
	bytesBetween   = 32
	bytesMade      = 12
	worthReturning = 32 << 20
)

func function() serve.Function {
	memory := semaphore.NewWeighted(maxMemory)
	return serve.Function{Name: "resize-image", MaxBody: maxBody, InFlight: 4, Serve: func(w http.ResponseWriter, r *http.Request) error {
		return invoke(w, r, memory)
	}}
}

type request struct {
	width, height  int // 0: as the other one says
	filter, format string
	quality        int
	source         int // width of the painted picture
}

func invoke(w http.ResponseWriter, r *http.Request, memory *semaphore.Weighted) error {
	q := serve.NewQuery(r)
	req := request{
		width: q.Int("width", 0, 1, maxSide), height: q.Int("height", 0, 1, maxSide),
		filter:  q.Choice("filter", "catmull-rom", "bilinear", "approximate", "nearest"),
		format:  q.Choice("format", "same", "png", "jpeg"),
		quality: q.Int("quality", 85, 1, 100),
		source:  q.Int("source", 0, 4, 4000),
	}
	if err := q.Err(); err != nil {
		return err
	}
	if req.width == 0 && req.height == 0 {
		req.width = 640
	}
	body, err := io.ReadAll(r.Body)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return serve.BadRequest("the body is shorter than was announced")
	case err != nil:
		return err
	case len(body) > 0 && req.source != 0:
		return serve.BadRequest("there is a body, so parameter source, which asks for a painted picture, has no place")
	}
	out, err := req.resize(r.Context(), memory, body)
	if err != nil {
		return err
	}
	if err := r.Context().Err(); err != nil {
		return err
	}
	serve.Bytes(w, http.DetectContentType(out), out)
	return nil
}

// resize does what is asked for. Nothing is decoded before its size is known to be allowed.
func (req request) resize(ctx context.Context, memory *semaphore.Weighted, body []byte) ([]byte, error) {
	if req.source == 0 {
		req.source = 1600
	}
	head, format := image.Config{Width: req.source, Height: req.source * 3 / 4}, "jpeg"
	if len(body) > 0 {
		var err error
		if head, format, err = image.DecodeConfig(bytes.NewReader(body)); err != nil {
			return nil, serve.BadRequest("the body is no PNG or JPEG: %v", err)
		}
	}
	if err := req.allow(head.Width, head.Height); err != nil {
		return nil, err
	}
	need := req.memory(head.Width, head.Height)
	if err := memory.Acquire(ctx, need); err != nil {
		return nil, err
	}
	defer memory.Release(need)
	if need > worthReturning {
		defer debug.FreeOSMemory() // before the next one gets as much
	}
	src, err := read(head, body)
	if err != nil {
		return nil, serve.BadRequest("the %s cannot be read: %v", format, err)
	}
	if req.format != "same" {
		format = req.format
	}
	return req.scale(src, format)
}

// read decodes a body, or paints a picture if there is none.
func read(head image.Config, body []byte) (image.Image, error) {
	if len(body) == 0 {
		return paint(head.Width, head.Height), nil
	}
	img, _, err := image.Decode(bytes.NewReader(body))
	return img, err
}

// memory returns how many bytes it takes to read a picture of that size and do with it what is asked for.
func (req request) memory(width, height int) int64 {
	w, h := req.target(width, height)
	need := int64(width)*int64(height)*bytesRead + int64(w)*int64(h)*bytesMade
	if req.thorough() {
		need += int64(w) * int64(height) * bytesBetween
	}
	return min(need, maxMemory)
}

// thorough tells of the filters that look at all pixels.
func (req request) thorough() bool { return req.filter == "catmull-rom" || req.filter == "bilinear" }

// scale makes the result.
func (req request) scale(src image.Image, format string) ([]byte, error) {
	width, height := req.target(src.Bounds().Dx(), src.Bounds().Dy())
	dst := image.NewRGBA(image.Rect(0, 0, width, height)) // the scalers are fast with this kind only
	scalers[req.filter].Scale(dst, dst.Rect, src, src.Bounds(), draw.Src, nil)
	var out bytes.Buffer
	var err error
	if format == "png" {
		err = png.Encode(&out, dst)
	} else {
		err = jpeg.Encode(&out, opaque(dst), &jpeg.Options{Quality: req.quality})
	}
	if err != nil {
		return nil, fmt.Errorf("writing the %s: %w", format, err)
	}
	return out.Bytes(), nil
}

var scalers = map[string]draw.Scaler{
	"catmull-rom": draw.CatmullRom,
	"bilinear":    draw.BiLinear,
	"approximate": draw.ApproxBiLinear,
	"nearest":     draw.NearestNeighbor,
}

// allow refuses a picture that would need too much memory.
func (req request) allow(width, height int) error {
	if width < 1 || height < 1 {
		return serve.BadRequest("the picture has %d by %d pixels", width, height)
	}
	if width > maxSide || height > maxSide || width*height > maxPixels {
		return large("the picture has %d by %d pixels: at most %d a side and %d in all are read", width, height, maxSide, maxPixels)
	}
	w, h := req.target(width, height)
	if w > maxSide || h > maxSide || w*h > maxPixels {
		return large("the result would have %d by %d pixels: at most %d a side and %d in all are made", w, h, maxSide, maxPixels)
	}
	if req.thorough() && w*height > maxBetween {
		return large("filter %s from %d by %d to %d by %d pixels needs too much memory: take filter=approximate", req.filter, width, height, w, h)
	}
	return nil
}

func large(format string, args ...any) error {
	return &serve.StatusError{Status: http.StatusRequestEntityTooLarge, Message: fmt.Sprintf(format, args...)}
}

// target returns the size of the result; a side that is not asked for keeps the proportions.
func (req request) target(width, height int) (w, h int) {
	w, h = req.width, req.height
	if w == 0 {
		w = max(1, int(math.Round(float64(width)*float64(h)/float64(height))))
	}
	if h == 0 {
		h = max(1, int(math.Round(float64(height)*float64(w)/float64(width))))
	}
	return w, h
}

// opaque puts a picture on white, since a JPEG has no transparency.
func opaque(src *image.RGBA) image.Image {
	dst := image.NewRGBA(src.Rect)
	draw.Draw(dst, dst.Rect, image.White, image.Point{}, draw.Src)
	draw.Draw(dst, dst.Rect, src, image.Point{}, draw.Over)
	return dst
}

// paint returns a picture with slopes, edges and fine detail, always the same.
func paint(width, height int) image.Image {
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			c := color.RGBA{uint8(x * 255 / width), uint8(y * 255 / height), uint8((x ^ y) & 255), 255}
			if dx, dy := x-width/2, y-height/2; dx*dx+dy*dy < height*height/9 {
				c = color.RGBA{255 - c.R, 255 - c.G, uint8(x * y >> 6), 255}
			}
			img.SetRGBA(x, y, c)
		}
	}
	return img
}
