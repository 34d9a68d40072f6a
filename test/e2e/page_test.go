package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell is where commands of the documentation are run as they are written: a directory like a clone of the repository, with kubectl and
// helm for the cluster.
type shell struct {
	dir, setup string
}

// shell makes one with files in it.
func (c *cluster) shell(tb testing.TB, files map[string][]byte) *shell {
	tb.Helper()
	s := &shell{dir: work("clone")}
	helm, err := exec.LookPath(setting("WATTLET_HELM", "helm"))
	err = errors.Join(err, os.MkdirAll(filepath.Join(s.dir, "bin"), 0o700))
	for name, to := range map[string]string{"deploy": repository("deploy"), "bin/kubectl": c.program, "bin/helm": helm} {
		err = errors.Join(err, os.Symlink(to, filepath.Join(s.dir, name)))
	}
	for name, text := range files {
		err = errors.Join(err, os.WriteFile(filepath.Join(s.dir, name), text, 0o600))
	}
	if err != nil {
		tb.Fatal(err)
	}
	s.setup = fmt.Sprintf("set -euo pipefail; cd %q; export HOME=%q KUBECONFIG=%q PATH=%q:$PATH\n", s.dir, work(), work("admin.kubeconfig"), s.dir+"/bin")
	return s
}

// run runs commands, and returns what they print.
func (s *shell) run(tb testing.TB, commands string) (string, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", s.setup+commands)
	cmd.WaitDelay = time.Second
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", commands, err, strings.TrimSpace(said.String()))
	}
	return string(out), err
}

// must runs commands that have to succeed.
func (s *shell) must(tb testing.TB, commands string) {
	tb.Helper()
	if _, err := s.run(tb, commands); err != nil {
		seen, _ := s.run(tb, "kubectl -n wattlet get pods,events") // what there is to see
		tb.Fatalf("%v\n%s", err, seen)
	}
}

// written returns the first block of code in a language that a page has after a text.
func written(tb testing.TB, page, after, language string) string {
	tb.Helper()
	b, err := os.ReadFile(repository("docs", page))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\n"+after)
	_, rest, begins := strings.Cut(rest, "\n```"+language+"\n")
	code, _, ends := strings.Cut(rest, "\n```")
	if !ok || !begins || !ends {
		tb.Fatalf("%s has no block of %s after %q", page, language, after)
	}
	return code
}
