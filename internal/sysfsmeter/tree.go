package sysfsmeter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// attr is one open sysfs attribute.
type attr interface {
	io.ReaderAt
	io.Closer
}

type opener func(path string) (attr, error)

// fd is a file descriptor read with pread(2) at offset 0, which makes the kernel call the driver's show function anew
// (Documentation/filesystems/sysfs.rst). It is not an os.File because that one reads a second time to see the end of the
// file, and because it waits in the poller for ever when a driver returns EAGAIN.
type fd int

func openAttr(path string) (attr, error) {
	for {
		n, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			return fd(n), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

// ReadAt is one pread(2): unlike io.ReaderAt says, a short read is not an error.
func (f fd) ReadAt(b []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(int(f), b, off)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

func (f fd) Close() error { return unix.Close(int(f)) }

// tree is a mounted sysfs or procfs; paths are relative to its root.
type tree struct {
	root string
	open opener
}

func (t tree) path(rel string) string { return filepath.Join(t.root, rel) }

// list returns the names in a directory, sorted; none if it cannot be read.
func (t tree) list(dir string) []string {
	entries, _ := os.ReadDir(t.path(dir))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}

func (t tree) has(rel string) bool {
	_, err := os.Stat(t.path(rel))
	return err == nil
}

// base returns the last element of what rel points to once symbolic links are followed, skipping up directories.
func (t tree) base(rel string, up int) string {
	p, err := filepath.EvalSymlinks(t.path(rel))
	if err != nil {
		return ""
	}
	for range up {
		p = filepath.Dir(p)
	}
	return filepath.Base(p)
}

// text reads a small attribute, without the newline.
func (t tree) text(rel string) (string, error) {
	f, err := t.open(t.path(rel))
	if err != nil {
		return "", hint(rel, fmt.Errorf("open %s: %w", t.path(rel), err))
	}
	defer f.Close()
	var buf [256]byte
	n, err := f.ReadAt(buf[:], 0)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", t.path(rel), err)
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// number reads a small attribute that holds an integer.
func (t tree) number(rel string) (int64, error) {
	s, err := t.text(rel)
	if err != nil {
		return 0, err
	}
	v, err := parseInt([]byte(s))
	if err != nil {
		return 0, fmt.Errorf("%s holds %.20q: %w", t.path(rel), s, err)
	}
	return v, nil
}

// errFormat is wrapped where an attribute was read but does not hold what it should.
var errFormat = errors.New("not a plausible number")

// parseInt reads a decimal integer as the kernel prints it, "-1234\n"; newlines, blanks and NULs after it are ignored.
func parseInt(b []byte) (int64, error) {
	for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	neg := len(b) > 0 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 { // 18 digits always fit
		return 0, errFormat
	}
	var v int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, errFormat
		}
		v = v*10 + int64(c-'0')
	}
	if neg {
		v = -v
	}
	return v, nil
}

// input is an attribute and the number of base units in its step, and once open its file.
type input struct {
	path  string
	scale int64
	limit int64 // largest magnitude in base units that can be true
	f     attr
}

// open opens the input if it is one.
func (in *input) open(t tree) (err error) {
	if in.path == "" {
		return nil
	}
	in.path = t.path(in.path)
	if in.f, err = t.open(in.path); err != nil {
		return hint(in.path, fmt.Errorf("open %s: %w", in.path, err))
	}
	return nil
}

func (in *input) close() {
	if in.f != nil {
		_ = in.f.Close()
	}
}

func (in *input) bytes(buf []byte) ([]byte, error) {
	n, err := in.f.ReadAt(buf, 0)
	if err != nil {
		return nil, hint(in.path, fmt.Errorf("read %s: %w", in.path, err))
	}
	return buf[:n], nil
}

// read returns the present value in base units.
func (in *input) read(buf []byte) (int64, error) {
	b, err := in.bytes(buf)
	if err != nil {
		return 0, err
	}
	v, err := parseInt(b)
	if err != nil || v > in.limit/in.scale || v < -in.limit/in.scale {
		return 0, fmt.Errorf("%s holds %.20q: %w", in.path, b, errFormat)
	}
	return v * in.scale, nil
}
