package main

import (
	"context"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func say(ctx context.Context, dir, query string) string {
	w := httptest.NewRecorder()
	if err := invoke(w, httptest.NewRequest(http.MethodGet, "/?"+query, nil).WithContext(ctx), dir); err != nil {
		return err.Error()
	}
	return w.Body.String()
}

func TestInvoke(t *testing.T) {
	dir := t.TempDir()
	for query, want := range map[string]string{
		"":                          `{"kib":4096,"block_kib":64,"syncs":8,"crc32":"`,
		"kib=1":                     `{"kib":1,"block_kib":64,"syncs":1,"crc32":"`,
		"kib=100&block=64&syncs=50": `{"kib":100,"block_kib":64,"syncs":2,"crc32":"`,
		"kib=10&syncs=0":            `{"kib":10,"block_kib":64,"syncs":0,"crc32":"`,
		"kib=0":                     "want a whole number from 1 to 65536",
		"kib=65537":                 "want a whole number",
		"block=1025":                "want a whole number",
		"syncs=257":                 "want a whole number",
		"path=/etc/passwd":          "is unknown",
	} {
		once, twice := say(t.Context(), dir, query), say(t.Context(), dir, query)
		if !strings.Contains(once, want) || once != twice {
			t.Errorf("%q: %s and %s, want %s", query, once, twice, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// What is written does not depend on the blocks it is written in.
func TestBlocks(t *testing.T) {
	data := make([]byte, 100<<10)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	for _, block := range []int{1, 7, 64, 100, 1024} {
		f, err := temporary(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		sum, err := answer{KiB: 100, Block: block, Syncs: 2}.run(t.Context(), f)
		if want := crc32.ChecksumIEEE(data); sum != want || err != nil {
			t.Errorf("blocks of %d KiB: %08x, %v, want %08x", block, sum, err, want)
		}
		if info, err := f.Stat(); err != nil || info.Size() != 100<<10 {
			t.Errorf("%v bytes were written, %v", info, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestFails(t *testing.T) {
	if got := say(t.Context(), filepath.Join(t.TempDir(), "nowhere"), ""); !strings.Contains(got, "mount a writable folder and name it in TMPDIR") {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	if got := say(ctx, dir, "kib=65536"); !strings.Contains(got, context.Canceled.Error()) {
		t.Error(got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// One that gives back other than it was given.
	zero, err := os.OpenFile("/dev/zero", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer zero.Close()
	if _, err := (answer{KiB: 1, Block: 1}).run(t.Context(), zero); err == nil || !strings.HasPrefix(err.Error(), "read back ") {
		t.Error(err)
	}
	// One that does not keep what it is given.
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	if _, err := (answer{KiB: 1, Block: 1, Syncs: 1}).run(t.Context(), full); err == nil || !strings.HasPrefix(err.Error(), "writing: ") {
		t.Error(err)
	}
}

func BenchmarkInvoke(b *testing.B) {
	dir := b.TempDir()
	b.ReportAllocs()
	for b.Loop() {
		say(b.Context(), dir, "")
	}
}
