// Package hostclock is this host's clock since boot and the name of the boot: what instants are measured on that must survive a
// stepped wall clock and a suspended host.
package hostclock

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Uptime is the time since boot, suspension included (clock_gettime(2), CLOCK_BOOTTIME).
func Uptime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail: the clock exists since Linux 2.6.39
	return time.Duration(ts.Nano())
}

// BootID names this boot of the host; proc is where procfs is mounted (random(4), /proc/sys/kernel/random/boot_id).
func BootID(proc string) (string, error) {
	b, err := os.ReadFile(filepath.Join(proc, "sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("the kernel's boot id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", fmt.Errorf("the kernel's boot id: %s has none", proc)
	}
	return id, nil
}
