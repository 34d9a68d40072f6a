package legacymeter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// DefaultResponderAddress is where the earlier client was asked, restricted to this host.
const DefaultResponderAddress = "127.0.0.1:5000"

// ResponderConfig is what a Responder is made of.
type ResponderConfig struct {
	// Address is the UDP address to answer at; DefaultResponderAddress if empty.
	Address string
	// Last returns the message to answer with, or false if there is none yet; Source.Last, for example. Called for each request.
	Last func() (Message, bool)
	// Logger hears of changes of state; nil for none.
	Logger *slog.Logger
}

// Responder answers as the earlier client did: any datagram, even an empty one, with the last message; before the first
// message with an empty datagram. The protocol has no age: whoever must know whether the source lives asks elsewhere.
//
// Requests from beyond loopback may have a forged source. They are answered only if they are at least as long as the answer,
// so that nobody's flood is amplified, and if they are not themselves answers, so that no two responders can be set to
// answer each other for ever.
type Responder struct {
	cfg     ResponderConfig
	conn    net.PacketConn
	refused atomic.Uint64
}

// NewResponder binds the socket, so that a bad or taken address fails here. Nothing is answered before Run.
func NewResponder(cfg ResponderConfig) (*Responder, error) {
	if cfg.Address == "" {
		cfg.Address = DefaultResponderAddress
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Last == nil {
		return nil, errors.New("legacy responder: no source of messages")
	}
	conn, err := net.ListenPacket("udp", cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("answer the earlier exporter at UDP %s: %w; stop the earlier client there or choose another address",
			cfg.Address, err)
	}
	return &Responder{cfg: cfg, conn: conn}, nil
}

// Addr returns the address bound.
func (r *Responder) Addr() net.Addr { return r.conn.LocalAddr() }

// Refused returns the number of requests not answered.
func (r *Responder) Refused() uint64 { return r.refused.Load() }

// Close releases the socket; Run does so at its end.
func (r *Responder) Close() error { return r.conn.Close() }

// Run answers until ctx ends, and returns nil then. It can run once.
func (r *Responder) Run(ctx context.Context) error {
	defer r.conn.Close()
	defer context.AfterFunc(ctx, func() { r.conn.Close() })() // ends a read
	request := make([]byte, 64<<10)
	var answer []byte
	for {
		n, from, err := r.conn.ReadFrom(request)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("answer the earlier exporter at UDP %s: %w", r.cfg.Address, err)
		case err != nil: // of an earlier answer, at most
			sleep(ctx, time.Second)
			continue
		}
		answer = answer[:0]
		if m, ok := r.cfg.Last(); ok {
			answer = m.Append(answer)
		}
		if !answerable(from, request[:n], len(answer)) {
			if r.refused.Add(1) == 1 {
				r.cfg.Logger.Warn("a request of the earlier protocol from beyond this host is not answered: "+
					"it is shorter than the answer, or an answer itself", "from", from.String(), "bytes", n)
			}
			continue
		}
		_, _ = r.conn.WriteTo(answer, from) // whoever is gone does not miss it
	}
}

// answerable says whether an answer of n bytes may be sent to where a request seems to come from.
func answerable(from net.Addr, request []byte, n int) bool {
	if a, ok := from.(interface{ AddrPort() netip.AddrPort }); ok && a.AddrPort().Addr().Unmap().IsLoopback() {
		return true
	}
	m, err := Parse(request)
	isAnswer := err == nil && bytes.Equal(m.Append(nil), request)
	return len(request) >= n && !isAnswer
}
