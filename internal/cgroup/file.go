package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errGone says that what was opened is no longer what its path leads to.
var errGone = errors.New("gone")

// isGone is true for the errors that a removed directory answers with: ENODEV from a file that is still open (kernfs), ENOENT
// from its path.
func isGone(err error) bool {
	return errors.Is(err, errGone) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT)
}

// handle is a file or directory that stays open if it may. It is not an os.File because that one costs an allocation when
// opened, reads a second time to see the end of the file, and waits in the poller.
type handle struct {
	fd  int    // below one if closed
	ino uint64 // of what was opened first, 0 before
}

// files opens and reads into buffers of its own, so that nothing is allocated once these are large enough.
type files struct {
	path []byte
	buf  []byte
	open int // descriptors held
	max  int
	stat unix.Stat_t
}

// at sets the path of the next open; empty elements are left out.
func (f *files) at(elems ...string) {
	f.path = f.path[:0]
	for _, e := range elems {
		if e == "" {
			continue
		}
		if len(f.path) > 0 {
			f.path = append(f.path, '/')
		}
		f.path = append(f.path, e...)
	}
	f.path = append(f.path, 0)
}

// name is the path last set, for errors.
func (f *files) name() string { return string(f.path[:len(f.path)-1]) }

// acquire returns the descriptor of h, opening the path last set if it is closed, and leaves what fstat(2) says of it in f.stat
// when it does. It returns errGone where the path leads to another inode than before. release must follow.
func (f *files) acquire(h *handle, flags int) (int, error) {
	if h.fd > 0 {
		return h.fd, nil
	}
	fd, err := f.openat(flags)
	if err != nil {
		return 0, err
	}
	if err := unix.Fstat(fd, &f.stat); err != nil {
		_ = unix.Close(fd)
		return 0, err
	}
	if h.ino != 0 && h.ino != f.stat.Ino {
		_ = unix.Close(fd)
		return 0, errGone
	}
	h.ino = f.stat.Ino
	return fd, nil
}

// release keeps fd open in h if keep says so and there is room, and closes it otherwise.
func (f *files) release(h *handle, fd int, keep bool) {
	switch {
	case h.fd > 0:
	case keep && f.open < f.max:
		h.fd = fd
		f.open++
	default:
		_ = unix.Close(fd)
	}
}

func (f *files) close(h *handle) {
	if h.fd > 0 {
		_ = unix.Close(h.fd)
		f.open--
	}
	h.fd = 0
}

// openat is openat(2) without the copy of the path that unix.Open allocates.
func (f *files) openat(flags int) (int, error) {
	for {
		cwd := unix.AT_FDCWD
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(cwd), uintptr(unsafe.Pointer(&f.path[0])), //nolint:gosec // openat without a copy of the path
			uintptr(flags|unix.O_CLOEXEC|unix.O_LARGEFILE), 0, 0, 0)
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// maxFile is more than any of the kernel's files read here can have.
const maxFile = 4 << 20

// read returns what the file at the path last set has now; the bytes are good until the next read. keep is true for the kernel's
// own files, which stay open if there is room.
func (f *files) read(h *handle, keep bool) ([]byte, error) {
	fd, err := f.acquire(h, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.release(h, fd, keep)
	if !keep { // copies of the kernel's files may be replaced to be changed
		h.ino = 0
	}
	for {
		n, err := unix.Pread(fd, f.buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, err
		case n < len(f.buf): // the kernel's files come whole or not at all if they fit
			return f.buf[:n], nil
		case len(f.buf) >= maxFile:
			return nil, fmt.Errorf("more than %d bytes", maxFile)
		default:
			f.buf = make([]byte, 2*len(f.buf))
		}
	}
}

// readOnce is read for a file that is not needed again soon.
func (f *files) readOnce() ([]byte, error) {
	var h handle
	return f.read(&h, false)
}

// dirent is one entry of what getdents64(2) returns: struct linux_dirent64 { u64 ino; s64 off; u16 reclen; u8 type; char name[]; }.
type dirent struct {
	name []byte
	kind byte // DT_DIR, DT_REG …; some file systems answer DT_UNKNOWN
}

const direntHeader = 19

// nextDirent cuts the first entry off b; ok is false at the end and where b is cut off.
func nextDirent(b []byte) (e dirent, rest []byte, ok bool) {
	if len(b) < direntHeader {
		return dirent{}, nil, false
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < direntHeader || size > len(b) {
		return dirent{}, nil, false
	}
	name := b[direntHeader:size]
	for i, c := range name {
		if c == 0 {
			name = name[:i]
			break
		}
	}
	return dirent{name: name, kind: b[18]}, b[size:], true
}
