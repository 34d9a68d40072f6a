package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/wattlet/wattlet/internal/accounting"
	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/exporter"
	"github.com/wattlet/wattlet/internal/trace"
	"github.com/wattlet/wattlet/internal/workload"
)

type recordCmd struct {
	Agent        string        `arg:"" help:"The agent, as 10.0.0.7:9780 or https://pi.example:9780."`
	Dir          string        `arg:"" type:"path" help:"Directory for the trace, new or empty."`
	For          time.Duration `help:"End after so long; default when interrupted."`
	Wait         time.Duration `default:"15s" help:"Fail if the agent is silent for so long beyond its tick."`
	Compression  string        `placeholder:"gz|zst" help:"Compress the trace's files."`
	User         string        `placeholder:"NAME" help:"Name for basic auth."`
	PasswordFile string        `type:"path" placeholder:"FILE" help:"File with the password for basic auth."`
	CA           string        `name:"ca" type:"path" placeholder:"FILE" help:"Certificates to trust for https, PEM; default the system's."`
}

// maxRecord bounds a line of what an agent sends: a sample of its 2,000 workloads on four core classes has less.
const maxRecord = 8 << 20

// Run records what an agent sees until --for is over, it is interrupted, or the agent ends.
func (c recordCmd) Run(a *app) error {
	if c.For < 0 || c.Wait <= 0 {
		return usagef("--for=%v, --wait=%v: neither can be negative, nor --wait 0", c.For, c.Wait)
	}
	if c.Compression != "" && c.Compression != "gz" && c.Compression != "zst" {
		return usagef("--compression=%s: it must be gz or zst", c.Compression)
	}
	req, client, err := c.request()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(a.ctx)
	defer cancel(nil)
	quiet := time.AfterFunc(c.Wait, func() { cancel(fmt.Errorf("the agent was silent for more than %v", c.Wait)) })
	defer quiet.Stop()
	why := func(err error) error { // of a failure to read
		if cause := context.Cause(ctx); cause != nil && a.ctx.Err() == nil {
			return cause
		}
		return err
	}
	resp, err := client.Do(req.WithContext(ctx))
	if err != nil {
		if a.ctx.Err() != nil {
			return errors.New("interrupted before anything was recorded")
		}
		return fmt.Errorf("record %s: %w", c.Agent, why(err))
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("record %s: %w", c.Agent, refusal(resp))
	}
	rec := &recording{cmd: c, show: func(string) {}}
	if isTerminal(a.stderr) {
		rec.show = func(s string) { fmt.Fprintf(a.stderr, "\r\x1b[K%s", s) }
	}
	err = rec.take(resp.Body, func(tick time.Duration) { quiet.Reset(tick + c.Wait) })
	rec.show("")
	switch {
	case rec.w == nil && a.ctx.Err() != nil:
		return errors.New("interrupted before anything was recorded")
	case rec.w == nil:
		return fmt.Errorf("record %s: %w", c.Agent, why(err))
	case a.ctx.Err() != nil && rec.broken:
		err = nil // that was us
	case rec.broken:
		err = why(err)
	}
	if closed := rec.w.Close(); err == nil {
		err = closed
	}
	if err != nil {
		err = fmt.Errorf("record %s: %w; %s has what came before", c.Agent, err, c.Dir)
	}
	if told := rec.summary(a.stdout); err == nil {
		return told
	}
	return err
}

// request makes the request and who sends it, from flags and the files they name.
func (c recordCmd) request() (*http.Request, *http.Client, error) {
	return agentFlags{c.User, c.PasswordFile, c.CA}.request(c.Agent, "api/v1/records")
}

// recording is a stream of records on its way into a trace.
type recording struct {
	cmd  recordCmd
	show func(string) // progress

	w      *trace.Writer // nil before the header
	header *exporter.RecordsHeader
	now    time.Duration // since the trace's start, of the last tick
	broken bool          // the stream ended otherwise than by its own last line, or ours

	boot              uint64
	last, measured    energy.Energy
	readings, samples int

	activity            []workload.Activity // and events of this tick, which may come in any order
	events              []workload.Event
	activityAt, eventAt time.Duration // of the last rows

	left    int // rows left out
	leftWhy error
}

// take writes a stream until its end, or for as long as is asked. heard is called for each line, with the tick's length. The
// error is nil where the stream ended by its own last line, for the agent ended, or by --for.
func (r *recording) take(stream io.Reader, heard func(tick time.Duration)) error {
	lines := bufio.NewScanner(stream)
	lines.Buffer(make([]byte, 64<<10), maxRecord)
	lines.Split(wholeLines)
	for lines.Scan() {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		rec, err := exporter.ParseRecord(lines.Bytes())
		if err != nil {
			r.broken = true
			return err
		}
		end, err := r.put(rec)
		if end || err != nil {
			return err
		}
		heard(time.Duration(r.header.TickUs) * time.Microsecond)
	}
	r.broken = true
	if err := lines.Err(); err != nil {
		return fmt.Errorf("the stream broke: %w", err)
	}
	return fmt.Errorf("the stream broke: %w", io.ErrUnexpectedEOF)
}

// wholeLines is bufio.ScanLines without a line that was cut off.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if atEOF && bytes.IndexByte(data, '\n') < 0 {
		return len(data), nil, nil
	}
	return bufio.ScanLines(data, atEOF)
}

