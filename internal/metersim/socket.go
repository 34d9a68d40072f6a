package metersim

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/transport/v5/deadline"
	coapnet "github.com/plgd-dev/go-coap/v3/net"
)

// maxDatagram is the largest UDP payload over IPv4.
const maxDatagram = 65507

// socket is the meter's UDP port. It stays bound while the power is off: what arrives then is read and lost, as at a host that
// is not there, and nobody gets an ICMP refusal.
type socket struct {
	conn *net.UDPConn
	up   atomic.Pointer[listener]
}

// run hands datagrams over until the socket is closed.
func (s *socket) run() error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if l := s.up.Load(); l != nil {
			l.deliver(from, buf[:n])
		}
	}
}

// listen starts what goes with one boot. hello says of a datagram from an unknown address whether it may begin a session.
func (s *socket) listen(hello func([]byte) bool, maxPeers int) *listener {
	l := &listener{
		socket: s, hello: hello, max: maxPeers,
		peers:    map[netip.AddrPort]*peer{},
		incoming: make(chan *peer, maxPeers),
		closed:   make(chan struct{}),
	}
	s.up.Store(l)
	return l
}

// listener is the peers of one boot, a net.PacketConn for each address. It is a dtlsnet.PacketListener.
type listener struct {
	socket *socket
	hello  func([]byte) bool
	max    int
	// mute loses all that is sent: the power is cut.
	mute atomic.Bool

	mu       sync.Mutex
	peers    map[netip.AddrPort]*peer
	incoming chan *peer
	closed   chan struct{}
	once     sync.Once
}

func (l *listener) deliver(from netip.AddrPort, datagram []byte) {
	l.mu.Lock()
	p := l.peers[from]
	if p == nil && len(l.peers) < l.max && l.hello(datagram) {
		p = &peer{
			listener: l, addr: from, queue: make(chan []byte, 64), closed: make(chan struct{}), deadline: deadline.New(),
		}
		l.peers[from] = p
		l.incoming <- p // Never blocks: there are no more peers than places.
	}
	l.mu.Unlock()
	if p == nil {
		return
	}
	select {
	case p.queue <- append([]byte(nil), datagram...):
	default: // A peer that sends faster than it is served loses datagrams, as with a full socket buffer.
	}
}

// Accept waits for the next new peer.
func (l *listener) Accept() (net.PacketConn, net.Addr, error) {
	p, err := l.accept()
	if err != nil {
		return nil, nil, err
	}
	return p, p.RemoteAddr(), nil
}

func (l *listener) accept() (*peer, error) {
	select {
	case p := <-l.incoming:
		return p, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close takes no more peers; those there are go on until they are closed.
func (l *listener) Close() error {
	l.once.Do(func() {
		l.socket.up.CompareAndSwap(l, nil)
		close(l.closed)
	})
	return nil
}

// Addr returns the address it listens on.
func (l *listener) Addr() net.Addr { return l.socket.conn.LocalAddr() }

// AcceptWithContext makes a listener one of CoAP without DTLS.
func (l *listener) AcceptWithContext(ctx context.Context) (net.Conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	p, err := l.accept()
	if err != nil {
		return nil, coapnet.ErrListenerIsClosed
	}
	return p, nil
}

// peer is the datagrams from and to one address, as a net.Conn and a net.PacketConn.
type peer struct {
	listener *listener
	addr     netip.AddrPort
	queue    chan []byte
	closed   chan struct{}
	once     sync.Once
	deadline *deadline.Deadline
}

func (p *peer) Read(b []byte) (int, error) {
	select {
	case <-p.deadline.Done():
		return 0, os.ErrDeadlineExceeded
	default:
	}
	select {
	case datagram := <-p.queue:
		return copy(b, datagram), nil
	case <-p.deadline.Done():
		return 0, os.ErrDeadlineExceeded
	case <-p.closed:
		return 0, net.ErrClosed
	}
}

func (p *peer) Write(b []byte) (int, error) {
	select {
	case <-p.closed:
		return 0, net.ErrClosed
	default:
	}
	if p.listener.mute.Load() {
		return len(b), nil
	}
	return p.listener.socket.conn.WriteToUDPAddrPort(b, p.addr)
}

// ReadFrom is Read with the peer's address.
func (p *peer) ReadFrom(b []byte) (int, net.Addr, error) {
	n, err := p.Read(b)
	return n, p.RemoteAddr(), err
}

// WriteTo is Write; there is only one address to write to.
func (p *peer) WriteTo(b []byte, _ net.Addr) (int, error) { return p.Write(b) }

// Close forgets the peer.
func (p *peer) Close() error {
	p.once.Do(func() {
		close(p.closed)
		p.listener.mu.Lock()
		delete(p.listener.peers, p.addr)
		p.listener.mu.Unlock()
	})
	return nil
}

// LocalAddr returns the meter's address.
func (p *peer) LocalAddr() net.Addr { return p.listener.Addr() }

// RemoteAddr returns the peer's address.
func (p *peer) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }

// SetDeadline sets the read deadline; writes do not block.
func (p *peer) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline sets the read deadline.
func (p *peer) SetReadDeadline(t time.Time) error {
	p.deadline.Set(t)
	return nil
}

// SetWriteDeadline does nothing: writes do not block.
func (p *peer) SetWriteDeadline(time.Time) error { return nil }
