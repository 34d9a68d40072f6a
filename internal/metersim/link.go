package metersim

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// LinkOptions are the faults of a network. Probabilities are per datagram and direction, 0 to 1.
type LinkOptions struct {
	// Addr is the UDP address to listen on; empty means 127.0.0.1:0. Target is the meter's.
	Addr, Target string
	// Loss drops, Duplicate sends twice, Reorder holds back until the next datagram has passed or 200 ms are over.
	Loss, Duplicate, Reorder float64
	// Delay is added to each datagram, and a random part of Jitter, which alone reorders nothing.
	Delay, Jitter time.Duration
	// Idle closes a client's upstream socket after that much silence; 0 means 5 min.
	Idle time.Duration
	// Seed makes the faults of each direction repeatable; 0 means others each time.
	Seed uint64
}

// Validate says what is wrong with o.
func (o LinkOptions) Validate() error {
	var errs []error
	for _, p := range []struct {
		what  string
		value float64
	}{{"loss", o.Loss}, {"duplicate", o.Duplicate}, {"reorder", o.Reorder}} {
		if !(p.value >= 0 && p.value <= 1) {
			errs = append(errs, fmt.Errorf("%w: %s %g is not a probability; give 0 to 1", ErrOptions, p.what, p.value))
		}
	}
	if o.Delay < 0 || o.Jitter < 0 || o.Idle < 0 || max(o.Delay, o.Jitter) > time.Minute {
		errs = append(errs, fmt.Errorf("%w: delay %s, jitter %s, idle %s: none can be negative, delays up to 1m",
			ErrOptions, o.Delay, o.Jitter, o.Idle))
	}
	if o.Target == "" {
		errs = append(errs, fmt.Errorf("%w: no target; give the meter's address", ErrOptions))
	}
	return errors.Join(errs...)
}

// LinkStats counts datagrams of both directions: each that arrives is forwarded or dropped in the end.
type LinkStats struct {
	Forwarded, Dropped, Duplicated, Reordered uint64
	// Clients is the number of client addresses with an upstream socket now.
	Clients int
}

// Link is a UDP relay in front of any meter that treats datagrams as a bad network does. Its methods may be called by several
// goroutines.
type Link struct {
	o      LinkOptions
	conn   *net.UDPConn
	target *net.UDPAddr
	loss   atomic.Uint64 // a float64's bits
	paused atomic.Bool
	// stats, each counted on its own
	forwarded, dropped, duplicated, reordered atomic.Uint64

	mu      sync.Mutex
	rng     [2]*rand.Rand
	clients map[netip.AddrPort]*linkClient
	flight  flight
	order   uint64
	// wake tells the sender that something is due earlier than before.
	wake chan struct{}
}

// linkClient is one client address with its socket towards the meter.
type linkClient struct {
	addr     netip.AddrPort
	upstream *net.UDPConn
	active   atomic.Int64 // UnixNano of the last datagram
	pipes    [2]pipe
}

// pipe is one direction of a client's traffic.
type pipe struct {
	send func([]byte) error
	// last is when the newest datagram is due: none after it overtakes it.
	last time.Time
	held *parcel
}

// Directions, as indices.
const (
	towardsMeter = iota
	towardsClient
)

// maxHold is how long a datagram is held back for another to overtake it.
const maxHold = 200 * time.Millisecond

// ListenLink binds the address; nothing is forwarded before Run.
func ListenLink(o LinkOptions) (*Link, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	def(&o.Addr, "127.0.0.1:0")
	def(&o.Idle, DefaultIdle)
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	target, err := net.ResolveUDPAddr("udp", o.Target)
	if err != nil {
		return nil, fmt.Errorf("relay to %q: %w", o.Target, err)
	}
	addr, err := net.ResolveUDPAddr("udp", o.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: %w", o.Addr, err)
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; take another address or end what uses it", o.Addr, err)
	}
	l := &Link{
		o: o, conn: conn, target: target, clients: map[netip.AddrPort]*linkClient{}, wake: make(chan struct{}, 1),
		rng: [2]*rand.Rand{rand.New(rand.NewPCG(o.Seed, towardsMeter)), rand.New(rand.NewPCG(o.Seed, towardsClient))},
	}
	l.SetLoss(o.Loss)
	return l, nil
}

// Close releases the address of a Link that is not run.
func (l *Link) Close() error { return l.conn.Close() }

// Addr returns the address it listens on.
func (l *Link) Addr() *net.UDPAddr {
	addr, _ := l.conn.LocalAddr().(*net.UDPAddr)
	return addr
}

// Pause cuts the network: every datagram is dropped until Resume, those on their way too.
func (l *Link) Pause() { l.paused.Store(true) }

// Resume mends what Pause cut.
func (l *Link) Resume() { l.paused.Store(false) }

// SetLoss changes the probability of loss.
func (l *Link) SetLoss(p float64) { l.loss.Store(math.Float64bits(p)) }

// Stats returns what was done so far.
func (l *Link) Stats() LinkStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return LinkStats{l.forwarded.Load(), l.dropped.Load(), l.duplicated.Load(), l.reordered.Load(), len(l.clients)}
}

// Run forwards until ctx ends, then closes all sockets and returns nil. Call it once.
func (l *Link) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { l.sender(ctx) })
	running.Go(func() {
		<-ctx.Done()
		_ = l.conn.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, c := range l.clients {
			_ = c.upstream.Close()
		}
	})
	err := l.receive(ctx, &running)
	cancel()
	running.Wait()
	return err
}

