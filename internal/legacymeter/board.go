package legacymeter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// BoardOptions are the settings of a simulated board. Its zero value is a board as the earlier firmware makes it.
type BoardOptions struct {
	// Measure returns what the board says of a channel at a time since its boot; nil for a steady 100 mA times the channel.
	// It is called from several goroutines.
	Measure func(channel int, uptime time.Duration) Message
	// Interval is the time between two messages of a stream; 0 for 1 s.
	Interval time.Duration
	// MaxStreams bounds the streams, which never end; 0 for 64. A real board's memory ends earlier.
	MaxStreams int
	// Reboot restarts the board at each value: its streams end, its clock and totals begin at zero. May be nil.
	Reboot <-chan struct{}
	// Streams, if not nil, holds the number of streams.
	Streams *atomic.Int64
	// Now is the clock; nil for time.Now.
	Now func() time.Time
	// Logger hears of streams and restarts; nil for none.
	Logger *slog.Logger
}

// ServeBoard is a board with the earlier firmware on conn: a datagram with a channel's number starts a stream of messages to
// its sender, the first at once, for ever; a second request starts a second stream; anything else is not answered. There is
// no authentication and no limit of rate, so bind it to loopback or a lab's network. It returns nil when ctx ends and closes
// conn.
func ServeBoard(ctx context.Context, conn net.PacketConn, opts BoardOptions) error {
	if opts.Measure == nil {
		opts.Measure = steady
	}
	if opts.Interval <= 0 {
		opts.Interval = time.Second
	}
	if opts.MaxStreams <= 0 {
		opts.MaxStreams = 64
	}
	if opts.Streams == nil {
		opts.Streams = new(atomic.Int64)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	b := &board{BoardOptions: opts, conn: conn}
	ctx, cancel := context.WithCancel(ctx)
	defer b.streams.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // ends a read
	b.boot(ctx)
	b.streams.Go(func() { b.reboots(ctx) })

	request := make([]byte, 15) // the firmware's buffer; what is longer is cut
	for {
		n, from, err := conn.ReadFrom(request)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("simulated board: %w", err)
		case err != nil:
			sleep(ctx, b.Interval)
			continue
		}
		if channel, ok := parseRequest(request[:n]); ok {
			b.start(channel, from)
		}
	}
}

// board is a simulated board at work.
type board struct {
	BoardOptions
	conn    net.PacketConn
	streams sync.WaitGroup

	mu     sync.Mutex
	run    context.Context // ends at a restart
	halt   context.CancelFunc
	booted time.Time
}

// boot starts the board's clock.
func (b *board) boot(ctx context.Context) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.run, b.halt = context.WithCancel(ctx)
	b.booted = b.Now()
}

// reboots restarts the board when told to.
func (b *board) reboots(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			b.halt()
			return
		case _, ok := <-b.Reboot:
			if !ok {
				b.Reboot = nil
				continue
			}
			b.halt()
			b.boot(ctx)
			b.Logger.Info("simulated board restarted")
		}
	}
}

// start begins a stream, unless there are too many.
func (b *board) start(channel int, to net.Addr) {
	b.mu.Lock()
	run, booted := b.run, b.booted
	b.mu.Unlock()
	if b.Streams.Add(1) > int64(b.MaxStreams) {
		b.Streams.Add(-1)
		b.Logger.Warn("simulated board has no room for another stream", "to", to.String())
		return
	}
	b.Logger.Info("simulated board starts a stream", "channel", channel, "to", to.String())
	b.streams.Go(func() {
		defer b.Streams.Add(-1)
		tick := time.NewTicker(b.Interval)
		defer tick.Stop()
		var buf []byte
		for run.Err() == nil {
			buf = b.Measure(channel, b.Now().Sub(booted)).Append(buf[:0])
			if _, err := b.conn.WriteTo(buf, to); err != nil && !errors.Is(err, syscall.EHOSTUNREACH) {
				return // as the firmware does; it goes on only while its network is gone
			}
			select {
			case <-run.Done():
			case <-tick.C:
			}
		}
	})
}

// steady is the load of a board that nobody gave one.
func steady(channel int, uptime time.Duration) Message {
	if uptime < time.Millisecond {
		return Message{} // not measured yet
	}
	mA := 100 * float64(channel)
	return Message{TimestampUS: uint64(uptime.Microseconds()), ChargeMAS: mA * uptime.Seconds(), CurrentMA: float32(mA)}
}

// parseRequest reads a request as the firmware does, with C's strtol: up to the first NUL; leading white space, a sign and
// leading zeros pass, anything after the digits, as a newline, does not.
func parseRequest(b []byte) (channel int, ok bool) {
	b, _, _ = bytes.Cut(b, []byte{0})
	b = bytes.TrimLeft(b, " \t\n\v\f\r")
	negative := false
	if len(b) > 0 && (b[0] == '+' || b[0] == '-') {
		negative, b = b[0] == '-', b[1:]
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		channel = min(10*channel+int(c-'0'), Channels+1) // beyond is beyond, and cannot overflow
	}
	return channel, !negative && channel >= 1 && channel <= Channels
}
