// Command gzip is a function that compresses: the body it gets, or text that it makes up.
package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() { os.Exit(serve.Main(function())) }

const (
	maxBody    = 16 << 20
	defaultKiB = 1024
	maxKiB     = maxBody >> 10
)

func function() serve.Function {
	return serve.Function{Name: "gzip", Serve: invoke, MaxBody: maxBody, InFlight: 4}
}

type answer struct {
	Level int     `json:"level"`
	In    int64   `json:"bytes_in"`
	Out   int64   `json:"bytes_out"`
	Ratio float64 `json:"ratio"` // in/out
	CRC32 string  `json:"crc32"` // of what came in, as gzip has it
}

func invoke(w http.ResponseWriter, r *http.Request) error {
	q := serve.NewQuery(r)
	level := q.Int("level", 6, gzip.BestSpeed, gzip.BestCompression)
	output := q.Choice("output", "stats", "body")
	kib := q.Int("kib", 0, 1, maxKiB)
	if err := q.Err(); err != nil {
		return err
	}
	body := io.Reader(r.Body)
	switch {
	case r.ContentLength != 0 && kib != 0:
		return serve.BadRequest("there is a body, so parameter kib, which asks for made-up text, has no place")
	case r.ContentLength == 0:
		if kib == 0 {
			kib = defaultKiB
		}
		body = io.LimitReader(newText(), int64(kib)<<10)
	}

	var packed bytes.Buffer
	sink := &counter{w: io.Discard}
	if output == "body" {
		sink.w = &packed
	}
	sum := crc32.NewIEEE()
	z, err := gzip.NewWriterLevel(sink, level)
	if err != nil {
		return err
	}
	in, err := io.Copy(z, io.TeeReader(&reader{r.Context(), body}, sum))
	if err := errors.Join(err, z.Close()); err != nil {
		return readError(err)
	}
	if output == "body" {
		serve.Bytes(w, "application/gzip", packed.Bytes())
		return nil
	}
	return serve.JSON(w, answer{level, in, sink.n, math.Round(1000*float64(in)/float64(sink.n)) / 1000, fmt.Sprintf("%08x", sum.Sum32())})
}

// readError is the caller's fault if the body ended before it should.
func readError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return serve.BadRequest("the body is shorter than was announced")
	}
	return err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return c.w.Write(b)
}

// reader ends with its context.
type reader struct {
	ctx context.Context
	r   io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

// text is an endless text of lines like those of a log, always the same.
type text struct {
	chance *rand.Rand
	line   []byte
	rest   []byte
	n      int
}

func newText() *text { return &text{chance: rand.New(rand.NewPCG(1, 2))} } //nolint:gosec // the text must be the same each time

var words = strings.Fields(`node function energy joule watt sensor channel sample interval request started completed cold start
	idle power voltage current core frequency governor memory network disk container pod gateway trace replay model share base`)

func (t *text) Read(b []byte) (int, error) {
	if len(t.rest) == 0 {
		t.line = append(strconv.AppendInt(t.line[:0], int64(t.n), 10), " level=info"...)
		for range 4 + t.chance.IntN(6) {
			t.line = append(append(append(t.line, ' '), words[t.chance.IntN(len(words))]...), '=')
			t.line = strconv.AppendInt(t.line, int64(t.chance.IntN(100_000)), 10)
		}
		t.line = append(t.line, '\n')
		t.rest, t.n = t.line, t.n+1
	}
	n := copy(b, t.rest)
	t.rest = t.rest[n:]
	return n, nil
}
