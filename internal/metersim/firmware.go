package metersim

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/internal/energy"
)

// Firmware is the meter's firmware as a process of this machine (firmware/test/host): the same components as on the chip, with
// sensors of software at register level, which this feeds with what loads draw. Its methods may be called by several
// goroutines.
//
// Of Options it honours Name, Channels (numbers 1 to 6; of them all but Ideal and SensorError; noise is the largest of all), SweepPeriod,
// ReportInterval, ClockDriftPPM, RebootEvery, RebootTakes, Seed and Log. Unlike Sim it cannot be ideal: its sensors have the resolution that
// sensors have, so that its totals are near the truth and not at it.
type Firmware struct {
	o       FirmwareOptions
	addr    *net.UDPAddr
	dir     string   // of its settings
	loads   []sensor // by channel, 1 first
	reboots chan struct{}

	mu sync.Mutex
	// powerOn is when the first boot began: the loads' zero.
	powerOn time.Duration
	boots   []Boot
	lives   bool
	// totals of the present and the last boots' reports, oldest first.
	totals []total
}

// FirmwareOptions are Options of a Firmware, and what it takes to run one.
type FirmwareOptions struct {
	Options
	// Program is the process, as built by make firmware.
	Program string
	// Identity and Key are what a peer needs; Key is asked at each boot.
	Identity string
	Key      func() []byte
	// Keep has the totals over all boots in a file, as the meter has them in its flash, if it is not empty.
	Keep string
}

// total is what a boot had counted at an instant of its clock, by channel.
type total struct {
	boot   uint32
	us     uint64
	energy [firmwareChannels]energy.Energy
}

const (
	firmwareChannels = 2 * perChip
	// slot is the time for which the sensors' inputs are held. Within it a load has its mean, so that no energy is lost: a conversion
	// is longer than a slot.
	slot = 200 * time.Microsecond
	// feedEvery is the time between two writes to the process.
	feedEvery = 4 * time.Millisecond
	// totalsKept is more than anybody asks back for: ten minutes.
	totalsKept = 6000
	// firmwarePatience is how long the process may take to serve, and to end.
	firmwarePatience = 10 * time.Second
)

// NewFirmware takes a port. The process is started by Run.
func NewFirmware(o FirmwareOptions) (*Firmware, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Options = o.withDefaults()
	if len(o.Channels) > firmwareChannels {
		return nil, fmt.Errorf("%w: %d channels, but the firmware has %d", ErrOptions, len(o.Channels), firmwareChannels)
	}
	if _, err := os.Stat(o.Program); err != nil {
		return nil, fmt.Errorf("the firmware's process: %w; make firmware builds it", err)
	}
	f := &Firmware{o: o, reboots: make(chan struct{}, 1)}
	f.loads = make([]sensor, firmwareChannels)
	for i := range f.loads {
		f.loads[i] = newSensor(Channel{Number: uint32(i + 1), Load: Constant(0), Supply: DefaultSupply, ShuntUohm: DefaultShuntUohm}, i, 1, slot)
	}
	for _, c := range o.Channels {
		if c.Number < 1 || c.Number > firmwareChannels {
			return nil, fmt.Errorf("%w: channel %d, but the firmware has 1 to %d", ErrOptions, c.Number, firmwareChannels)
		}
		f.loads[c.Number-1] = newSensor(c, int(c.Number-1), 1, slot)
	}
	// The port is the same at each boot. It is free between now and then, as a meter's is that has no power.
	addr, err := net.ResolveUDPAddr("udp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", o.Addr, err)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; take another address or end what uses it", o.Addr, err)
	}
	f.addr, _ = conn.LocalAddr().(*net.UDPAddr)
	if err := conn.Close(); err != nil {
		return nil, err
	}
	if f.dir, err = os.MkdirTemp("", "wattlet-meter-"); err != nil {
		return nil, fmt.Errorf("the firmware's settings: %w", err)
	}
	return f, nil
}

// Close removes its files if it is not run.
func (f *Firmware) Close() error { return os.RemoveAll(f.dir) }

// bootTime is the clock that both processes know (clock_gettime(2), CLOCK_BOOTTIME).
func bootTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) // cannot fail
	return time.Duration(ts.Nano())
}

// Addr returns the address it listens on.
func (f *Firmware) Addr() *net.UDPAddr { return f.addr }

