package cgroup

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsers(t *testing.T) {
	ns := func(s string) (time.Duration, error) { return parseNanoseconds([]byte(s)) }
	us := func(s string) (time.Duration, error) { return parseCPUStat([]byte(s)) }
	for _, c := range []struct {
		parse func(string) (time.Duration, error)
		text  string
		want  time.Duration // below zero for an error
	}{
		{ns, "0\n", 0},
		{ns, "1062726083\n", 1062726083},
		{ns, "9223372036854775807\n", math.MaxInt64},
		{ns, "9223372036854775808\n", -1},
		{ns, "18446744073709551615\n", -1},
		{ns, "-1\n", -1},
		{ns, "1 2\n", -1},
		{ns, "", -1},
		{us, "usage_usec 1062726\nuser_usec 1\nsystem_usec 2\n", 1062726 * time.Microsecond},
		{us, "nr_periods 1\nusage_usec 7", 7 * time.Microsecond},
		{us, "usage_usec 9223372036854775\n", math.MaxInt64 / 1000 * 1000},
		{us, "usage_usec 9223372036854776\n", -1},
		{us, "usage_usec\n", -1},
		{us, "usage_usec 5x\n", -1},
		{us, "user_usec 5\n", -1},
		{us, "", -1},
	} {
		got, err := c.parse(c.text)
		if (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%q: %d, %v", c.text, got, err)
		}
	}
}

func TestParseStat(t *testing.T) {
	for text, want := range map[string][]int64{
		"cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 4 8 16 32 64 128 256 512\nintr cpu0": {0, 103},
		"cpu0 1 2 3 4 5 6 7\n":                nil, // 1 + 2 + 3 + 6 + 7 = 19, set below
		"cpu0 1 2 3 4 5 6\n":                  {},
		"cpu0 1 2 3 -4 5 6 7\n":               {},
		"cpu9999 1 2 3 4 5 6 7\n":             {},
		"cpux 1 2 3 4 5 6 7\n":                {},
		"cpu 1 2 3 4 5 6 7\n":                 {},
		"":                                    {},
		"cpu0 99999999999999 0 0 0 0 0 0 0\n": {},
	} {
		if want == nil {
			want = []int64{19}
		}
		got, err := parseStat([]byte(text), nil)
		if (err != nil) != (len(want) == 0) || err == nil && !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]string{
		"0-3,5\n": "0 1 2 3 5", "0 1 2 3\n": "0 1 2 3", "7": "7", "\n": "", "": "",
		"3-1": "!", "0,": "!", "0-": "!", "a": "!", "0;1": "!", "0-9000": "!", "1-2-3": "!",
	} {
		cpus, err := parseCPUs([]byte(text))
		var b strings.Builder
		for i, c := range cpus {
			if i > 0 {
				b.WriteByte(' ')
			}
			b.WriteByte(byte('0' + c))
		}
		if err != nil && want == "!" {
			continue
		}
		if err != nil || b.String() != want {
			t.Errorf("%q: %v, %v", text, cpus, err)
		}
	}
	class := []uint8{1, 1, 2, 2}
	for text, want := range map[string]uint8{"0-1": 1, "2,3": 2, "1-2": 0, "": 0, "2-4": 0, "3": 2} {
		if got, err := parseClass([]byte(text), class); err != nil || got != want {
			t.Errorf("class of %q: %d, %v", text, got, err)
		}
	}
}

// No input may make a parser fail otherwise than by an error, or give what is below zero.
func FuzzParsers(f *testing.F) {
	for _, s := range []string{
		"1062726083\n", "usage_usec 8816504224\nuser_usec 1\n", "4706456450589 4210122557464 \n", "0-3,5\n", "0 1 2 3\n", "600000 123456\n",
		"cpu  1 2\ncpu0 371131 22556 69887 725945 1303 0 2168 85 0 0\nintr 1\n", "", "9223372036854775808", "0-8191,0-8191", "\x00", " ",
	} {
		f.Add([]byte(s))
	}
	class := []uint8{1, 1, 2}
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseNanoseconds(b); err == nil && d < 0 {
			t.Errorf("nanoseconds %d", d)
		}
		if d, err := parseCPUStat(b); err == nil && d < 0 {
			t.Errorf("cpu.stat %d", d)
		}
		var v vector
		if err := parsePerCPU(b, class, &v); err == nil && slices.Min(v[:]) < 0 {
			t.Errorf("usage_percpu %v", v)
		}
		if busy, err := parseStat(b, nil); err == nil && (len(busy) == 0 || len(busy) > maxCPUs || slices.Min(busy) < 0) {
			t.Errorf("stat %v", busy)
		}
		cpus, err := parseCPUs(b)
		if err == nil && len(cpus) > 0 && (slices.Min(cpus) < 0 || slices.Max(cpus) >= maxCPUs) {
			t.Errorf("CPUs %v", cpus)
		}
		if c, err := parseClass(b, class); err == nil && c > 2 {
			t.Errorf("class %d", c)
		}
		if all, err := parseNumbers(b); err == nil && len(all) > 0 && slices.Min(all) < 0 {
			t.Errorf("numbers %v", all)
		}
		var p policy
		if _, err := p.update(b); err == nil {
			for _, b := range p.bins {
				if b.khz < 0 || b.sum < 0 {
					t.Errorf("bin %+v", b)
				}
			}
		}
	})
}

func FuzzDirents(f *testing.F) {
	f.Add(append([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04"), "a.sc\x00"...))
	f.Add([]byte("short"))
	f.Add(make([]byte, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		left := len(b)
		for e, rest, ok := nextDirent(b); ok; e, rest, ok = nextDirent(rest) {
			if len(rest) >= left || len(e.name) > left || slices.Contains(e.name, 0) {
				t.Fatalf("%q, %d of %d bytes left", e.name, len(rest), left)
			}
			left = len(rest)
		}
	})
}

func TestDirents(t *testing.T) {
	b := append([]byte("\x01\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x18\x00\x04"), "a.sc\x00"...)
	if b[17] == 0x18 { // the machine's byte order is the other one
		b[16], b[17] = b[17], b[16]
	}
	e, rest, ok := nextDirent(b)
	if !ok || string(e.name) != "a.sc" || e.kind != 4 || len(rest) != 0 {
		t.Errorf("%q %d, %d left, %v", e.name, e.kind, len(rest), ok)
	}
}
