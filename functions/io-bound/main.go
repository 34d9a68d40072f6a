// Command io-bound is a function that waits for a disk: it writes a temporary file, has it synced, reads it back and compares.
package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"os"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() { os.Exit(serve.Main(function(os.TempDir()))) }

const (
	defaultKiB   = 4096
	maxKiB       = 64 << 10
	defaultBlock = 64
	maxBlock     = 1024
	defaultSyncs = 8
	maxSyncs     = 256
)

// function writes below dir.
func function(dir string) serve.Function {
	return serve.Function{Name: "io-bound", InFlight: 4, Serve: func(w http.ResponseWriter, r *http.Request) error {
		return invoke(w, r, dir)
	}}
}

type answer struct {
	KiB   int    `json:"kib"`
	Block int    `json:"block_kib"`
	Syncs int    `json:"syncs"`
	CRC32 string `json:"crc32"`
}

func invoke(w http.ResponseWriter, r *http.Request, dir string) error {
	q := serve.NewQuery(r)
	a := answer{KiB: q.Int("kib", defaultKiB, 1, maxKiB), Block: q.Int("block", defaultBlock, 1, maxBlock), Syncs: q.Int("syncs", defaultSyncs, 0, maxSyncs)}
	if err := q.Err(); err != nil {
		return err
	}
	a.Syncs = min(a.Syncs, (a.KiB+a.Block-1)/a.Block) // there is nothing to sync between blocks
	f, err := temporary(dir)
	if err != nil {
		return err
	}
	sum, err := a.run(r.Context(), f)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	a.CRC32 = fmt.Sprintf("%08x", sum)
	return serve.JSON(w, a)
}

// temporary returns a file that has no name any more: it goes with the last handle, however the process ends.
func temporary(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "io-bound-*")
	if err != nil {
		return nil, fmt.Errorf("making a temporary file: %w; mount a writable folder and name it in TMPDIR", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// run writes and reads what a asks for, and returns the checksum of what it read.
func (a answer) run(ctx context.Context, f *os.File) (uint32, error) {
	size, block := a.KiB<<10, make([]byte, min(a.Block, a.KiB)<<10)
	written, err := a.write(ctx, f, size, block)
	if err != nil {
		return 0, fmt.Errorf("writing: %w", err)
	}
	// So that it is read from the disk, as far as the kernel obliges: it keeps what is not synced.
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return 0, fmt.Errorf("dropping the file from the cache: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	read := crc32.NewIEEE()
	for left := size; left > 0; left -= min(left, len(block)) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := block[:min(left, len(block))]
		if _, err := io.ReadFull(f, b); err != nil {
			return 0, fmt.Errorf("reading back: %w", err)
		}
		_, _ = read.Write(b) // never fails
	}
	if read.Sum32() != written {
		return 0, fmt.Errorf("read back %08x where %08x was written", read.Sum32(), written)
	}
	return written, nil
}

// write fills the file with data of chance, always the same, with syncs at equal distances, the last at the end.
func (a answer) write(ctx context.Context, f *os.File, size int, block []byte) (uint32, error) {
	data, sum, synced := rand.NewChaCha8([32]byte{}), crc32.NewIEEE(), 0
	for done := 0; done < size; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := block[:min(size-done, len(block))]
		_, _ = data.Read(b)
		_, _ = sum.Write(b)
		if _, err := f.Write(b); err != nil {
			return 0, err
		}
		done += len(b)
		if due := int(int64(a.Syncs) * int64(done) / int64(size)); synced < due {
			if err := f.Sync(); err != nil {
				return 0, err
			}
			synced = due
		}
	}
	return sum.Sum32(), nil
}