// URL returns the address for a client.
func (f *Firmware) URL() string { return "coaps://" + f.addr.String() }

// Now returns true time since power-on, which is the time of the loads; 0 before the first boot.
func (f *Firmware) Now() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now()
}

// now is Now with mu held.
func (f *Firmware) now() time.Duration {
	if f.powerOn == 0 {
		return 0
	}
	return bootTime() - f.powerOn
}

// Run runs the process until ctx ends, and starts it again after each reboot.
func (f *Firmware) Run(ctx context.Context) error {
	defer os.RemoveAll(f.dir) //nolint:errcheck // a few lines in a temporary directory
	for {
		rebooted, err := f.boot(ctx)
		if err != nil || !rebooted {
			return err
		}
		f.o.Log.Info("meter lost its power", "for", f.o.RebootTakes)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.o.RebootTakes):
		}
	}
}

// boot is one run of the process, which ends with ctx, or without a word at a reboot.
func (f *Firmware) boot(ctx context.Context) (rebooted bool, err error) {
	settings := filepath.Join(f.dir, "settings")
	if err := os.WriteFile(settings, f.settings(), 0o600); err != nil {
		return false, fmt.Errorf("the firmware's settings: %w", err)
	}
	args := []string{"--listen", f.addr.String(), "--settings", settings, "--feed"}
	if f.o.Keep != "" {
		args = append(args, "--totals", f.o.Keep)
	}
	noise := 0.0
	for _, c := range f.o.Channels {
		noise = max(noise, c.Noise)
	}
	args = append(args, "--noise", strconv.FormatFloat(noise, 'g', -1, 64), "--clock-drift", strconv.FormatFloat(f.o.ClockDriftPPM, 'g', -1, 64),
		"--seed", strconv.FormatUint(cmp.Or(f.o.Seed, uint64(bootTime())), 10))
	cmd := exec.Command(f.o.Program, args...)
	said := new(lastBytes)
	cmd.Stderr = said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	cmd.WaitDelay = firmwarePatience
	feed, err := cmd.StdinPipe()
	if err != nil {
		return false, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	ended := make(chan error, 1)
	started := make(chan error, 1)
	lines := make(chan string, 16)
	go func() {
		err := startAndWait(cmd, started, out, lines)
		ended <- err
	}()
	if err := <-started; err != nil {
		return false, fmt.Errorf("start the firmware's process: %w", err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with all that it may have started
	defer func() { f.down() }()

	overdue := time.AfterFunc(firmwarePatience, kill)
	defer overdue.Stop()
	start := time.Duration(-1)
	for line := range lines {
		if start, err = f.ready(line); err != nil || start >= 0 {
			break
		}
	}
	if start < 0 {
		kill()
		for range lines {
		}
		return false, errors.Join(err, fmt.Errorf("the firmware's process ended before it served: %w: %s", <-ended, said))
	}
	overdue.Stop()
	f.o.Log.Info("meter is up", "url", f.URL(), "boot_id", f.BootID())

	stopFeed := make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		for line := range lines {
			f.take(line)
		}
	})
	var errFeed error
	work.Go(func() {
		errFeed = errors.Join(f.feed(feed, start, stopFeed), feed.Close())
	})
	var cut <-chan time.Time
	if f.o.RebootEvery > 0 {
		cut = time.After(f.o.RebootEvery)
	}
	end := func() error { // waits for the process, whoever ended it
		close(stopFeed)
		err := <-ended
		work.Wait()
		return err
	}
	select {
	case <-ctx.Done():
		stop := time.AfterFunc(firmwarePatience, kill)
		defer stop.Stop()
		if err := end(); err != nil { // the end of the feed ends it in order
			return false, fmt.Errorf("the firmware's process did not end in order: %w: %s", err, said)
		}
		return false, nil
	case <-f.reboots:
	case <-cut:
	case err := <-ended:
		ended <- err
		return false, fmt.Errorf("the firmware's process ended: %w: %s", errors.Join(end(), errFeed), said)
	}
	kill()
	_ = end() // it was killed
	return true, nil
}

// startAndWait starts a process, hands its lines on, and waits for it. The thread that starts it must live as long as it does, or
// it would be taken for an orphan.
func startAndWait(cmd *exec.Cmd, started chan<- error, out io.Reader, lines chan<- string) error {
	defer close(lines)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return err
	}
	scan := bufio.NewScanner(out)
	scan.Buffer(make([]byte, 0, 8<<10), 64<<10)
	for scan.Scan() {
		lines <- scan.Text()
	}
	return errors.Join(scan.Err(), cmd.Wait())
}

