package legacymeter

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// exchange sends a request over real UDP and returns the answer.
func exchange(t *testing.T, to net.Addr, request []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	if err != nil {
		t.Fatalf("no answer to %q: %v", request, err)
	}
	return answer[:n]
}

func TestResponder(t *testing.T) {
	var last atomic.Pointer[Message]
	r, err := NewResponder(ResponderConfig{Address: "127.0.0.1:0", Last: func() (Message, bool) {
		if m := last.Load(); m != nil {
			return *m, true
		}
		return Message{}, false
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()

	requests := [][]byte{[]byte("DATA_REQUEST"), {}, {0}, bytes.Repeat([]byte("x"), 1400)}
	check := func(want []byte) {
		t.Helper()
		for _, request := range requests {
			if got := exchange(t, r.Addr(), request); !bytes.Equal(got, want) {
				t.Errorf("%.20q is answered % x, want % x", request, got, want)
			}
		}
	}
	check(nil) // before the first message
	for _, g := range golden {
		m := g.message
		last.Store(&m)
		check(unhex(t, g.bytes))
	}
	if n := r.Refused(); n != 0 {
		t.Errorf("%d requests refused", n)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run returned %v", err)
	}
	// The address is free again.
	again, err := NewResponder(ResponderConfig{Address: r.Addr().String(), Last: r.cfg.Last})
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if err := again.Run(t.Context()); err == nil {
		t.Error("a closed responder runs")
	}
}

func TestResponderAmplifiesNothing(t *testing.T) {
	answer := unhex(t, golden[0].bytes)
	for _, tc := range []struct {
		from    string
		request string
		answer  int
		want    bool
	}{
		{"127.0.0.1:1", "", 20, true},
		{"127.255.0.1:1", "", 20, true},
		{"[::1]:1", "", 20, true},
		{"[::ffff:127.0.0.1]:1", "", 20, true},
		{"127.0.0.1:5000", string(answer), 20, true},
		{"192.0.2.1:1", "", 20, false},
		{"192.0.2.1:1", "DATA_REQUEST", 20, false},
		{"192.0.2.1:1", "DATA_REQUEST", 13, false},
		{"192.0.2.1:1", "DATA_REQUEST", 12, true},
		{"192.0.2.1:1", "DATA_REQUEST", 0, true},
		{"192.0.2.1:1", strings.Repeat("x", 20), 20, true},
		{"[2001:db8::1]:1", strings.Repeat("x", 19), 20, false},
		{"[::ffff:192.0.2.1]:1", "", 20, false},
		// Two responders that answer each other would never end.
		{"192.0.2.1:5000", string(answer), 20, false},
		{"192.0.2.1:5000", "", 0, false},
	} {
		from := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(tc.from))
		if got := answerable(from, []byte(tc.request), tc.answer); got != tc.want {
			t.Errorf("%s, %q, %d bytes: %v", tc.from, tc.request, tc.answer, got)
		}
	}
}

func TestNewResponderErrors(t *testing.T) {
	last := func() (Message, bool) { return Message{}, false }
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, cfg := range map[string]ResponderConfig{
		"no source":               {Address: "127.0.0.1:0"},
		"another address":         {Address: taken.LocalAddr().String(), Last: last},
		"127.0.0.1:x":             {Address: "127.0.0.1:x", Last: last},
		"stop the earlier client": {Address: taken.LocalAddr().String(), Last: last},
	} {
		if r, err := NewResponder(cfg); err == nil || !strings.Contains(err.Error(), name) || r != nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}
