package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// prepareState makes the state directory and gives it, with the files in it, to an owner written UID:GID. It is for a container
// that runs as root for a moment, before the agent that does not: a kubelet makes directories on the host as root's.
//
// It needs the capability CHOWN and no other, and follows no link.
func prepareState(dir, owner string) error {
	u, g, _ := strings.Cut(owner, ":")
	uid, err := strconv.ParseUint(u, 10, 31)
	gid, err2 := strconv.ParseUint(g, 10, 31)
	switch {
	case err != nil || err2 != nil:
		return usagef("--state.prepare=%s: it must be UID:GID, as 65532:65532", owner)
	case dir == "":
		return usagef("--state.prepare=%s: there is no --state.directory to give", owner)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // totals are no secret; who else may read the host's directory is the host's matter
		return fmt.Errorf("state directory: %w", err)
	}
	// Files first: once the directory is another's, what is in it may change.
	files, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	for _, f := range files {
		if err := os.Lchown(filepath.Join(dir, f.Name()), int(uid), int(gid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("state directory: %w", err)
		}
	}
	if err := os.Lchown(dir, int(uid), int(gid)); err != nil {
		return fmt.Errorf("state directory: %w; run this as root", err)
	}
	return nil
}