// receive takes what clients send.
func (l *Link) receive(ctx context.Context, running *sync.WaitGroup) error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := l.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("relay on %s: %w", l.Addr(), err)
		}
		c, err := l.client(ctx, from, running)
		if err != nil {
			return err
		}
		if c != nil {
			l.pass(c, towardsMeter, buf[:n])
		}
	}
}

// client returns the client with an address, with a new socket if it is new; nil when the relay ends.
func (l *Link) client(ctx context.Context, addr netip.AddrPort, running *sync.WaitGroup) (*linkClient, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.clients[addr]; c != nil {
		return c, nil
	}
	if ctx.Err() != nil {
		return nil, nil
	}
	up, err := net.DialUDP("udp", nil, l.target)
	if err != nil {
		return nil, fmt.Errorf("relay to %s: %w", l.target, err)
	}
	c := &linkClient{addr: addr, upstream: up}
	c.active.Store(time.Now().UnixNano())
	c.pipes[towardsMeter].send = func(b []byte) error { _, err := up.Write(b); return err }
	c.pipes[towardsClient].send = func(b []byte) error { _, err := l.conn.WriteToUDPAddrPort(b, addr); return err }
	l.clients[addr] = c
	running.Go(func() { l.answers(ctx, c) })
	return c, nil
}

// answers takes what the meter sends to a client, until the client has been silent for Idle.
func (l *Link) answers(ctx context.Context, c *linkClient) {
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.clients, c.addr)
		_ = c.upstream.Close()
	}()
	buf := make([]byte, maxDatagram)
	for {
		if err := c.upstream.SetReadDeadline(time.Unix(0, c.active.Load()).Add(l.o.Idle)); err != nil {
			return
		}
		n, err := c.upstream.Read(buf)
		switch {
		case err == nil:
			l.pass(c, towardsClient, buf[:n])
		case ctx.Err() != nil || time.Since(time.Unix(0, c.active.Load())) >= l.o.Idle:
			return
		}
		// Else the client has sent again, or the meter's port refused: a network may lose that, and this one does.
	}
}

// pass decides what happens to a datagram and puts it on its way.
func (l *Link) pass(c *linkClient, direction int, datagram []byte) {
	now := time.Now()
	c.active.Store(now.UnixNano())
	l.mu.Lock()
	defer l.mu.Unlock()
	rng := l.rng[direction]
	// Four numbers for each datagram, whatever happens to it, so that one fault's rate does not move the others'.
	lost, twice, back, part := rng.Float64(), rng.Float64(), rng.Float64(), rng.Float64()
	if l.paused.Load() || lost < math.Float64frombits(l.loss.Load()) {
		l.dropped.Add(1)
		return
	}
	p := &c.pipes[direction]
	due := now.Add(l.o.Delay + time.Duration(part*float64(l.o.Jitter)))
	if due.Before(p.last) {
		due = p.last
	}
	p.last = due
	this := &parcel{pipe: p, datagram: append([]byte(nil), datagram...), due: due}
	if twice < l.o.Duplicate {
		this.copies = 1
	}
	if p.held == nil && back < l.o.Reorder {
		this.due = due.Add(maxHold)
		p.held = this
		l.put(this)
		return
	}
	l.put(this)
	if held := p.held; held != nil {
		l.reordered.Add(1)
		p.held = nil
		heap.Remove(&l.flight, held.index)
		held.due = due
		l.put(held)
	}
}

// put schedules a parcel after all others with the same due time.
func (l *Link) put(p *parcel) {
	l.order++
	p.order = l.order
	heap.Push(&l.flight, p)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// sender delivers parcels when they are due.
func (l *Link) sender(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-l.wake:
		}
		for p, wait := l.next(); ; p, wait = l.next() {
			if p == nil {
				timer.Reset(wait)
				break
			}
			l.deliver(p)
		}
	}
}

// next takes out the next parcel if it is due, or says how long to wait for it.
func (l *Link) next() (p *parcel, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.flight) == 0 {
		return nil, time.Hour
	}
	p = l.flight[0]
	if wait := time.Until(p.due); wait > 0 {
		return nil, wait
	}
	heap.Pop(&l.flight)
	if p.pipe.held == p {
		p.pipe.held = nil // Nothing came to overtake it.
	}
	return p, 0
}

func (l *Link) deliver(p *parcel) {
	// What cannot be sent is lost, as on any network.
	if l.paused.Load() || p.pipe.send(p.datagram) != nil {
		l.dropped.Add(1)
		return
	}
	l.forwarded.Add(1)
	for range p.copies {
		if p.pipe.send(p.datagram) == nil {
			l.duplicated.Add(1)
		}
	}
}

// parcel is a datagram on its way.
type parcel struct {
	pipe     *pipe
	datagram []byte
	copies   int
	due      time.Time
	order    uint64
	index    int
}

// flight is a heap of parcels by due time.
type flight []*parcel

func (f flight) Len() int { return len(f) }
func (f flight) Less(i, j int) bool {
	if f[i].due.Equal(f[j].due) {
		return f[i].order < f[j].order
	}
	return f[i].due.Before(f[j].due)
}

func (f flight) Swap(i, j int) {
	f[i], f[j] = f[j], f[i]
	f[i].index, f[j].index = i, j
}

// Push implements heap.Interface.
func (f *flight) Push(x any) {
	p, _ := x.(*parcel)
	p.index = len(*f)
	*f = append(*f, p)
}

// Pop implements heap.Interface.
func (f *flight) Pop() any {
	old := *f
	p := old[len(old)-1]
	old[len(old)-1] = nil
	*f = old[:len(old)-1]
	return p
}
