package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"golang.org/x/sync/semaphore"
)

func say(query string, body []byte) (out []byte, contentType string, err error) {
	w := httptest.NewRecorder()
	err = function().Serve(w, httptest.NewRequest(http.MethodPost, "/?"+query, bytes.NewReader(body)))
	return w.Body.Bytes(), w.Header().Get("Content-Type"), err
}

func encoded(t testing.TB, img image.Image, format string) []byte {
	t.Helper()
	var b bytes.Buffer
	err := png.Encode(&b, img)
	if format == "jpeg" {
		b.Reset()
		err = jpeg.Encode(&b, img, &jpeg.Options{Quality: 95})
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSizesAndFormats(t *testing.T) {
	pic := paint(120, 90)
	bodies := map[string][]byte{"png": encoded(t, pic, "png"), "jpeg": encoded(t, pic, "jpeg")}
	for _, tc := range []struct {
		query, in string
		w, h      int
		out       string
	}{
		{"width=60", "png", 60, 45, "png"},
		{"width=60", "jpeg", 60, 45, "jpeg"},
		{"height=30&format=jpeg", "png", 40, 30, "jpeg"},
		{"width=240&filter=bilinear&format=png", "jpeg", 240, 180, "png"},
		{"width=7&height=200&filter=approximate", "png", 7, 200, "png"},
		{"width=1&filter=nearest", "png", 1, 1, "png"},
		{"height=1", "jpeg", 1, 1, "jpeg"},
		{"", "png", 640, 480, "png"},
		{"", "", 640, 480, "jpeg"},
		{"source=100&width=10&format=png", "", 10, 8, "png"},
	} {
		out, contentType, err := say(tc.query, bodies[tc.in])
		if err != nil {
			t.Errorf("%q of %q: %v", tc.query, tc.in, err)
			continue
		}
		head, format, err := image.DecodeConfig(bytes.NewReader(out))
		if err != nil || head.Width != tc.w || head.Height != tc.h || format != tc.out || contentType != "image/"+tc.out {
			t.Errorf("%q of %q: %d by %d %s %s, %v, want %+v", tc.query, tc.in, head.Width, head.Height, format, contentType, err, tc)
		}
		if again, _, _ := say(tc.query, bodies[tc.in]); !bytes.Equal(out, again) {
			t.Errorf("%q of %q: the second answer is another", tc.query, tc.in)
		}
	}
}

// A picture made smaller has the means of the colours there were.
func TestColours(t *testing.T) {
	img := image.NewNRGBA(image.Rect(0, 0, 80, 40))
	for y := range 40 {
		for x := range 80 {
			// The left half is red and blue in turn, the right half is half transparent green.
			c := color.NRGBA{R: 255, A: 255}
			switch {
			case x >= 40:
				c = color.NRGBA{G: 255, A: 128}
			case (x+y)%2 == 1:
				c = color.NRGBA{B: 255, A: 255}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	body := encoded(t, img, "png")
	for _, filter := range []string{"catmull-rom", "bilinear"} {
		out, _, err := say("width=8&filter="+filter, body)
		if err != nil {
			t.Fatal(err)
		}
		small, err := png.Decode(bytes.NewReader(out))
		if err != nil {
			t.Fatal(err)
		}
		near := func(x int, want color.NRGBA) {
			t.Helper()
			got := color.NRGBAModel.Convert(small.At(x, 2)).(color.NRGBA)
			for i, d := range []int{int(got.R) - int(want.R), int(got.G) - int(want.G), int(got.B) - int(want.B), int(got.A) - int(want.A)} {
				if d < -6 || d > 6 {
					t.Errorf("%s, pixel %d, part %d: %v, want %v", filter, x, i, got, want)
				}
			}
		}
		near(1, color.NRGBA{128, 0, 128, 255})
		near(6, color.NRGBA{0, 255, 0, 128})
	}
	// In a JPEG what is transparent is white.
	out, _, err := say("width=8&format=jpeg&quality=100", body)
	if err != nil {
		t.Fatal(err)
	}
	small, err := jpeg.Decode(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if r, g, b, _ := small.At(6, 2).RGBA(); r>>8 < 110 || r>>8 > 145 || g>>8 < 240 || b>>8 < 110 || b>>8 > 145 {
		t.Errorf("half transparent green on white: %d %d %d", r>>8, g>>8, b>>8)
	}
}

// bomb is a PNG that says it is large and has hardly any bytes.
func bomb(width, height uint32) []byte {
	head := binary.BigEndian.AppendUint32(nil, width)
	head = binary.BigEndian.AppendUint32(head, height)
	head = append([]byte("IHDR"), append(head, 8, 6, 0, 0, 0)...)
	b := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	b = append(b, head...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(head))
}

func TestRefused(t *testing.T) {
	pic := encoded(t, paint(40, 30), "png")
	tall := encoded(t, image.NewGray(image.Rect(0, 0, 1, 16_000)), "png")
	for name, tc := range map[string]struct {
		query string
		body  []byte
		want  string
	}{
		"text":                  {"", []byte("no picture"), "the body is no PNG or JPEG"},
		"GIF":                   {"", []byte("GIF89a\x01\x00\x01\x00\x00\x00\x00"), "the body is no PNG or JPEG"},
		"cut off":               {"", pic[:len(pic)/2], "the png cannot be read"},
		"bomb":                  {"", bomb(16_000, 16_000), "16000 by 16000 pixels: at most 16384 a side and 12000000 in all are read"},
		"long bomb":             {"", bomb(2_000_000_000, 1), "at most 16384 a side"},
		"head only":             {"", bomb(10, 10), "the png cannot be read"},
		"large result":          {"width=16000", pic, "the result would have 16000 by 12000 pixels"},
		"large result by side":  {"width=16000&height=1&filter=nearest", pic, ""},
		"long result":           {"height=16384", tall, ""},
		"longer result":         {"width=2", tall, "the result would have 2 by 32000 pixels: at most 16384 a side"},
		"much between":          {"width=3000&height=10", tall, "needs too much memory: take filter=approximate"},
		"much between, but":     {"width=3000&height=10&filter=approximate", tall, ""},
		"width":                 {"width=0", pic, "want a whole number from 1 to 16384"},
		"height":                {"height=-5", pic, "want a whole number"},
		"quality":               {"quality=101", pic, "want a whole number from 1 to 100"},
		"filter":                {"filter=best", pic, "want one of catmull-rom, bilinear, approximate, nearest"},
		"format":                {"format=gif", pic, "want one of same, png, jpeg"},
		"source with a body":    {"source=100", pic, "there is a body"},
		"source that is small":  {"source=3", nil, "want a whole number from 4 to 4000"},
		"painted large and all": {"source=4000&width=4000", nil, "needs too much memory"},
	} {
		t.Run(name, func(t *testing.T) {
			out, _, err := say(tc.query, tc.body)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), tc.want) || len(out) > 0 {
				t.Errorf("%v and %d bytes, want %s", err, len(out), tc.want)
			}
		})
	}
}

// A large picture has the memory for itself; who waits for it does so no longer than its caller.
func TestMemory(t *testing.T) {
	req := request{width: 640, filter: "catmull-rom", format: "same", quality: 80}
	if need := req.memory(4000, 3000); need < 230<<20 || need > maxMemory {
		t.Errorf("12 megapixels need %d bytes", need)
	}
	if all := req.memory(640, 480) * 4; all > maxMemory {
		t.Errorf("four small pictures need %d bytes", all)
	}
	memory := semaphore.NewWeighted(maxMemory)
	if err := memory.Acquire(t.Context(), maxMemory-1000); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if out, err := req.resize(ctx, memory, nil); err == nil {
		t.Errorf("%d bytes without memory", len(out))
	}
	memory.Release(maxMemory - 1000)
	for _, body := range [][]byte{nil, []byte("no picture"), bomb(10, 10)} {
		_, _ = req.resize(t.Context(), memory, body)
	}
	if !memory.TryAcquire(maxMemory) {
		t.Error("somebody has not given it back")
	}
}

// Any bytes are a picture or are refused; what is asked for is what comes.
func FuzzResize(f *testing.F) {
	for _, format := range []string{"png", "jpeg"} {
		f.Add(encoded(f, paint(20, 15), format), 5)
	}
	f.Add(bomb(3000, 4000), 1)
	f.Fuzz(func(t *testing.T, body []byte, width int) {
		if len(body) == 0 || width < 1 || width > 50 {
			return
		}
		if head, _, err := image.DecodeConfig(bytes.NewReader(body)); err == nil && head.Width*head.Height > 1_000_000 {
			return // allowed, and slow
		}
		out, _, err := say(fmt.Sprintf("width=%d&filter=approximate", width), body)
		if err != nil {
			return
		}
		if head, _, err := image.DecodeConfig(bytes.NewReader(out)); err != nil || head.Width != width {
			t.Errorf("%v, %v", head, err)
		}
	})
}

func BenchmarkInvoke(b *testing.B) {
	for _, filter := range []string{"catmull-rom", "approximate"} {
		b.Run(filter, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := say("filter="+filter, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
