package metersim_test

import (
	"context"
	"encoding/binary"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// receiver is a socket and the numbers of the datagrams that came, each of which an echo sends back.
type receiver struct {
	conn *net.UDPConn
	mu   sync.Mutex
	got  []int
}

func newReceiver(tb testing.TB, conn *net.UDPConn, err error, echo bool) *receiver {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	r := &receiver{conn: conn}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.got = append(r.got, int(binary.BigEndian.Uint32(buf)))
			r.mu.Unlock()
			if echo {
				_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
			}
		}
	}()
	tb.Cleanup(func() { _ = conn.Close(); <-done })
	return r
}

func newEcho(tb testing.TB) *receiver {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	return newReceiver(tb, conn, err, true)
}

func (r *receiver) numbers() []int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func runLink(tb testing.TB, o metersim.LinkOptions) *metersim.Link {
	tb.Helper()
	l, err := metersim.ListenLink(o)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("the link ended with %v", err)
		}
	})
	return l
}

// through sends n numbered datagrams through a link with these faults to an echo, and returns what the echo got and what came
// back. It waits until all are accounted for: those sent and those the echo got were each forwarded or dropped, and what was
// forwarded or sent twice has arrived.
func through(t *testing.T, o metersim.LinkOptions, n int) (s metersim.LinkStats, there, back []int) {
	t.Helper()
	echo := newEcho(t)
	o.Target = echo.conn.LocalAddr().String()
	l := runLink(t, o)
	conn, err := net.DialUDP("udp", nil, l.Addr())
	client := newReceiver(t, conn, err, false)
	for i := range n {
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Fatal(err)
		}
		if i%50 != 49 && i != n-1 {
			continue // 50 at a time, so that no socket's buffer overflows.
		}
		eventually(t, "all are accounted for", func() bool {
			s = l.Stats()
			there, back = echo.numbers(), client.numbers()
			return s.Forwarded+s.Dropped == uint64(i+1+len(there)) && s.Forwarded+s.Duplicated == uint64(len(there)+len(back))
		})
	}
	return s, there, back
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func TestGoodLink(t *testing.T) {
	for _, o := range []metersim.LinkOptions{{}, {Delay: 5 * time.Millisecond}, {Jitter: 5 * time.Millisecond, Seed: 1}} {
		s, there, back := through(t, o, 500)
		if s != (metersim.LinkStats{Forwarded: 1000, Clients: 1}) || !slices.Equal(there, numbers(500)) || !slices.Equal(back, numbers(500)) {
			t.Errorf("%+v: %+v, %d there, %d back, or not in order", o, s, len(there), len(back))
		}
	}
}

// Of 1000 datagrams 200 are lost on each way, 13 rms.
func TestLoss(t *testing.T) {
	s, there, back := through(t, metersim.LinkOptions{Loss: 0.2, Seed: 1}, 1000)
	if len(there) < 735 || len(there) > 865 || !slices.IsSorted(there) {
		t.Errorf("%d of 1000 there, or not in order", len(there))
	}
	if share := float64(len(back)) / float64(len(there)); share < 0.735 || share > 0.865 || !slices.IsSorted(back) {
		t.Errorf("%d of %d back, or not in order", len(back), len(there))
	}
	if lost := 1000 - len(back); s.Dropped != uint64(lost) || s.Duplicated+s.Reordered != 0 {
		t.Errorf("%+v, but %d are lost", s, lost)
	}
	_, again, _ := through(t, metersim.LinkOptions{Loss: 0.2, Seed: 1}, 1000)
	if !slices.Equal(there, again) {
		t.Error("a seed does not repeat the losses")
	}
	_, other, _ := through(t, metersim.LinkOptions{Loss: 0.2, Seed: 2}, 1000)
	if slices.Equal(there, other) {
		t.Error("another seed repeats the losses")
	}
	if s, there, _ := through(t, metersim.LinkOptions{Loss: 1}, 50); len(there) != 0 || s.Dropped != 50 {
		t.Errorf("a dead link lets %d through, %+v", len(there), s)
	}
}

