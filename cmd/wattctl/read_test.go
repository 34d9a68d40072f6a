package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

func TestReadTable(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--ideal", "--channels=3", "--load=*=constant:2550mW", "--load=2=constant:5.1W")
	out := succeed(t, sim.read("--count=3", "--every=0s")...)
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	const heading = "  METER TIME   REPORT  CH        POWER    VOLTAGE     CURRENT         ENERGY       CHARGE"
	if len(lines) != 1+3*3 || lines[0] != heading {
		t.Fatalf("want a heading and three reports of three channels:\n%s", out)
	}
	row := regexp.MustCompile(`^ +[0-9]+\.[0-9]s +([0-9]+) +([0-9]) +([0-9.]+ W) +([0-9.]+ V) +([0-9.]+ m?A) +[0-9.]+ m?J +[0-9.]+ m?C$`)
	var before int
	for i, l := range lines[1:] {
		m := row.FindStringSubmatch(l)
		want := []string{strconv.Itoa(i%3 + 1), "2.550 W", "5.100 V", "500.000 mA"}
		if i%3 == 1 {
			want = []string{"2", "5.100 W", "5.100 V", "1.000 A"}
		}
		if m == nil || len(l) != len(heading) || !slices.Equal(m[2:], want) {
			t.Fatalf("line %q; want %v in it", l, want)
		}
		seq, _ := strconv.Atoi(m[1])
		if i%3 == 0 && seq <= before || i%3 > 0 && seq != before {
			t.Errorf("report %d after %d:\n%s", seq, before, out)
		}
		before = seq
	}
}

// A heading comes again before it has left the screen.
func TestReadHeadings(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	out := succeed(t, sim.read("--count=26", "--every=0s", "--channel=5")...)
	lines := strings.Split(out, "\n")
	if len(lines) != 29 || !strings.Contains(lines[0], "METER TIME") || !strings.Contains(lines[25], "METER TIME") {
		t.Errorf("want 26 lines under two headings:\n%s", out)
	}
}

// report is a report as /power gives it with Accept 50.
type report struct {
	BootID   uint32 `json:"boot_id"`
	Seq      uint32 `json:"seq"`
	TUs      int64  `json:"t_us"`
	Sweeps   int64  `json:"sweeps"`
	Channels []struct {
		Channel      int   `json:"channel"`
		EnergyUJ     int64 `json:"energy_uj"`
		ChargeUC     int64 `json:"charge_uc"`
		PowerUW      int64 `json:"power_uw"`
		VoltageUV    int64 `json:"voltage_uv"`
		CurrentUA    int64 `json:"current_ua"`
		UnmeasuredUs int64 `json:"unmeasured_us"`
		Saturated    int64 `json:"saturated"`
		SensorErrors int64 `json:"sensor_errors"`
	} `json:"channels"`
}

// decode decodes a line of JSON, of which it must know every field.
func decode[T any](t *testing.T, line string) (v T) {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil || dec.More() {
		t.Fatalf("%q: %v", line, err)
	}
	return v
}

func TestReadJSON(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--ideal", "--load=2=constant:5.1W")
	out := succeed(t, sim.read("--json", "--count=5", "--every=0s", "--channel=2")...)
	var reports []report
	for l := range strings.Lines(out) {
		reports = append(reports, decode[report](t, l))
	}
	if len(reports) != 5 {
		t.Fatalf("%d reports, want 5:\n%s", len(reports), out)
	}
	for i, r := range reports {
		if r.BootID != reports[0].BootID || i > 0 && r.Seq <= reports[i-1].Seq || r.Sweeps != r.TUs/2000 || len(r.Channels) != 1 {
			t.Fatalf("report %+v in\n%s", r, out)
		}
		// 5.1 W are 5.1 µJ a microsecond, and at 5.1 V one ampere.
		c := r.Channels[0]
		if c.Channel != 2 || max(c.EnergyUJ-r.TUs*51/10, r.TUs*51/10-c.EnergyUJ) > 1 || max(c.ChargeUC-r.TUs, r.TUs-c.ChargeUC) > 1 ||
			c.PowerUW != 5_100_000 || c.VoltageUV != 5_100_000 || c.CurrentUA != 1_000_000 || c.UnmeasuredUs != 0 {
			t.Errorf("after %d µs: %+v", r.TUs, c)
		}
	}
}

