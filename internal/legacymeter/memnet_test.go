package legacymeter

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

// memNet is a datagram network in memory, for tests whose time is that of a synctest bubble.
type memNet struct {
	mu    sync.Mutex
	conns map[netip.AddrPort]*memConn
	sent  []packet
	// copies says how often a datagram arrives; nil for once.
	copies func(p packet) int
}

type packet struct {
	from, to netip.AddrPort
	data     string
	at       time.Time
}

// memConn is a socket on a memNet.
type memConn struct {
	net    *memNet
	addr   netip.AddrPort
	in     chan packet
	errs   chan error // returned by reads
	closed chan struct{}
	once   sync.Once

	mu       sync.Mutex
	deadline time.Time
}

// listen returns a socket; it panics if the address is taken.
func (n *memNet) listen(addr string) *memConn {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &memConn{
		net: n, addr: netip.MustParseAddrPort(addr),
		in: make(chan packet, 1024), errs: make(chan error, 8), closed: make(chan struct{}),
	}
	if n.conns == nil {
		n.conns = map[netip.AddrPort]*memConn{}
	}
	if n.conns[c.addr] != nil {
		panic("address taken: " + addr)
	}
	n.conns[c.addr] = c
	return c
}

// requests returns what was sent to an address.
func (n *memNet) requests(to string) []packet {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []packet
	for _, p := range n.sent {
		if p.to == netip.MustParseAddrPort(to) {
			out = append(out, p)
		}
	}
	return out
}

// send puts a datagram on the way, as if from anywhere.
func (n *memNet) send(from, to netip.AddrPort, data string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := packet{from, to, data, time.Now()}
	n.sent = append(n.sent, p)
	copies := 1
	if n.copies != nil {
		copies = n.copies(p)
	}
	c := n.conns[to]
	for range copies {
		if c == nil {
			return
		}
		select {
		case c.in <- p:
		default: // a full socket drops
		}
	}
}

func (c *memConn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	c.net.send(c.addr, to.(*net.UDPAddr).AddrPort(), string(b))
	return len(b), nil
}

// ReadFrom returns at a deadline in the past even if there is something to read, as sockets of package net do.
func (c *memConn) ReadFrom(b []byte) (int, net.Addr, error) {
	c.mu.Lock()
	deadline := c.deadline
	c.mu.Unlock()
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		if !time.Now().Before(deadline) {
			return 0, nil, os.ErrDeadlineExceeded
		}
		timeout = time.After(time.Until(deadline))
	}
	select {
	case p := <-c.in:
		return copy(b, p.data), net.UDPAddrFromAddrPort(p.from), nil
	case err := <-c.errs:
		return 0, nil, err
	case <-timeout:
		return 0, nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return 0, nil, net.ErrClosed
	}
}

func (c *memConn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.net.mu.Lock()
		delete(c.net.conns, c.addr)
		c.net.mu.Unlock()
	})
	return nil
}

func (c *memConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return nil
}

func (c *memConn) SetDeadline(t time.Time) error    { return c.SetReadDeadline(t) }
func (c *memConn) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
func (c *memConn) LocalAddr() net.Addr              { return net.UDPAddrFromAddrPort(c.addr) }

// pass lets time pass in a bubble.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	<-time.After(d)
}