func TestDuplication(t *testing.T) {
	s, there, back := through(t, metersim.LinkOptions{Duplicate: 0.2, Seed: 1}, 1000)
	if !slices.IsSorted(there) || len(there) < 1135 || len(there) > 1265 {
		t.Errorf("%d of 1000 there, or not in order", len(there))
	}
	if got := uint64(len(back) - 1000); s.Duplicated != got || s.Dropped != 0 {
		t.Errorf("%d came too often, %+v", got, s)
	}
	if got := slices.Compact(there); !slices.Equal(got, numbers(1000)) {
		t.Errorf("%d different there", len(got))
	}
}

func TestReordering(t *testing.T) {
	s, there, back := through(t, metersim.LinkOptions{Reorder: 0.2, Seed: 1}, 1000)
	swaps := 0
	for i := 1; i < len(there); i++ {
		if there[i] < there[i-1] {
			swaps++
		}
	}
	// Two cannot be held back at once, and at the end of a batch nothing comes to overtake.
	if swaps < 120 || swaps > 210 {
		t.Errorf("%d of 1000 were overtaken", swaps)
	}
	slices.Sort(there)
	slices.Sort(back)
	if !slices.Equal(there, numbers(1000)) || !slices.Equal(back, numbers(1000)) || s.Dropped+s.Duplicated != 0 || s.Reordered < uint64(swaps) {
		t.Errorf("%d there, %d back, %+v", len(there), len(back), s)
	}
}

func TestDelay(t *testing.T) {
	start := time.Now()
	through(t, metersim.LinkOptions{Delay: 60 * time.Millisecond, Jitter: 10 * time.Millisecond}, 1)
	if d := time.Since(start); d < 120*time.Millisecond {
		t.Errorf("there and back in %s", d)
	}
}

func TestPause(t *testing.T) {
	echo := newEcho(t)
	l := runLink(t, metersim.LinkOptions{Target: echo.conn.LocalAddr().String()})
	conn, err := net.DialUDP("udp", nil, l.Addr())
	client := newReceiver(t, conn, err, false)
	send := func(i uint32) {
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, i)); err != nil {
			t.Fatal(err)
		}
	}
	back := func(want ...int) {
		t.Helper()
		eventually(t, "it is back", func() bool { return slices.Equal(client.numbers(), want) })
	}
	send(1)
	back(1)
	l.Pause()
	send(2)
	eventually(t, "it is dropped", func() bool { return l.Stats().Dropped == 1 })
	l.Resume()
	send(3)
	back(1, 3)
	l.SetLoss(1)
	send(4)
	eventually(t, "it is dropped", func() bool { return l.Stats().Dropped == 2 })
	l.SetLoss(0)
	send(5)
	back(1, 3, 5)
}

func TestIdleClientsAreForgotten(t *testing.T) {
	echo := newEcho(t)
	l := runLink(t, metersim.LinkOptions{Target: echo.conn.LocalAddr().String(), Idle: 100 * time.Millisecond})
	conn, err := net.DialUDP("udp", nil, l.Addr())
	client := newReceiver(t, conn, err, false)
	for i := range 2 {
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, uint32(i))); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is back", func() bool { return len(client.numbers()) == i+1 })
		eventually(t, "the client is forgotten", func() bool { return l.Stats().Clients == 0 })
	}
}

// A port that refuses, as a meter's that is being started, must not end the link.
func TestLinkOutlivesItsTarget(t *testing.T) {
	gone := newEcho(t)
	addr := gone.conn.LocalAddr().String()
	_ = gone.conn.Close()
	l := runLink(t, metersim.LinkOptions{Target: addr})
	conn, err := net.DialUDP("udp", nil, l.Addr())
	client := newReceiver(t, conn, err, false)
	for i := range 3 {
		if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, 1)); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is passed on", func() bool { s := l.Stats(); return s.Forwarded+s.Dropped == uint64(i+1) })
	}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.ListenUDP("udp", to)
	newReceiver(t, back, err, true)
	if _, err := conn.Write(binary.BigEndian.AppendUint32(nil, 2)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is back", func() bool { return slices.Contains(client.numbers(), 2) })
}

