package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

func say(query string, body io.Reader) (string, http.Header) {
	w := httptest.NewRecorder()
	if err := invoke(w, httptest.NewRequest(http.MethodPost, "/?"+query, body)); err != nil {
		return err.Error(), nil
	}
	return w.Body.String(), w.Header()
}

func TestStats(t *testing.T) {
	for query, want := range map[string]answer{
		"":                {Level: 6, In: 1 << 20},
		"kib=3&level=9":   {Level: 9, In: 3 << 10},
		"kib=100&level=1": {Level: 1, In: 100 << 10},
	} {
		text, _ := say(query, nil)
		var got answer
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(text, err)
		}
		if got.Level != want.Level || got.In != want.In || got.Ratio < 1.5 || got.Ratio > 10 || got.Out < 100 {
			t.Errorf("%q: %+v, want %+v and a ratio as of a log", query, got, want)
		}
		if again, _ := say(query, nil); again != text {
			t.Errorf("%q: %s and %s", query, text, again)
		}
	}
}

func TestFaults(t *testing.T) {
	for query, want := range map[string]string{
		"level=0":     "want a whole number from 1 to 9",
		"level=10":    "want a whole number",
		"kib=0":       "want a whole number",
		"output=file": "want one of stats, body",
		"kib=1":       "there is a body",
	} {
		if got, _ := say(query, strings.NewReader("text")); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
	if got, _ := say("", iotest.ErrReader(io.ErrUnexpectedEOF)); got != "the body is shorter than was announced" {
		t.Error(got)
	}
	if got, _ := say("", iotest.ErrReader(&http.MaxBytesError{Limit: 5})); !strings.Contains(got, "too large") {
		t.Error(got)
	}
}

// What comes out is what went in, also in pieces and of unknown length; the statistics are of the same stream.
func FuzzBody(f *testing.F) {
	f.Add([]byte("energy energy energy"), 6)
	f.Add([]byte{0}, 1)
	f.Add([]byte{}, 9)
	f.Fuzz(func(t *testing.T, body []byte, level int) {
		if len(body) == 0 || level < 1 || level > 9 {
			return
		}
		packed, header := say(fmt.Sprintf("output=body&level=%d", level), iotest.HalfReader(bytes.NewReader(body)))
		z, err := gzip.NewReader(strings.NewReader(packed))
		if err != nil {
			t.Fatal(packed, err)
		}
		got, err := io.ReadAll(z)
		if !bytes.Equal(got, body) || err != nil || header.Get("Content-Type") != "application/gzip" {
			t.Errorf("%q, %v, %v", got, err, header)
		}
		stats, _ := say(fmt.Sprintf("level=%d", level), bytes.NewReader(body))
		var a answer
		if err := json.Unmarshal([]byte(stats), &a); err != nil {
			t.Fatal(stats, err)
		}
		if a.In != int64(len(body)) || a.Out != int64(len(packed)) || a.CRC32 != fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)) {
			t.Errorf("%s for %d bytes that became %d", stats, len(body), len(packed))
		}
	})
}

// The limit is the server's; its error reaches the caller as one about the body.
func TestLimit(t *testing.T) {
	f := function()
	r := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(make([]byte, maxBody+1)))
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, f.MaxBody)
	if err := f.Serve(w, r); err == nil || w.Body.Len() > 0 {
		t.Errorf("%v, wrote %d bytes", err, w.Body.Len())
	}
	if serve.Defaults(f).InFlight != 4 {
		t.Error("how much memory it needs at most is not what README.md says")
	}
}

func BenchmarkInvoke(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		say("", nil)
	}
}
