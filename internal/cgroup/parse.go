package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"time"
)

var errFormat = errors.New("not what the kernel writes")

// tick is the unit of /proc/stat and of cpufreq's time_in_state: USER_HZ is 100 on all of Linux's architectures but Alpha
// and IA-64 (proc_stat(5), Documentation/cpufreq/cpufreq-stats.rst).
const tick = time.Second / 100

// maxCPUs bounds what a wrong number may cost; CONFIG_NR_CPUS is 8192 at most.
const maxCPUs = 8192

// cutNumber takes a decimal number of at most limit off the front of b, after blanks.
func cutNumber(b []byte, limit int64) (v int64, rest []byte, ok bool) {
	for len(b) > 0 && b[0] == ' ' {
		b = b[1:]
	}
	i := 0
	for ; i < len(b) && '0' <= b[i] && b[i] <= '9'; i++ {
		d := int64(b[i] - '0')
		if v > (limit-d)/10 {
			return 0, nil, false
		}
		v = v*10 + d
	}
	return v, b[i:], i > 0
}

// blank is true if nothing but white space is left.
func blank(b []byte) bool { return len(bytes.TrimRight(b, " \n\x00")) == 0 }

// parseNanoseconds reads v1's cpuacct.usage, "1062726083\n" (Documentation/admin-guide/cgroup-v1/cpuacct.rst).
func parseNanoseconds(b []byte) (time.Duration, error) {
	v, rest, ok := cutNumber(b, math.MaxInt64)
	if !ok || !blank(rest) {
		return 0, errFormat
	}
	return time.Duration(v), nil
}

// parsePerCPU adds v1's cpuacct.usage_percpu, "4706456450589 4210122557464 \n", nanoseconds of each possible CPU, to the classes
// of these CPUs.
func parsePerCPU(b []byte, class []uint8, sum *vector) error {
	cpu := 0
	for ; !blank(b); cpu++ {
		v, rest, ok := cutNumber(b, math.MaxInt64)
		if !ok || cpu == maxCPUs {
			return errFormat
		}
		b = rest
		c := classOf(class, cpu)
		if sum[c] > math.MaxInt64-time.Duration(v) {
			return errFormat
		}
		sum[c] += time.Duration(v)
	}
	if cpu == 0 {
		return errFormat
	}
	return nil
}

var usageKey = []byte("usage_usec ")

// parseCPUStat finds usage_usec in v2's cpu.stat, "usage_usec 8816504224\nuser_usec …" (Documentation/admin-guide/cgroup-v2.rst).
func parseCPUStat(b []byte) (time.Duration, error) {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, newline)
		if v, found := bytes.CutPrefix(line, usageKey); found {
			us, end, ok := cutNumber(v, math.MaxInt64/int64(time.Microsecond))
			if !ok || !blank(end) {
				return 0, errFormat
			}
			return time.Duration(us) * time.Microsecond, nil
		}
		b = rest
	}
	return 0, fmt.Errorf("no usage_usec: %w", errFormat)
}

var (
	newline   = []byte("\n")
	cpuPrefix = []byte("cpu")
)

// maxTicks keeps sums over all CPUs within 63 bits of nanoseconds: 3 years of ticks on 8192 CPUs, 200 years on 128.
const maxTicks = math.MaxInt64 / int64(tick) / 16

// parseStat reads the lines of /proc/stat that begin with cpu and a number, "cpu0 371131 22556 69887 725945 1303 0 2168 85 0 0":
// user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice in ticks (proc_stat(5)). It sets busy[cpu] to user +
// nice + system + irq + softirq, making busy longer if needed, and leaves CPUs that are not listed, the offline ones, alone.
//
// Guest time is in user and nice already. Steal was some other machine's, iowait is idle with somebody waiting.
func parseStat(b []byte, busy []int64) ([]int64, error) {
	seen := false
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, newline)
		b = rest
		line, found := bytes.CutPrefix(line, cpuPrefix)
		if !found {
			break // the CPUs come first
		}
		if len(line) == 0 || line[0] == ' ' {
			continue // the sum
		}
		cpu, line, ok := cutNumber(line, maxCPUs-1)
		if !ok {
			return busy, errFormat
		}
		var sum int64
		for field := range 7 {
			var v int64
			if v, line, ok = cutNumber(line, maxTicks); !ok {
				return busy, errFormat
			}
			if field != 3 && field != 4 {
				sum += v
			}
		}
		if sum > maxTicks {
			return busy, errFormat
		}
		for int(cpu) >= len(busy) {
			busy = append(busy, 0)
		}
		busy[cpu] = sum
		seen = true
	}
	if !seen {
		return busy, fmt.Errorf("no CPU: %w", errFormat)
	}
	return busy, nil
}

// cutTimeInState takes one line, "600000 123456\n", kHz and ticks, off the front of cpufreq's time_in_state.
func cutTimeInState(b []byte) (khz, ticks int64, rest []byte, err error) {
	line, rest, _ := bytes.Cut(b, newline)
	khz, line, ok := cutNumber(line, math.MaxInt64)
	if !ok {
		return 0, 0, nil, errFormat
	}
	ticks, line, ok = cutNumber(line, maxTicks)
	if !ok || !blank(line) {
		return 0, 0, nil, errFormat
	}
	return khz, ticks, rest, nil
}

// cutCPURange takes one range off a list of CPUs, "0-3,5\n" (cpuset(7), list format) or, as cpufreq writes it, "0 1 2 3\n".
// more is false when nothing was left.
func cutCPURange(b []byte) (lo, hi int, rest []byte, more bool, err error) {
	if blank(b) {
		return 0, 0, nil, false, nil
	}
	first, b, ok := cutNumber(b, maxCPUs-1)
	last := first
	if ok && len(b) > 0 && b[0] == '-' {
		last, b, ok = cutNumber(b[1:], maxCPUs-1)
	}
	if !ok || last < first {
		return 0, 0, nil, false, errFormat
	}
	if len(b) > 0 && b[0] == ',' {
		b = b[1:]
		if blank(b) {
			return 0, 0, nil, false, errFormat
		}
	} else if len(b) > 0 && b[0] != ' ' && !blank(b) {
		return 0, 0, nil, false, errFormat
	}
	return int(first), int(last), b, true, nil
}

// parseCPUs returns the CPUs of a list.
func parseCPUs(b []byte) ([]int, error) {
	var cpus []int
	for {
		lo, hi, rest, more, err := cutCPURange(b)
		if err != nil || !more {
			return cpus, err
		}
		if len(cpus)+hi-lo >= maxCPUs {
			return nil, errFormat
		}
		for c := lo; c <= hi; c++ {
			cpus = append(cpus, c)
		}
		b = rest
	}
}

// parseClass returns the class that all CPUs of a list are in, 0 if there are several or none.
func parseClass(b []byte, class []uint8) (uint8, error) {
	var found uint8
	for first := true; ; {
		lo, hi, rest, more, err := cutCPURange(b)
		if err != nil || !more {
			return found, err
		}
		for c := lo; c <= hi; c++ {
			if k := classOf(class, c); first {
				found, first = k, false
			} else if k != found {
				found = 0
			}
		}
		b = rest
	}
}

// parseNumbers reads numbers separated by blanks, such as cpufreq's scaling_available_frequencies, "600000 1500000 \n".
func parseNumbers(b []byte) ([]int64, error) {
	var all []int64
	for !blank(b) {
		v, rest, ok := cutNumber(b, math.MaxInt64)
		if !ok {
			return nil, errFormat
		}
		all, b = append(all, v), rest
	}
	return all, nil
}