func TestLinkOptions(t *testing.T) {
	for name, tc := range map[string]struct {
		o    metersim.LinkOptions
		want string
	}{
		"loss":      {metersim.LinkOptions{Target: "127.0.0.1:1", Loss: 1.1}, "loss 1.1 is not a probability"},
		"duplicate": {metersim.LinkOptions{Target: "127.0.0.1:1", Duplicate: -1}, "duplicate -1 is not"},
		"delay":     {metersim.LinkOptions{Target: "127.0.0.1:1", Delay: -1}, "none can be negative"},
		"target":    {metersim.LinkOptions{Target: "there"}, `relay to "there"`},
		"no target": {metersim.LinkOptions{}, `no target`},
		"addr":      {metersim.LinkOptions{Target: "127.0.0.1:1", Addr: "here"}, `listen on "here"`},
	} {
		if _, err := metersim.ListenLink(tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

// A fifth of all datagrams lost each way, some twice, some late: a client that counts and asks again has every sample, once.
func TestSamplesSurviveABadNetwork(t *testing.T) {
	sim := run(t, metersim.Options{
		Channels: []metersim.Channel{{Noise: 3}}, ReportInterval: 20 * time.Millisecond, ConfirmEvery: 200 * time.Millisecond,
		AckTimeout: 50 * time.Millisecond, MaxRetransmit: 10, Ring: time.Minute,
	})
	l := runLink(t, metersim.LinkOptions{Target: sim.Addr().String(), Duplicate: 0.1, Reorder: 0.1, Jitter: 3 * time.Millisecond, Seed: 7})
	cc := dial(t, l.Addr(), identity, key)
	stream := observe(t, cc)
	l.SetLoss(0.2)
	batches := map[uint32]*meterpb.PastBatch{}
	var r meterpb.Report
	for range 60 {
		r.Reset()
		if err := wire.UnmarshalReport(next(t, stream).body, &r); err != nil {
			t.Fatal(err)
		}
		batches[r.Seq] = wire.Past(proto.CloneOf(&r))
	}
	lost := 0
	for from := uint32(1); from <= r.Seq; {
		if batches[from] != nil {
			from++
			continue
		}
		var list meterpb.SampleList
		if err := wire.UnmarshalSampleList(get(t, cc, "/samples", query("from="+strconv.Itoa(int(from)))).body, &list); err != nil {
			t.Fatal(err)
		}
		for _, b := range list.Batches {
			if had := batches[b.Seq]; had != nil && !proto.Equal(had, b) {
				t.Errorf("batch %d came in two forms", b.Seq)
			}
			batches[b.Seq] = b
		}
		lost++
		from = list.Next
	}
	if lost < 2 {
		t.Errorf("only %d losses: this was a good network", lost)
	}
	var samples []wire.Sample
	for seq := uint32(1); seq <= r.Seq; seq++ {
		if batches[seq] == nil {
			t.Fatalf("batch %d never came", seq)
		}
		var err error
		if samples, err = wire.Samples(samples, batches[seq], 1); err != nil {
			t.Fatal(err)
		}
	}
	for i, s := range samples {
		if s.Number != uint64(i) || s.AtUs != uint64(i+1)*2000 {
			t.Fatalf("sample %d is number %d at %d us", i, s.Number, s.AtUs)
		}
	}
	if uint64(len(samples)) != r.Sweeps {
		t.Errorf("%d samples of %d sweeps", len(samples), r.Sweeps)
	}
	if n := sim.Observers(); n != 1 {
		t.Errorf("%d observers", n)
	}
}