// settings are the lines that an operator would type.
func (f *Firmware) settings() []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name %q\nidentity %q\nkey %x\nrate %d\ninterval %d\n", f.o.Name, f.o.Identity, f.o.Key(),
		time.Second/f.o.SweepPeriod, f.o.ReportInterval/time.Millisecond)
	for i := range f.loads {
		c := &f.loads[i]
		if c.Name != "" {
			fmt.Fprintf(&b, "channel %d name %q\n", c.Number, c.Name)
		}
		fmt.Fprintf(&b, "channel %d shunt %d\nchannel %[1]d gain %[3]d\nchannel %[1]d offset %[4]d\n", c.Number, c.ShuntUohm, c.GainPPM, c.OffsetNV)
	}
	return []byte(b.String())
}

// ready reads a line `ready port=NNNNN boot=XXXXXXXX start=NS` and notes the boot. It returns when the meter's clock was zero, below
// zero for another line.
func (f *Firmware) ready(line string) (start time.Duration, err error) {
	fields := strings.Fields(line)
	if len(fields) == 0 || fields[0] != "ready" {
		return -1, nil
	}
	var boot, at uint64
	for _, field := range fields[1:] {
		name, value, _ := strings.Cut(field, "=")
		switch name {
		case "boot":
			boot, err = strconv.ParseUint(value, 16, 32)
		case "start":
			at, err = strconv.ParseUint(value, 10, 63)
		}
		if err != nil {
			return -1, fmt.Errorf("the firmware's process says %q: %w", line, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.powerOn = cmp.Or(f.powerOn, time.Duration(at))
	since := time.Duration(at) - f.powerOn
	f.boots = append(f.boots, Boot{ID: uint32(boot), Start: since, End: since, LastAt: since})
	f.lives = true
	return time.Duration(at), nil
}

// down notes the end of a boot.
func (f *Firmware) down() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.boots); n > 0 && f.lives {
		f.boots[n-1].End = f.now()
	}
	f.lives = false
}

// take reads a line `report seq=S t=US sweeps=N CHANNEL:UJ,UC,… …` and notes the totals in it.
func (f *Firmware) take(line string) {
	fields := strings.Fields(line)
	if len(fields) < 4 || fields[0] != "report" {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := &f.boots[len(f.boots)-1]
	t := total{boot: b.ID}
	for _, field := range fields[1:] {
		if us, ok := strings.CutPrefix(field, "t="); ok {
			t.us, _ = strconv.ParseUint(us, 10, 64) // of our own program
		}
		channel, rest, ok := strings.Cut(field, ":")
		if n, err := strconv.Atoi(channel); ok && err == nil && n >= 1 && n <= firmwareChannels {
			uj, _, _ := strings.Cut(rest, ",")
			e, _ := strconv.ParseInt(uj, 10, 64)
			t.energy[n-1] = energy.Energy(e)
		}
	}
	b.LastAt = b.Start + f.trueTime(t.us)
	b.Measured, b.Truth = nil, nil
	for _, c := range f.o.Channels {
		b.Measured = append(b.Measured, t.energy[c.Number-1])
		b.Truth = append(b.Truth, f.truth(c.Number, b.Start, b.LastAt))
	}
	f.totals = append(f.totals, t)
	if n := len(f.totals) - totalsKept; n > totalsKept/10 {
		f.totals = slices.Delete(f.totals, 0, n)
	}
}

// feed writes what the loads draw, from the meter's zero at start on, until stop is closed or nobody reads.
func (f *Firmware) feed(w io.Writer, start time.Duration, stop <-chan struct{}) error {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	const size = 8 + 8*firmwareChannels
	record := func(b []byte, until time.Duration, inputs [firmwareChannels][2]int32) []byte {
		b = binary.LittleEndian.AppendUint32(b, 1)
		b = binary.LittleEndian.AppendUint32(b, size)
		b = binary.LittleEndian.AppendUint64(b, uint64(until))
		for _, in := range inputs {
			b = binary.LittleEndian.AppendUint32(b, uint32(in[0]))
			b = binary.LittleEndian.AppendUint32(b, uint32(in[1]))
		}
		return b
	}
	f.mu.Lock()
	zero := start - f.powerOn // of the meter's clock, in the loads' time
	f.mu.Unlock()
	var buffer []byte
	for done := time.Duration(0); ; {
		to := min(bootTime()-start, done+time.Second).Truncate(slot) // in steps, so that it ends soon also when it is late
		var held [firmwareChannels][2]int32
		buffer = buffer[:0]
		for at := done; at < to; at += slot {
			now := f.inputs(zero+at, zero+at+slot)
			if now != held && at > done {
				buffer = record(buffer, at, held)
			}
			held = now
		}
		if to > done {
			buffer = record(buffer, to, held)
			done = to
		}
		if _, err := w.Write(buffer); err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-tick.C:
		}
	}
}

// inputs are the mean voltages at the sensors between two instants: over the shunt in nanovolts, and at the board in microvolts.
func (f *Firmware) inputs(from, to time.Duration) (in [firmwareChannels][2]int32) {
	for i := range f.loads {
		s := &f.loads[i]
		volts, amperes := s.circuit(s.Load.Energy(from, to) / (to - from).Seconds())
		nv := amperes * float64(s.ShuntUohm) * 1000
		nv = nv*(1+s.GainErrorPPM/1e6) + s.OffsetUV*1000
		in[i] = [2]int32{int32(math.Round(max(-2e9, min(2e9, nv)))), int32(math.Round(volts * 1e6))}
	}
	return in
}

// Reboot cuts the meter's power for Options.RebootTakes while Run runs. It returns at once; the power is back when BootID has changed.
func (f *Firmware) Reboot() {
	select {
	case f.reboots <- struct{}{}:
	default: // One is about to happen.
	}
}

// BootID returns the id of the present boot, or of the last one while there is no power; 0 before the first.
func (f *Firmware) BootID() uint32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.boots) == 0 {
		return 0
	}
	return f.boots[len(f.boots)-1].ID
}