func TestReadEvery(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	var before int64
	for l := range strings.Lines(succeed(t, sim.read("--json", "--count=4", "--every=500ms")...)) {
		r := decode[report](t, l)
		if before != 0 && r.TUs < before+500_000 {
			t.Errorf("a report at %d µs after one at %d µs", r.TUs, before)
		}
		if len(r.Channels) != 6 {
			t.Errorf("%d channels, want all 6", len(r.Channels))
		}
		before = r.TUs
	}
}

// samples are the raw samples as /samples gives them with Accept 50.
type samples struct {
	BootID  uint32 `json:"boot_id"`
	Next    uint32 `json:"next"`
	Batches []struct {
		Seq            uint32 `json:"seq"`
		TUs            int64  `json:"t_us"`
		Sweeps         int64  `json:"sweeps"`
		SamplePeriodUs int64  `json:"sample_period_us"`
		Channels       []struct {
			Channel int     `json:"channel"`
			Counts  []int64 `json:"counts"`
			Missing []int64 `json:"missing"`
		} `json:"channels"`
	} `json:"batches"`
}

// Through a network that loses every tenth datagram each way, every sample comes once.
func TestReadSamplesThroughLoss(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--ideal", "--channels=2", "--load=2=constant:5W", "--loss=0.1")
	reading := start(t, sim.read("--json", "--samples", "--channel=2", "--every=0s")...)

	var (
		seen      = map[int64]bool{} // by number
		parsed    int
		last      uint32 // batch
		recovered []int64
	)
	parse := func() {
		text := reading.stdout.String()
		text = text[:strings.LastIndexByte(text, '\n')+1]
		for l := range strings.Lines(text[parsed:]) {
			if strings.Contains(l, `"energy_uj"`) {
				decode[report](t, l)
				continue
			}
			s := decode[samples](t, l)
			if len(s.Batches) != 1 || len(s.Batches[0].Channels) != 1 || s.Batches[0].Channels[0].Channel != 2 || s.Next != s.Batches[0].Seq+1 {
				t.Fatalf("want one batch of channel 2: %s", l)
			}
			b := s.Batches[0]
			counts := b.Channels[0].Counts
			for i, c := range counts {
				n := b.Sweeps - int64(len(counts)) + int64(i)
				if seen[n] {
					t.Errorf("sample %d comes twice", n)
				}
				seen[n] = true
				// 5 W at 5.1 V are 98.04 mV across 0.1 Ω, in counts of 40 µV.
				if c != 2450 && c != 2451 {
					t.Fatalf("sample %d has %d counts, want 2451: %s", n, c, l)
				}
			}
			if b.Seq < last {
				recovered = append(recovered, b.Sweeps-1)
			}
			last = max(last, b.Seq)
		}
		parsed = len(text)
	}
	// Two seconds without a hole around a recovered batch; a hole that the meter's ring no longer fills is another matter.
	whole := func(around int64) bool {
		first, end := around, around
		for seen[first-1] {
			first--
		}
		for seen[end] {
			end++
		}
		return end-first >= 1000
	}
	reading.until("two seconds of samples without a hole, with some of them recovered", func() bool {
		parse()
		return slices.ContainsFunc(recovered, whole)
	})
	if status := reading.end(); status != 0 {
		t.Errorf("interrupted, it ended with %d", status)
	}
}

func TestReadSamplesTable(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--ideal", "--channels=2", "--load=2=constant:5W")
	reading := start(t, sim.read("--samples", "--every=0s", "--channel=2", "--count=3")...)
	if status := reading.wait(); status != 0 {
		t.Fatalf("status %d", status)
	}
	sample := regexp.MustCompile(`^sample channel 2 number ([0-9]+) at ([0-9]+\.[0-9]{6}) s: 245[01] counts$`)
	var n int
	for l := range strings.Lines(reading.stdout.String()) {
		if !strings.HasPrefix(l, "sample") {
			continue
		}
		m := sample.FindStringSubmatch(strings.TrimSuffix(l, "\n"))
		if m == nil {
			t.Fatalf("%q", l)
		}
		// A sweep is over 2 ms after the one before; the first, number 0, is over at 2 ms.
		number, _ := strconv.ParseInt(m[1], 10, 64)
		if want := fmt.Sprintf("%d.%06d", (number+1)*2000/1_000_000, (number+1)*2000%1_000_000); m[2] != want {
			t.Errorf("sample %d at %s s, want %s s", number, m[2], want)
		}
		n++
	}
	// The first report of a boot has one sample, the second the other 49 of its interval.
	if n < 1+49+50 || !strings.HasPrefix(lastLine(reading.stdout.String()), "sample") {
		t.Errorf("%d samples, want those of three reports", n)
	}
}

