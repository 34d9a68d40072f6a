package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/meter"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

type readCmd struct {
	URL     string        `arg:"" help:"The meter, as coaps://10.0.0.5."`
	Key     keyFlags      `embed:""`
	Channel uint32        `placeholder:"N" help:"Only this channel."`
	Count   uint          `placeholder:"N" help:"End after so many reports; default when interrupted."`
	Every   time.Duration `default:"1s" help:"At most one report in this time; 0 prints each."`
	Samples bool          `help:"Print the raw samples too, lost ones fetched again."`
	JSON    bool          `name:"json" help:"One JSON object a line."`
	Wait    time.Duration `default:"30s" help:"Fail if the meter is silent for so long."`
}

// Run prints reports until it has enough, is interrupted, or the meter stays silent.
func (c readCmd) Run(a *app) error {
	ep, err := c.Key.endpoint(c.URL)
	if err != nil {
		return err
	}
	if c.Every < 0 || c.Wait <= 0 {
		return usagef("--every=%v, --wait=%v: neither can be negative, nor --wait 0", c.Every, c.Wait)
	}
	ctx, stop := context.WithCancelCause(a.ctx)
	defer stop(nil)
	p := &reportPrinter{readCmd: c, out: a.stdout, stop: func() { stop(nil) }, heard: make(chan struct{}, 1)}
	cfg := meter.Config{
		Endpoint: ep, Logger: slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		OnReport: p.report, Handshake: min(c.Wait/2, 20*time.Second), // so that a failure comes early enough to be told
	}
	if c.Samples {
		cfg.OnBatch = p.batch
	}
	client, err := meter.New(cfg)
	if err != nil {
		return usageError{err}
	}
	go watchMeter(ctx, stop, client, c.Wait, p.heard, nil)
	if err := client.Run(ctx, func(int, energy.Reading) {}); err != nil {
		return err
	}
	if err := p.end(); err != nil {
		return err
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

// watchMeter stops what reads a meter that was not heard for a while, or of which done says that it is over.
func watchMeter(ctx context.Context, stop context.CancelCauseFunc, client *meter.Client, wait time.Duration, heard <-chan struct{}, done <-chan error) {
	silence := time.NewTimer(wait)
	defer silence.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-heard:
			silence.Reset(wait)
		case <-silence.C:
			stop(fmt.Errorf("no report for %v: %s", wait, cmp.Or(client.Status().Err, "the meter fell silent")))
			return
		case err := <-done:
			stop(err)
			return
		}
	}
}

// reportPrinter prints reports as they come. It is called by one session at a time, but recovered batches come beside it, and
// what was on its way may come when the session is over.
type reportPrinter struct {
	readCmd
	out   io.Writer
	stop  func()
	heard chan struct{}

	mu      sync.Mutex
	err     error
	ended   bool
	printed uint
	last    time.Duration // and seq are of the report printed last
	seq     uint32
	lines   int
}

// end makes p print nothing more and returns what kept it from printing.
func (p *reportPrinter) end() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	return p.err
}

func (p *reportPrinter) report(r *meterpb.Report) {
	select {
	case p.heard <- struct{}{}:
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Duration(r.TUs) * time.Microsecond
	switch {
	case p.ended || p.err != nil:
		return
	case p.enough(): // the last report had no samples that could be waited for
		p.stop()
		return
	case p.printed > 0 && at >= p.last && at < p.last+p.Every:
		return
	}
	p.last, p.seq = at, r.Seq
	if p.Channel != 0 {
		i := slices.IndexFunc(r.Channels, func(c *meterpb.ChannelReport) bool { return c.Channel == p.Channel })
		if i < 0 {
			p.fail(fmt.Errorf("the meter has no channel %d", p.Channel))
			return
		}
		r = &meterpb.Report{BootId: r.BootId, Seq: r.Seq, TUs: r.TUs, Sweeps: r.Sweeps, Channels: r.Channels[i : i+1]}
	}
	if p.JSON {
		b, err := wire.JSON(r)
		if err != nil {
			p.fail(err)
			return
		}
		p.write("%s\n", b)
	} else {
		p.table(r)
	}
	if p.printed++; p.enough() && !p.Samples {
		p.stop()
	}
}

func (p *reportPrinter) enough() bool { return p.Count > 0 && p.printed == p.Count }

// table prints one line a channel, under a heading now and then.
func (p *reportPrinter) table(r *meterpb.Report) {
	const headingEvery = 24
	for i, c := range r.Channels {
		if i == 0 && p.lines%headingEvery < len(r.Channels) {
			p.write("%12s %8s %3s %12s %10s %11s %14s %12s\n",
				"METER TIME", "REPORT", "CH", "POWER", "VOLTAGE", "CURRENT", "ENERGY", "CHARGE")
		}
		note := ""
		if c.Saturated > 0 {
			note += fmt.Sprintf(" saturated %d×", c.Saturated)
		}
		if c.SensorErrors > 0 {
			note += fmt.Sprintf(" sensor errors %d", c.SensorErrors)
		}
		if c.UnmeasuredUs > 0 {
			note += fmt.Sprintf(" unmeasured %v", time.Duration(c.UnmeasuredUs)*time.Microsecond)
		}
		p.write("%11.1fs %8d %3d %12v %10v %11v %14v %12v%s\n", float64(r.TUs)/1e6, r.Seq, c.Channel, energy.Power(c.PowerUw),
			energy.Voltage(c.VoltageUv), energy.Current(c.CurrentUa), energy.Energy(c.EnergyUj), energy.Charge(c.ChargeUc), note)
		p.lines++
	}
}

func (p *reportPrinter) batch(boot uint32, b *meterpb.PastBatch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || p.err != nil {
		return
	}
	if p.Channel != 0 {
		i := slices.IndexFunc(b.Batch.Channels, func(c *meterpb.ChannelSamples) bool { return c.Channel == p.Channel })
		if i < 0 {
			return // its report told
		}
		b = &meterpb.PastBatch{Seq: b.Seq, TUs: b.TUs, Sweeps: b.Sweeps, Batch: &meterpb.Batch{
			Sweeps: b.Batch.Sweeps, SamplePeriodUs: b.Batch.SamplePeriodUs, Channels: b.Batch.Channels[i : i+1],
		}}
	}
	if p.JSON {
		raw, err := wire.JSON(&meterpb.SampleList{BootId: boot, Batches: []*meterpb.PastBatch{b}, Next: b.Seq + 1})
		if err != nil {
			p.fail(err)
			return
		}
		p.write("%s\n", raw)
	} else {
		p.list(b)
	}
	if p.enough() && b.Seq == p.seq {
		p.ended = true
		p.stop()
	}
}

// list prints one line a sample.
func (p *reportPrinter) list(b *meterpb.PastBatch) {
	for _, c := range b.Batch.Channels {
		samples, err := wire.Samples(nil, b, c.Channel)
		if err != nil {
			p.fail(err)
			return
		}
		for _, s := range samples {
			p.write("sample channel %d number %d at %.6f s: %d counts\n", c.Channel, s.Number, float64(s.AtUs)/1e6, s.Count)
		}
	}
}

func (p *reportPrinter) fail(err error) { p.err = err; p.stop() }

func (p *reportPrinter) write(format string, args ...any) {
	if _, err := fmt.Fprintf(p.out, format, args...); err != nil {
		p.fail(fmt.Errorf("write: %w", err))
	}
}
