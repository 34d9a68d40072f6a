package trace

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// flushSize is how much of a file is buffered at most, but for one row.
const flushSize = 64 << 10

// out is a CSV file that is being written.
type out struct {
	f      *os.File
	z      compressor // nil if plain
	buf    []byte     // whole rows, not yet written
	size   int64      // of the whole rows in a plain file
	at     int64      // time of the last row, µs
	unsent bool       // z has rows that are not flushed
}

type compressor interface {
	io.WriteCloser
	Flush() error
}

// createOut creates a file with its header.
func createOut(path, suffix string, columns []string) (*out, error) {
	f, err := os.OpenFile(path+suffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644) //nolint:gosec // traces are for others to read
	if err != nil {
		return nil, fmt.Errorf("writing trace: %w", err)
	}
	o := &out{f: f}
	switch suffix {
	case ".gz":
		o.z = gzip.NewWriter(f)
	case ".zst":
		// One frame, however often it is flushed: some readers stop after the first. One goroutine, the caller's.
		z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
		if err != nil {
			_ = f.Close()
			return nil, fmt.Errorf("writing trace %s: %w", f.Name(), err)
		}
		o.z = z
	}
	o.buf = append(o.buf, strings.Join(columns, ",")+"\n"...)
	return o, nil
}

// text appends a field as RFC 4180 encodes it, and what follows.
func (o *out) text(s string, then ...byte) {
	if strings.ContainsAny(s, ",\"\r\n") {
		s = `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
	}
	o.buf = append(o.buf, s...)
	o.buf = append(o.buf, then...)
}

// drain writes buf. What was written in part of a plain file is taken back, so that it ends with a whole row.
func (o *out) drain() error {
	if len(o.buf) == 0 {
		return nil
	}
	var err error
	if o.z != nil {
		_, err = o.z.Write(o.buf)
		o.unsent = true
	} else if _, err = o.f.Write(o.buf); err != nil {
		err = errors.Join(err, o.f.Truncate(o.size))
	}
	if err != nil {
		return fmt.Errorf("writing trace: %w", err)
	}
	o.size += int64(len(o.buf))
	o.buf = o.buf[:0]
	return nil
}

// flush hands what the compressor holds to the kernel.
func (o *out) flush() error {
	if o.z == nil || !o.unsent {
		return nil
	}
	if err := o.z.Flush(); err != nil {
		return fmt.Errorf("writing trace %s: %w", o.f.Name(), err)
	}
	o.unsent = false
	return nil
}

// close ends the file; sync sees it safely onto the disk, which may take a while.
func (o *out) close(sync bool) error {
	var errs []error
	if o.z != nil {
		errs = append(errs, o.z.Close())
	}
	if sync {
		errs = append(errs, o.f.Sync())
	}
	if err := errors.Join(append(errs, o.f.Close())...); err != nil {
		return fmt.Errorf("writing trace %s: %w", o.f.Name(), err)
	}
	return nil
}

// replace writes a file so that it is there whole or not at all.
func replace(path string, data []byte) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o644); err != nil { //nolint:gosec // as above
		return fmt.Errorf("writing trace: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("writing trace: %w", err)
	}
	return nil
}