func TestReadNoSuchChannel(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	refused(t, "the meter has no channel 9", 1, sim.read("--channel=9")...)
}

// A meter that measures badly says so.
func TestReadNotes(t *testing.T) {
	t.Parallel()
	sim := simulate(t, "--channels=1", "--load=1=constant:20W", "--sensor-error=0.2")
	out := succeed(t, sim.read("--count=2", "--every=0s")...)
	note := regexp.MustCompile(`C saturated [0-9]+× sensor errors [0-9]+ unmeasured [0-9.]+(ms|s)\n$`)
	if !note.MatchString(out) {
		t.Errorf("20 W at 5.1 V are more than 0.1 Ω can measure:\n%s", out)
	}
}

// lastLine is the one that says why a command ended; warnings may stand before it.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	return lines[len(lines)-1]
}

func TestReadSilence(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	// A socket that hears one peer only refuses what others send.
	refusing, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { refusing.Close() })
	sim := simulate(t)
	key, other := "--psk-file="+sim.keyFile, "--psk-file="+write(t, "other", "another key than the meter's\n")
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no answer":      {[]string{"coaps://" + silent.LocalAddr().String(), key}, "no answer: it is off, out of reach, or has another key or identity"},
		"refused":        {[]string{"coaps://" + refusing.LocalAddr().String(), key}, "nothing listens there"},
		"wrong key":      {[]string{sim.url, other}, "another key or identity"},
		"wrong identity": {[]string{sim.url, key, "--psk-identity=nobody"}, "another key or identity"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			status, stdout, stderr := wattctl(t, append([]string{"meter", "read", "--wait=4s"}, tc.args...)...)
			took := time.Since(began)
			why := lastLine(stderr)
			if status != 1 || stdout != "" || !strings.HasPrefix(why, "wattctl: no report for 4s: "+tc.args[0]) || !strings.Contains(why, tc.want) {
				t.Errorf("status %d, stdout %q, stderr %q; want %q", status, stdout, stderr, tc.want)
			}
			if took < 4*time.Second || took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// A meter that goes away while it is read is waited for no longer than told.
func TestReadMeterGoesAway(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	reading := start(t, sim.read("--wait=10s")...)
	reading.until("a report", func() bool { return strings.Contains(reading.stdout.String(), "METER TIME") })
	sim.end()
	if status := reading.wait(); status != 1 || !strings.HasPrefix(lastLine(reading.stderr.String()), "wattctl: no report for 10s: "+sim.url) {
		t.Errorf("status %d", status)
	}
}

func TestReadInterrupted(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	reading := start(t, sim.read("--every=0s")...)
	reading.until("a report", func() bool { return strings.Contains(reading.stdout.String(), "METER TIME") })
	if status := reading.end(); status != 0 || reading.stderr.String() != "" {
		t.Errorf("status %d", status)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestReadCannotPrint(t *testing.T) {
	t.Parallel()
	sim := simulate(t)
	var stderr bytes.Buffer
	if status := run(t.Context(), sim.read(), fullDisk{}, &stderr); status != 1 || stderr.String() != "wattctl: write: no space left\n" {
		t.Errorf("status %d, stderr %q", status, stderr.String())
	}
}

// A meter need not send samples.
func TestReadSamplesOfNone(t *testing.T) {
	t.Parallel()
	stopped := 0
	p := &reportPrinter{readCmd: readCmd{Count: 1, Samples: true}, out: io.Discard, stop: func() { stopped++ }}
	p.report(&meterpb.Report{Seq: 1, TUs: 100_000})
	if stopped > 0 {
		t.Error("ended before the samples of the last report could come")
	}
	p.report(&meterpb.Report{Seq: 2, TUs: 200_000})
	if stopped != 1 || p.printed != 1 {
		t.Errorf("the next report ended it %d times, %d printed; want 1 and 1", stopped, p.printed)
	}
}
