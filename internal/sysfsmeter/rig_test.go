package sysfsmeter

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/wattlet/wattlet/internal/energy"
)

// rig is a board in a temporary directory, with a clock that stands until it is moved.
type rig struct {
	t          *testing.T
	root, proc string
	uptime     time.Duration
	faults     map[string]error // by the end of the attribute's path
	log        strings.Builder
}

// bootDate is when the rig's host came up.
var bootDate = time.Date(2026, 11, 1, 6, 0, 0, 0, time.UTC)

func newRig(t *testing.T, board string) *rig {
	t.Helper()
	r := &rig{t: t, root: t.TempDir(), proc: t.TempDir(), uptime: time.Hour, faults: map[string]error{}}
	unpack(t, r.root, board)
	r.boot("5f0e2c1a-7d3b-4e8f-9a6c-1b2d3e4f5a6b")
	return r
}

// unpack makes the tree of a board below root.
func unpack(t testing.TB, root, board string) {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", board+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		name, target, link := strings.Cut(f.Name, " -> ")
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, f.Data, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// relink points the symbolic link at path to target.
func relink(path, target string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// boot sets the kernel's boot id.
func (r *rig) boot(id string) {
	r.t.Helper()
	dir := filepath.Join(r.proc, "sys/kernel/random")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "boot_id"), []byte(id+"\n"), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// set writes the attribute at path, which must be there.
func (r *rig) set(path, value string) {
	r.t.Helper()
	f, err := os.OpenFile(filepath.Join(r.root, path), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := f.WriteString(value); err != nil {
		r.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// add makes a new attribute.
func (r *rig) add(path, value string) {
	r.t.Helper()
	path = filepath.Join(r.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) move(from, to string) {
	r.t.Helper()
	if err := os.Rename(filepath.Join(r.root, from), filepath.Join(r.root, to)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) config(kind string) Config {
	return Config{
		Root: r.root, ProcRoot: r.proc, Kind: kind, Period: time.Second,
		Now:    func() time.Time { return bootDate.Add(r.uptime) },
		Uptime: func() time.Duration { return r.uptime },
		Logger: slog.New(slog.NewTextHandler(&r.log, nil)),
		open:   r.open,
	}
}

// open is openAttr with the errors that files cannot make.
func (r *rig) open(path string) (attr, error) {
	if err := r.fault(path); errors.Is(err, os.ErrPermission) {
		return nil, err
	}
	f, err := openAttr(path)
	if err != nil {
		return nil, err
	}
	return faulty{f, r, path}, nil
}

func (r *rig) fault(path string) error {
	for end, err := range r.faults {
		if strings.HasSuffix(path, end) {
			return err
		}
	}
	return nil
}

type faulty struct {
	attr
	r    *rig
	path string
}

func (f faulty) ReadAt(b []byte, off int64) (int, error) {
	if err := f.r.fault(f.path); err != nil {
		return 0, err
	}
	return f.attr.ReadAt(b, off)
}

func (r *rig) mustOpen(cfg Config) *Source {
	r.t.Helper()
	s, err := Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { s.Close() })
	return s
}

// after moves the clock by d and reads.
func (r *rig) after(d time.Duration, s *Source) energy.Reading {
	r.t.Helper()
	r.uptime += d
	got, err := s.Read()
	if err != nil {
		r.t.Fatal(err)
	}
	return got
}