// put writes a record and says whether it was the last.
func (r *recording) put(rec any) (end bool, err error) {
	if h, ok := rec.(*exporter.RecordsHeader); ok != (r.header == nil) {
		return false, errors.New("not a stream of records: its first line, and only that, is a header")
	} else if ok {
		return false, r.begin(h)
	}
	switch v := rec.(type) {
	case *exporter.RecordsEnd:
		if err := r.endTick(); err != nil {
			return true, err
		}
		if v.Reason == accounting.ErrEnded.Error() {
			return true, nil
		}
		return true, fmt.Errorf("the agent ended the stream: %s", v.Reason)
	case workload.Workload:
		return false, r.note(r.w.Workload(v))
	case *exporter.RecordsReading:
		return false, r.reading(v)
	case *workload.Sample:
		r.samples++
		r.rebase(v)
		return false, r.note(r.w.Usage(v))
	case workload.Activity:
		v.At -= r.start()
		r.activity = append(r.activity, v)
	case workload.Event:
		v.At -= r.start()
		r.events = append(r.events, v)
	case accounting.Tick:
		if err := r.endTick(); err != nil {
			return true, err
		}
		r.now = v.At - r.start()
		r.show(fmt.Sprintf("%v recorded: %d readings, %v; %d samples", r.now.Round(time.Second), r.readings, r.measured, r.samples))
		return r.cmd.For > 0 && r.now >= r.cmd.For, nil
	}
	return false, nil // of a type that came later than this program
}

func (r *recording) start() time.Duration { return time.Duration(r.header.StartUs) * time.Microsecond }

// begin makes the trace.
func (r *recording) begin(h *exporter.RecordsHeader) error {
	m := trace.Meta{Node: h.Node, Start: h.Start, Cores: h.Cores, Recorder: "wattctl " + version}
	for class, points := range h.OperatingPoints {
		if m.OperatingPoints == nil {
			m.OperatingPoints = map[string][]trace.OperatingPoint{}
		}
		for _, p := range points {
			step := trace.OperatingPoint{KHz: p.KHz, Microvolt: energy.Voltage(p.Microvolt)}
			m.OperatingPoints[class] = append(m.OperatingPoints[class], step)
		}
	}
	if h.Meter.GainStdDev != 0 || h.Meter.NoiseUW != 0 {
		m.Meter = &trace.Meter{GainStdDev: h.Meter.GainStdDev, Noise: energy.Power(h.Meter.NoiseUW)}
	}
	w, err := trace.Create(r.cmd.Dir, m, trace.Options{Compression: r.cmd.Compression})
	if err != nil {
		return err
	}
	r.w, r.header = w, h
	return nil
}

func (r *recording) reading(v *exporter.RecordsReading) error {
	p := trace.Power{
		Received: time.Duration(v.ReceivedUs)*time.Microsecond - r.start(), Meter: time.Duration(v.MeterUs) * time.Microsecond,
		Boot: v.BootID, Energy: energy.Energy(v.EnergyUJ),
	}
	if v.ChargeUC != nil {
		p.Charge, p.HasCharge = energy.Charge(*v.ChargeUC), true
	}
	if v.VoltageUV != nil {
		p.Voltage, p.HasVoltage = energy.Voltage(*v.VoltageUV), true
	}
	if v.CurrentUA != nil {
		p.Current, p.HasCurrent = energy.Current(*v.CurrentUA), true
	}
	r.readings++
	if r.readings == 1 || v.BootID != r.boot {
		r.boot, r.last = v.BootID, p.Energy
	}
	r.measured += p.Energy - r.last
	r.last = p.Energy
	return r.note(r.w.PowerFull(p))
}

// rebase moves a sample's times to the trace's, and leaves out what was last seen before that began, for it used nothing since.
func (r *recording) rebase(s *workload.Sample) {
	start := r.start()
	s.At -= start
	s.Usage = slices.DeleteFunc(s.Usage, func(u workload.Usage) bool { return u.At < start })
	for i := range s.Usage {
		s.Usage[i].At -= start
	}
	for i := range s.Frequency {
		s.Frequency[i].At -= start
	}
}

// endTick writes what functions were asked to do in the order of time. Whoever answered so late that it belongs into an
// earlier tick is dated to that one's end.
func (r *recording) endTick() error {
	slices.SortStableFunc(r.activity, func(x, y workload.Activity) int { return cmp.Compare(x.At, y.At) })
	slices.SortStableFunc(r.events, func(x, y workload.Event) int { return cmp.Compare(x.At, y.At) })
	for _, v := range r.activity {
		v.At = max(v.At, r.activityAt)
		r.activityAt = v.At
		if err := r.note(r.w.Activity(v)); err != nil {
			return err
		}
	}
	for _, v := range r.events {
		v.At = max(v.At, r.eventAt)
		r.eventAt = v.At
		if err := r.note(r.w.Event(v)); err != nil {
			return err
		}
	}
	r.activity, r.events = r.activity[:0], r.events[:0]
	return nil
}

// note counts a row that a trace cannot have, and was left out. It returns the error if it is the disk's, which stays.
func (r *recording) note(err error) error {
	if err == nil {
		return nil
	}
	if stays := r.w.Flush(); stays != nil {
		return stays
	}
	r.left++
	r.leftWhy = cmp.Or(r.leftWhy, err)
	return nil
}

// summary prints what the trace has, read back from the disk.
func (r *recording) summary(out io.Writer) error {
	s, err := trace.Check(r.cmd.Dir)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: node %s, %v, %v measured\n", r.cmd.Dir, s.Meta.Node, s.Duration.Round(100*time.Millisecond), s.Measured)
	fmt.Fprintf(out, "  readings %d, boots of the meter %d, samples %d, workloads %d, rows of activity %d, events %d\n",
		s.Power, s.Boots, r.samples, s.Workloads, s.Activity, s.Events)
	if r.left > 0 {
		fmt.Fprintf(out, "  %d left out, the first because of: %v\n", r.left, r.leftWhy)
	}
	return nil
}
