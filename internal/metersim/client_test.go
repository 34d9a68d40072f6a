package metersim_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	pion "github.com/pion/dtls/v3"
	coapdtls "github.com/plgd-dev/go-coap/v3/dtls"
	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"
	"github.com/plgd-dev/go-coap/v3/message/pool"
	"github.com/plgd-dev/go-coap/v3/options"
	"github.com/plgd-dev/go-coap/v3/pkg/runner/periodic"
	udpclient "github.com/plgd-dev/go-coap/v3/udp/client"
	"github.com/plgd-dev/go-coap/v3/udp/coder"
	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

const identity = "wattlet"

var key = []byte("sixteen byte key")

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// run starts a simulator, secure unless the options say otherwise, and stops it with the test.
func run(tb testing.TB, o metersim.Options) *metersim.Sim {
	tb.Helper()
	sim, _ := runUntil(tb, o)
	return sim
}

// runUntil also returns what stops the simulator before the test ends.
func runUntil(tb testing.TB, o metersim.Options) (*metersim.Sim, func()) {
	tb.Helper()
	if !o.Insecure && o.PSK == nil {
		o.PSK = metersim.OneKey(identity, key)
	}
	if o.Channels == nil {
		o.Channels = []metersim.Channel{exactly(metersim.Constant(5 * energy.Watt)), {Number: 4, Name: "idle"}}
	}
	sim, err := metersim.Listen(o)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the simulator ended with %v", err)
		}
	}
	tb.Cleanup(stop)
	return sim, stop
}

// eventually waits until a condition holds.
func eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	timeout := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-timeout:
			tb.Fatalf("never: %s", what)
		}
	}
}

// dial opens a CoAP session over DTLS to an address.
func dial(tb testing.TB, addr *net.UDPAddr, identity string, key []byte) *udpclient.Conn {
	tb.Helper()
	cc, err := tryDial(tb, addr, identity, key, patience)
	if err != nil {
		tb.Fatal(err)
	}
	return cc
}

// tryDial gives the handshake a time of its own before the CoAP session begins: within a session its reader may be the first
// to begin the handshake, and requests then wait for it without regard to their contexts.
func tryDial(tb testing.TB, addr *net.UDPAddr, identity string, key []byte, timeout time.Duration) (*udpclient.Conn, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), timeout)
	defer cancel()
	conn, err := pion.DialWithOptions("udp", addr,
		pion.WithPSK(func([]byte) ([]byte, error) { return key, nil }),
		pion.WithPSKIdentityHint([]byte(identity)),
		pion.WithCipherSuites(pion.TLS_PSK_WITH_AES_128_CCM_8),
		pion.WithFlightInterval(100*time.Millisecond),
	)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(func() { _ = conn.Close() })
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	stop := make(chan struct{})
	tb.Cleanup(func() { close(stop) })
	return coapdtls.Client(conn,
		options.WithErrors(func(error) {}),
		options.WithPeriodicRunner(periodic.New(stop, 10*time.Millisecond)),
		options.WithTransmission(1, 50*time.Millisecond, 10),
		options.WithCloseSocket(),
	), nil
}

// answer is what came back for a request.
type answer struct {
	code   codes.Code
	format message.MediaType
	maxAge uint32
	body   []byte
}

func get(tb testing.TB, cc *udpclient.Conn, path string, opts ...message.Option) answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	m, err := cc.Get(ctx, path, opts...)
	if err != nil {
		tb.Fatalf("get %s: %v", path, err)
	}
	defer cc.ReleaseMessage(m)
	return read(tb, m)
}

func read(tb testing.TB, m *pool.Message) answer {
	tb.Helper()
	a := answer{code: m.Code()}
	a.format, _ = m.ContentFormat()
	a.maxAge, _ = m.GetOptionUint32(message.MaxAge)
	var err error
	if a.body, err = m.ReadBody(); err != nil {
		tb.Fatal(err)
	}
	return a
}

func query(q string) message.Option { return message.Option{ID: message.URIQuery, Value: []byte(q)} }

