package hostclock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wattlet/wattlet/internal/hostclock"
)

func TestUptimeGrows(t *testing.T) {
	a := hostclock.Uptime()
	if b := hostclock.Uptime(); a <= 0 || b < a {
		t.Errorf("%v, then %v", a, b)
	}
}

func TestBootID(t *testing.T) {
	root := t.TempDir()
	if _, err := hostclock.BootID(root); err == nil {
		t.Error("no file, no error")
	}
	path := filepath.Join(root, "sys/kernel/random/boot_id")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{"3f9c\n": "3f9c", "\n": ""} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := hostclock.BootID(root); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}
