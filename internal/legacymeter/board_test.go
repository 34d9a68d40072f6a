package legacymeter

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

func TestParseRequest(t *testing.T) {
	for request, want := range map[string]int{
		"6\x00":                 6, // the earlier client's
		"1":                     1,
		"3":                     3,
		" 3":                    3,
		"\n\t\v\f\r 3":          3,
		"+3":                    3,
		"0003":                  3,
		"3\x00rubbish":          3,
		"3\x00\n":               3,
		"00000000000000" + "4":  4, // 15 bytes
		"":                      0,
		"\x00":                  0,
		"\x003":                 0,
		"3\n":                   0, // echo 3
		"3 ":                    0,
		"3x":                    0,
		"x":                     0,
		"-3":                    0,
		"-":                     0,
		"+":                     0,
		"+-3":                   0,
		"- 3":                   0,
		"0":                     0,
		"7":                     0,
		"61":                    0,
		"0x3":                   0,
		"3.0":                   0,
		strings.Repeat("9", 15): 0,
		"4294967299":            0, // 3 in 32 bits
		"\xa03":                 0,
		"DATA_REQUEST":          0,
	} {
		if got, ok := parseRequest([]byte(request)); ok != (want != 0) || ok && got != want {
			t.Errorf("%q: channel %d, %v; want %d", request, got, ok, want)
		}
	}
}

// drain returns the messages that wait in a socket, with their times.
func drain(c *memConn) (got []packet) {
	for {
		select {
		case p := <-c.in:
			got = append(got, p)
		default:
			return got
		}
	}
}

func TestBoardStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &memNet{}
		var streams atomic.Int64
		reboot := make(chan struct{})
		conn := network.listen(boardAddr)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- ServeBoard(ctx, conn, BoardOptions{Streams: &streams, Reboot: reboot, MaxStreams: 3}) }()
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(boardAddr))
		a, b := network.listen("10.0.0.1:1"), network.listen("10.0.0.2:2")
		ask := func(c *memConn, request string) {
			if _, err := c.WriteTo([]byte(request), to); err != nil {
				t.Fatal(err)
			}
		}
		pass(t, 10*time.Second)

		// The first message at once, then each second, of the channel asked for, from the port asked.
		ask(a, "2\x00")
		pass(t, 10*time.Millisecond)
		pass(t, 3*time.Second)
		got := drain(a)
		if len(got) != 4 {
			t.Fatalf("%d messages in 3 s", len(got))
		}
		for i, p := range got {
			seconds := 10 + float64(i)
			want := Message{TimestampUS: uint64(seconds * 1e6), ChargeMAS: 200 * seconds, CurrentMA: 200}
			if m, err := Parse([]byte(p.data)); err != nil || m != want || p.from.String() != boardAddr {
				t.Errorf("message %d: %+v, %v from %v; want %+v", i, m, err, p.from, want)
			}
		}

		// Each request accepted is another stream; the firmware would go on until its memory ends.
		ask(a, "2")
		ask(b, "5")
		ask(b, "6")
		ask(b, "7")
		ask(b, "5\n")
		ask(b, "")
		pass(t, 1500*time.Millisecond)
		drain(a)
		drain(b)
		pass(t, time.Minute)
		if n, m := len(drain(a)), len(drain(b)); streams.Load() != 3 || n != 120 || m != 60 {
			t.Errorf("%d streams, %d and %d messages in a minute", streams.Load(), n, m)
		}

		// A restart ends the streams and begins the clock and the totals at zero.
		reboot <- struct{}{}
		pass(t, 5*time.Second)
		drain(a)
		drain(b)
		pass(t, time.Minute)
		if n, m := len(drain(a)), len(drain(b)); streams.Load() != 0 || n != 0 || m != 0 {
			t.Errorf("%d streams, %d and %d messages after a restart", streams.Load(), n, m)
		}
		ask(a, "1")
		pass(t, time.Millisecond)
		if m, err := Parse([]byte(drain(a)[0].data)); err != nil || m != (Message{65_000_000, 6500, 100}) {
			t.Errorf("after a restart %+v, %v", m, err)
		}
		cancel()
		if err := <-done; err != nil || streams.Load() != 0 {
			t.Errorf("ServeBoard returned %v, %d streams", err, streams.Load())
		}
	})
}

// errConn fails writes.
type errConn struct {
	*memConn
	fail atomic.Pointer[error]
}

func (c *errConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.fail.Load(); err != nil {
		return 0, *err
	}
	return c.memConn.WriteTo(b, to)
}

// A stream outlives a network that is gone, and nothing else.
func TestBoardSendErrors(t *testing.T) {
	for err, want := range map[error]int64{syscall.EHOSTUNREACH: 1, syscall.EPERM: 0} {
		synctest.Test(t, func(t *testing.T) {
			network := &memNet{}
			var streams atomic.Int64
			conn := &errConn{memConn: network.listen(boardAddr)}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- ServeBoard(ctx, conn, BoardOptions{Streams: &streams}) }()
			network.send(netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort(boardAddr), "1")
			pass(t, 5*time.Second)
			conn.fail.Store(&err)
			pass(t, 5*time.Second)
			if got := streams.Load(); got != want {
				t.Errorf("%v: %d streams", err, got)
			}
			cancel()
			<-done
		})
	}
}

// TestLoopback runs source, board and responder over real UDP. The source starts before the board, so that its first request
// meets a closed port, which ended the earlier client.
func TestLoopback(t *testing.T) {
	reserved, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := reserved.LocalAddr().String()
	reserved.Close()

	source, err := New(Config{Address: address, Channel: 3, SupplyVoltage: 5 * energy.Volt})
	if err != nil {
		t.Fatal(err)
	}
	source.silence = 300 * time.Millisecond
	asked := make(chan struct{}, 100)
	source.listen = func() (net.PacketConn, error) {
		conn, err := net.ListenPacket("udp", ":0")
		return &tellingConn{conn, asked}, err
	}
	responder, err := NewResponder(ResponderConfig{Address: "127.0.0.1:0", Last: source.Last})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	readings := make(chan energy.Reading, 10_000)
	done := make(chan error, 3)
	go func() { done <- responder.Run(ctx) }()
	go func() { done <- source.Run(ctx, func(_ int, r energy.Reading) { readings <- r }) }()
	<-asked
	<-asked // the refused request did not end it

	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	reboot := make(chan struct{})
	go func() { done <- ServeBoard(ctx, conn, BoardOptions{Interval: 5 * time.Millisecond, Reboot: reboot}) }()
	first := <-readings
	var last energy.Reading
	for range 20 {
		last = <-readings
	}
	if last.Epoch != first.Epoch || last.At <= first.At || last.Charge <= first.Charge {
		t.Errorf("%+v after %+v", last, first)
	}
	if m, err := Parse(exchange(t, responder.Addr(), []byte("DATA_REQUEST"))); err != nil || m.CurrentMA != 300 || m.at() < last.At {
		t.Errorf("the responder says %+v, %v; the last reading was %+v", m, err, last)
	}
	reboot <- struct{}{}
	for last.Epoch == first.Epoch {
		last = <-readings
	}
	if st := source.Status(); st.Restarts != 1 {
		t.Errorf("status %+v", st)
	}
	cancel()
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// tellingConn tells of each datagram sent.
type tellingConn struct {
	net.PacketConn
	sent chan<- struct{}
}

func (c *tellingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	c.sent <- struct{}{}
	return c.PacketConn.WriteTo(b, to)
}