func accept(f message.MediaType) message.Option {
	return message.Option{ID: message.Accept, Value: uintOption(uint32(f))}
}

func uintOption(v uint32) []byte {
	buf := make([]byte, 4)
	n, _ := message.EncodeUint32(buf, v)
	return buf[:n]
}

// observe observes /power and hands on what comes.
func observe(tb testing.TB, cc *udpclient.Conn, opts ...message.Option) <-chan answer {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	out := make(chan answer, 10_000)
	_, err := cc.Observe(ctx, "/power", func(m *pool.Message) { out <- read(tb, m) }, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func next(tb testing.TB, c <-chan answer) answer {
	tb.Helper()
	select {
	case a := <-c:
		return a
	case <-time.After(patience):
		tb.Fatal("no notification came")
		return answer{}
	}
}

// rawClient speaks CoAP datagram by datagram, without DTLS, and acknowledges nothing by itself.
type rawClient struct {
	tb   testing.TB
	conn *net.UDPConn
	mid  int32
}

// datagram is a CoAP message that came.
type datagram struct {
	message.Message
	at time.Time
}

func newRawClient(tb testing.TB, addr *net.UDPAddr) *rawClient {
	tb.Helper()
	conn, err := net.DialUDP("udp", nil, addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &rawClient{tb: tb, conn: conn, mid: 100}
}

// send sends a message; opts must ascend by number.
func (c *rawClient) send(typ message.Type, code codes.Code, mid int32, token string, opts ...message.Option) {
	c.tb.Helper()
	buf := make([]byte, 1500)
	n, err := coder.DefaultCoder.Encode(message.Message{
		Type: typ, Code: code, MessageID: mid, Token: message.Token(token), Options: opts,
	}, buf)
	if err != nil {
		c.tb.Fatal(err)
	}
	if _, err := c.conn.Write(buf[:n]); err != nil {
		c.tb.Fatal(err)
	}
}

// power asks for /power with an Observe option and options that come after the path.
func (c *rawClient) power(token string, observe uint32, opts ...message.Option) datagram {
	c.tb.Helper()
	c.mid++
	opts = append([]message.Option{
		{ID: message.Observe, Value: uintOption(observe)}, {ID: message.URIPath, Value: []byte("power")},
	}, opts...)
	c.send(message.Confirmable, codes.GET, c.mid, token, opts...)
	return c.until("an answer", func(d datagram) bool {
		return d.Type == message.Acknowledgement && d.MessageID == c.mid
	})
}

// recv returns the next message; ok is false if none comes before the deadline.
func (c *rawClient) recv(deadline time.Time) (d datagram, ok bool) {
	c.tb.Helper()
	buf := make([]byte, 1500)
	_ = c.conn.SetReadDeadline(deadline)
	n, err := c.conn.Read(buf)
	if err != nil {
		return d, false
	}
	d.Options = make(message.Options, 0, 16)
	if _, err := coder.DefaultCoder.Decode(buf[:n], &d.Message); err != nil {
		c.tb.Fatalf("% x: %v", buf[:n], err)
	}
	d.Payload = bytes.Clone(d.Payload)
	d.at = time.Now()
	return d, true
}

// until reads until a message comes that is wanted.
func (c *rawClient) until(what string, wanted func(datagram) bool) datagram {
	c.tb.Helper()
	for deadline := time.Now().Add(patience); ; {
		d, ok := c.recv(deadline)
		if !ok {
			c.tb.Fatalf("%s never came", what)
		}
		if wanted(d) {
			return d
		}
	}
}

func (d datagram) seq(tb testing.TB) uint32 {
	tb.Helper()
	var r meterpb.Report
	if err := proto.Unmarshal(d.Payload, &r); err != nil {
		tb.Fatal(err)
	}
	return r.Seq
}

// durationValue is a duration that goroutines share.
type durationValue struct{ v atomic.Int64 }

func (d *durationValue) load() time.Duration   { return time.Duration(d.v.Load()) }
func (d *durationValue) store(v time.Duration) { d.v.Store(int64(v)) }
