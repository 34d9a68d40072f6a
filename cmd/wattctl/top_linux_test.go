package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal opens a terminal of so many rows and columns, and the side at which a person sits (pty(7)).
func terminal(t *testing.T, rows, columns uint16) (screen, person *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	fd := int(person.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
	screen, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { screen.Close() })
	return screen, person
}

// On a terminal s changes what comes first, and q ends it; then the terminal is as it was before.
func TestTopKeys(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for _, quit := range []string{"q", "\x03"} {
		screen, person := terminal(t, 12, 60)
		before, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		c, err := parseTop(t, topAgentOf(t, "pi", nil), "--every=20ms", "--workloads")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		r := &running{t: t, ended: make(chan struct{}), interrupt: cancel}
		go func() {
			defer close(r.ended)
			if err := c.run(&app{ctx: ctx, stdout: screen, stderr: &r.stderr}, screen); err != nil {
				r.status = 1
			}
		}()
		r.cleanup([]string{"top"})
		var shown output
		go func() {
			for b := make([]byte, 4096); ; {
				n, err := person.Read(b)
				if err != nil {
					return // the terminal is closed
				}
				_, _ = shown.Write(b[:n])
			}
		}()
		press := func(key string) {
			if _, err := person.WriteString(key); err != nil {
				t.Fatal(err)
			}
		}
		r.until("it draws", func() bool { return strings.Count(shown.String(), "\x1b[H") >= 2 })
		for _, key := range []string{"energy", "joules", "name", "watts", "energy"} {
			press("s")
			r.until("it is sorted by "+key, func() bool {
				all := shown.String()
				return strings.Contains(all[strings.LastIndex(all[:strings.LastIndex(all, "\x1b[H")], "\x1b[H"):], "sorted by "+key+"; s sorts")
			})
		}
		press(quit)
		if status := r.wait(); status != 0 {
			t.Errorf("status %d after %q", status, quit)
		}
		frames := strings.Split(shown.String(), "\x1b[H")
		if strings.Count(shown.String(), "\x1b[2J") != 1 || !strings.HasPrefix(frames[1], "\x1b[2J") {
			t.Errorf("it clears the screen otherwise than once, at first: %q", shown.String())
		}
		for _, f := range frames[1 : len(frames)-1] {
			f = strings.TrimPrefix(f, "\x1b[2J")
			lines := strings.Split(f, "\x1b[K\r\n")
			if len(lines) > 12 || lines[len(lines)-1] != "\x1b[J" || strings.Contains(strings.Join(lines, ""), "\n") {
				t.Fatalf("%d lines: %q", len(lines), f)
			}
			for _, l := range lines {
				if len([]rune(l)) > 60 {
					t.Fatalf("a line of %d columns: %q", len([]rune(l)), l)
				}
			}
		}
		after, err := unix.IoctlGetTermios(int(screen.Fd()), unix.TCGETS)
		if err != nil || *after != *before {
			t.Errorf("the terminal is left otherwise than it was: %+v, %v; was %+v", after, err, before)
		}
	}
}