// Boots returns all boots, the last or present one at the end; without their last reports.
func (f *Firmware) Boots() []Boot {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.boots)
	if n := len(out); n > 0 && f.lives {
		out[n-1].End = f.now()
	}
	return out
}

// trueTime is the true time in which a clock of the meter has come to us.
func (f *Firmware) trueTime(us uint64) time.Duration {
	return time.Duration(math.Round(float64(us) * 1000 / (1 + f.o.ClockDriftPPM/1e6)))
}

// truth is what a load drew between two instants.
func (f *Firmware) truth(channel uint32, from, to time.Duration) energy.Energy {
	return energy.Energy(math.Round(f.loads[channel-1].Load.Energy(from, to) * 1e6))
}

// Truth returns what the load of a channel drew from power-on to the last report.
func (f *Firmware) Truth(channel uint32) energy.Energy {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.boots) == 0 || channel < 1 || channel > firmwareChannels {
		return 0
	}
	return f.truth(channel, 0, f.boots[len(f.boots)-1].LastAt)
}

// TruthAt returns what the load of a channel drew from the start of a boot until that boot's clock read tUs. ok is false for a
// boot or channel there is not.
func (f *Firmware) TruthAt(channel, bootID uint32, tUs uint64) (e energy.Energy, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.boots, func(b Boot) bool { return b.ID == bootID })
	if i < 0 || channel < 1 || channel > firmwareChannels {
		return 0, false
	}
	from := f.boots[i].Start
	return f.truth(channel, from, from+f.trueTime(tUs)), true
}

// TotalAt returns what a boot itself had counted for a channel in its report of tUs. ok is false if there was none, or too long
// ago.
func (f *Firmware) TotalAt(channel, bootID uint32, tUs uint64) (e energy.Energy, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range slices.Backward(f.totals) {
		if t.boot == bootID && t.us == tUs && channel >= 1 && channel <= firmwareChannels {
			return t.energy[channel-1], true
		}
	}
	return 0, false
}

// lastBytes keeps the end of what is written to it.
type lastBytes struct {
	mu  sync.Mutex
	end []byte
}

func (l *lastBytes) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	const enough = 2000
	l.end = append(l.end, b...)
	if n := len(l.end) - enough; n > 0 {
		l.end = slices.Delete(l.end, 0, n)
	}
	return len(b), nil
}

func (l *lastBytes) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(strings.TrimSpace(string(l.end)), "it said nothing")
}
