package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// prepared runs the command that an init container runs.
func prepared(t *testing.T, dir, owner string) error {
	t.Helper()
	none := func(string) string { return "" }
	return run(t.Context(), []string{"--state.directory=" + dir, "--state.prepare=" + owner}, none, io.Discard, io.Discard)
}

func owner(t *testing.T, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Sprintf("%d:%d", st.Uid, st.Gid)
}

// The directory and what is in it get their owner, where a link leads to does not, and a second time nothing is wrong.
func TestPrepareState(t *testing.T) {
	t.Parallel()
	who := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	if os.Getuid() == 0 {
		who = "65532:65532"
	}
	outside := filepath.Join(t.TempDir(), "shadow")
	dir := filepath.Join(t.TempDir(), "a", "state")
	if err := prepared(t, dir, who); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{outside: "root's", filepath.Join(dir, "totals.json"): "{}"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	before := owner(t, outside)
	for range 2 {
		if err := prepared(t, dir, who); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{dir, filepath.Join(dir, "totals.json"), filepath.Join(dir, "link")} {
		if got := owner(t, path); got != who {
			t.Errorf("%s belongs to %s, want %s", path, got, who)
		}
	}
	if got := owner(t, outside); got != before {
		t.Errorf("what a link leads to was given away, to %s", got)
	}
}

func TestPrepareStateRefuses(t *testing.T) {
	t.Parallel()
	for owner, want := range map[string]string{
		"65532": "it must be UID:GID", "wattlet:wattlet": "it must be UID:GID", "-1:0": "it must be UID:GID", "4294967295:0": "it must be UID:GID", "1:2:3": "it must be UID:GID",
	} {
		err := prepared(t, t.TempDir(), owner)
		if usage := (usageError{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", owner, err, want)
		}
	}
	if err := prepared(t, "", "1:1"); err == nil || !strings.Contains(err.Error(), "no --state.directory") {
		t.Errorf("no directory: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := prepared(t, file, "0:0"); err == nil || !strings.Contains(err.Error(), "state directory: ") {
		t.Errorf("a file: %v", err)
	}
}
