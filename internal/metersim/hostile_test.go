package metersim_test

import (
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
	"time"

	pion "github.com/pion/dtls/v3"

	"github.com/wattlet/wattlet/internal/metersim"
)

// clientHello returns the first datagram of a client, as a server that never answers gets it.
func clientHello(t *testing.T) []byte {
	t.Helper()
	mute, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	local, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := pion.ClientWithOptions(local, mute.LocalAddr(),
		pion.WithPSK(func([]byte) ([]byte, error) { return key, nil }), pion.WithPSKIdentityHint([]byte(identity)),
		pion.WithCipherSuites(pion.TLS_PSK_WITH_AES_128_CCM_8))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = cc.HandshakeContext(ctx); close(done) }()
	buf := make([]byte, 1500)
	_ = mute.SetReadDeadline(time.Now().Add(patience))
	n, err := mute.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-done
	_ = cc.Close()
	return buf[:n]
}

// drawn counts what comes back to a socket within a time longer than the first retransmission of DTLS, 1 s.
func drawn(t *testing.T, conn *net.UDPConn) (datagrams, bytes int) {
	t.Helper()
	buf := make([]byte, 1500)
	_ = conn.SetReadDeadline(time.Now().Add(1500 * time.Millisecond))
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return datagrams, bytes
		}
		datagrams, bytes = datagrams+1, bytes+n
	}
}

func TestNothingAmplifies(t *testing.T) {
	sim := run(t, metersim.Options{MaxPeers: 1000})
	hello := clientHello(t)
	socket := func(t *testing.T) *net.UDPConn {
		t.Helper()
		conn, err := net.DialUDP("udp", nil, sim.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	send := func(t *testing.T, conn *net.UDPConn, b []byte) {
		t.Helper()
		if _, err := conn.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	// flush waits until all that was sent before has been taken from the meter's socket, whose buffer must not overflow: a
	// stranger's hello behind it is answered.
	flush := func(t *testing.T) {
		t.Helper()
		conn := socket(t)
		send(t, conn, hello)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1500)); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("spoofed hello", func(t *testing.T) {
		t.Parallel()
		conn := socket(t)
		send(t, conn, hello)
		n, bytes := drawn(t, conn)
		t.Logf("%d bytes draw %d in %d datagrams", len(hello), bytes, n)
		if n != 1 || bytes >= len(hello) {
			t.Errorf("%d bytes draw %d in %d datagrams, want one HelloVerifyRequest, smaller", len(hello), bytes, n)
		}
	})
	t.Run("spoofed hellos", func(t *testing.T) {
		t.Parallel()
		conn := socket(t)
		for range 10 {
			send(t, conn, hello)
		}
		if n, bytes := drawn(t, conn); bytes >= 10*len(hello) {
			t.Errorf("%d bytes draw %d in %d datagrams", 10*len(hello), bytes, n)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		t.Parallel()
		conn := socket(t)
		rng := rand.New(rand.NewPCG(1, 1))
		for i := range 300 {
			if i%30 == 0 {
				flush(t)
			}
			b := make([]byte, rng.IntN(1200))
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
			send(t, conn, b)
		}
		for _, b := range [][]byte{nil, {22}, []byte("\x40\x01\x00\x01\xb5power"), append([]byte{23}, hello[1:]...), append([]byte{21}, hello[1:]...)} {
			send(t, conn, b)
		}
		flush(t)
		if n, bytes := drawn(t, conn); n != 0 {
			t.Errorf("garbage draws %d bytes in %d datagrams", bytes, n)
		}
	})
	t.Run("broken hellos", func(t *testing.T) {
		t.Parallel()
		rng := rand.New(rand.NewPCG(2, 2))
		sent, got := 0, 0
		var conns []*net.UDPConn
		for range 50 {
			b := append([]byte(nil), hello[:30+rng.IntN(len(hello)-30)]...)
			for range 4 {
				b[14+rng.IntN(len(b)-14)] = byte(rng.Uint32())
			}
			conn := socket(t)
			send(t, conn, b)
			conns, sent = append(conns, conn), sent+len(b)
		}
		buf := make([]byte, 1500)
		deadline := time.Now().Add(1500 * time.Millisecond)
		for _, conn := range conns {
			_ = conn.SetReadDeadline(deadline)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					break
				}
				got += n
			}
		}
		if got >= sent {
			t.Errorf("%d bytes draw %d", sent, got)
		}
	})
}

// What Run starts has ended when it returns: with clients in all states, after a power cut.
func TestNoGoroutineStays(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("inner", func(t *testing.T) {
		sim, stop := runUntil(t, metersim.Options{RebootTakes: 10 * time.Millisecond})
		next(t, observe(t, dial(t, sim.Addr(), identity, key)))
		if _, err := tryDial(t, sim.Addr(), identity, []byte("wrong"), 300*time.Millisecond); err == nil {
			t.Error("a wrong key opens the meter")
		}
		first := sim.BootID()
		sim.Reboot()
		eventually(t, "the power is back", func() bool { return sim.BootID() != first })
		next(t, observe(t, dial(t, sim.Addr(), identity, key)))
		conn, err := net.DialUDP("udp", nil, sim.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(clientHello(t)); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		stop()
	})
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
}
