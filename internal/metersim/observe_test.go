package metersim_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/plgd-dev/go-coap/v3/message"
	"github.com/plgd-dev/go-coap/v3/message/codes"

	"github.com/wattlet/wattlet/internal/metersim"
	"github.com/wattlet/wattlet/internal/wire"
	"github.com/wattlet/wattlet/internal/wire/meterpb"
)

// quick is a meter without DTLS that reports each 20 ms, for clients that go through it datagram by datagram.
func quick() metersim.Options {
	return metersim.Options{Insecure: true, ReportInterval: 20 * time.Millisecond, ConfirmEvery: time.Hour}
}

func TestThirtyTwoObservers(t *testing.T) {
	sim := run(t, metersim.Options{})
	first := dial(t, sim.Addr(), identity, key)
	streams := []<-chan answer{observe(t, first)}
	for range 31 {
		streams = append(streams, observe(t, dial(t, sim.Addr(), identity, key)))
	}
	if n := sim.Observers(); n != 32 {
		t.Errorf("%d observers", n)
	}

	late := dial(t, sim.Addr(), identity, key)
	a := get(t, late, "/power", message.Option{ID: message.Observe})
	if e := wire.UnmarshalError(a.body); a.code != codes.ServiceUnavailable || e.Code != meterpb.Error_CODE_BUSY ||
		e.RetryAfter != 5*time.Second || a.maxAge != 5 || e.Message != "32 observers, no place left" {
		t.Errorf("the 33rd: %v, max-age %d, %+v", a.code, a.maxAge, e)
	}
	if a := get(t, late, "/power"); a.code != codes.Content {
		t.Errorf("the 33rd may not even read: %v", a.code)
	}

	// All of them get what comes from here on. A report may be skipped where the machine is busy, as only the newest waits.
	for _, s := range streams {
		for len(s) > 0 {
			<-s
		}
	}
	for i, s := range streams {
		var before uint32
		for n := range 5 {
			var r meterpb.Report
			if err := wire.UnmarshalReport(next(t, s).body, &r); err != nil {
				t.Fatal(err)
			}
			if n > 0 && (r.Seq <= before || r.Seq > before+5) {
				t.Errorf("observer %d: %d after %d", i, r.Seq, before)
			}
			before = r.Seq
		}
	}

	// A session that is closed leaves its place.
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a place is free", func() bool { return sim.Observers() == 31 })
	next(t, observe(t, late))
}

func TestNotifications(t *testing.T) {
	sim := run(t, quick())
	c := newRawClient(t, sim.Addr())
	d := c.power("tok", 0)
	before := d.seq(t)
	if o, err := d.Options.Observe(); err != nil || o != before || d.Code != codes.Content || string(d.Token) != "tok" {
		t.Fatalf("answer %v", d)
	}
	mids := map[int32]bool{}
	for range 20 {
		d := c.until("a notification", func(datagram) bool { return true })
		seq := d.seq(t)
		o, err := d.Options.Observe()
		format, errF := d.Options.ContentFormat()
		if err != nil || o != seq || seq <= before || d.Type != message.NonConfirmable || d.Code != codes.Content ||
			string(d.Token) != "tok" || mids[d.MessageID] || errF != nil || format != message.AppOctets {
			t.Fatalf("after %d: %v", before, d)
		}
		before, mids[d.MessageID] = seq, true
	}
	if len(mids) != 20 || sim.Observers() != 1 {
		t.Errorf("%d message ids, %d observers", len(mids), sim.Observers())
	}
}

// One notification in a while is a CON, whatever the interval of reports, and the others go on meanwhile.
func TestConfirmableNotifications(t *testing.T) {
	o := quick()
	o.ConfirmEvery = 300 * time.Millisecond
	sim := run(t, o)
	c := newRawClient(t, sim.Addr())
	last := c.power("tok", 0).seq(t)
	for range 4 {
		d := c.until("a CON", func(d datagram) bool { return d.Type == message.Confirmable })
		seq := d.seq(t)
		// 15 reports in 300 ms; late when the machine is busy.
		if n := seq - last; n < 14 || n > 60 {
			t.Errorf("a CON after %d reports", n)
		}
		// Before the ACK NON come, and no other CON.
		for range 5 {
			if d := c.until("a NON", func(datagram) bool { return true }); d.Type != message.NonConfirmable {
				t.Errorf("%v while a CON waits for its ACK", d)
			}
		}
		c.send(message.Acknowledgement, codes.Empty, d.MessageID, "")
		last = seq
	}
	if n := sim.Observers(); n != 1 {
		t.Errorf("%d observers", n)
	}
}

func TestDeadObserversAreRemoved(t *testing.T) {
	o := quick()
	o.ConfirmEvery, o.AckTimeout, o.MaxRetransmit = 100*time.Millisecond, 80*time.Millisecond, 2
	sim := run(t, o)
	dead, live := newRawClient(t, sim.Addr()), newRawClient(t, sim.Addr())
	dead.power("dead", 0)
	heard := make(chan []datagram, 1)
	go func() {
		var cons []datagram
		for {
			d, ok := dead.recv(time.Now().Add(400 * time.Millisecond))
			if !ok {
				heard <- cons
				return
			}
			if d.Type == message.Confirmable {
				cons = append(cons, d)
			}
		}
	}()
	before := live.power("live", 0).seq(t)
	if n := sim.Observers(); n != 2 {
		t.Fatalf("%d observers", n)
	}
	var cons, reports int
	for sim.Observers() > 1 || reports < 20 {
		d := live.until("a notification", func(datagram) bool { return true })
		if d.Type == message.Confirmable {
			live.send(message.Acknowledgement, codes.Empty, d.MessageID, "")
			cons++
		}
		seq := d.seq(t)
		if d.Type == message.Confirmable && seq <= before {
			continue // It was sent again, as the ACK took its time.
		}
		// The dead one's CON waits for 560 ms at least, 28 reports; that must not hold up anything.
		if seq <= before || seq > before+20 {
			t.Fatalf("%d after %d", seq, before)
		}
		before, reports = seq, reports+1
	}
	if cons == 0 {
		t.Error("the live one was never asked")
	}
	// The dead one got one CON, again after 80 ms to 120 ms, again after twice that, and is left alone since.
	got := <-heard
	if len(got) != 3 || got[0].MessageID != got[1].MessageID || got[0].MessageID != got[2].MessageID {
		t.Fatalf("CONs %v, want one and two retransmissions", got)
	}
	first, second := got[1].at.Sub(got[0].at), got[2].at.Sub(got[1].at)
	if first < 70*time.Millisecond || second < 150*time.Millisecond {
		t.Errorf("sent again after %s and %s", first, second)
	}
	live.until("a notification after that", func(datagram) bool { return true })
	if n := sim.Observers(); n != 1 {
		t.Errorf("%d observers", n)
	}
}

func TestResetEndsAnObservation(t *testing.T) {
	for _, typ := range []message.Type{message.NonConfirmable, message.Confirmable} {
		t.Run(typ.String(), func(t *testing.T) {
			o := quick()
			if typ == message.Confirmable {
				o.ConfirmEvery = 50 * time.Millisecond
			}
			sim := run(t, o)
			c := newRawClient(t, sim.Addr())
			c.power("one", 0)
			c.power("two", 0)
			if n := sim.Observers(); n != 2 {
				t.Fatalf("%d observers", n)
			}
			c.send(message.Reset, codes.Empty, 4711, "") // Of nothing: nobody leaves.
			d := c.until("a notification", func(d datagram) bool { return d.Type == typ && string(d.Token) == "one" })
			c.send(message.Reset, codes.Empty, d.MessageID, "")
			eventually(t, "one has left", func() bool { return sim.Observers() == 1 })
			c.until("a notification for the other", func(d datagram) bool { return string(d.Token) == "two" })
		})
	}
}

func TestDeregistration(t *testing.T) {
	sim := run(t, quick())
	c := newRawClient(t, sim.Addr())
	c.power("one", 0)
	d := c.power("other", 1)
	if sim.Observers() != 1 || d.Code != codes.Content {
		t.Errorf("ending what is not observed: %v, %d observers", d, sim.Observers())
	}
	d = c.power("one", 1)
	if d.Options.HasOption(message.Observe) || d.Code != codes.Content || len(d.Payload) == 0 {
		t.Errorf("answer to a deregistration: %v", d)
	}
	if n := sim.Observers(); n != 0 {
		t.Errorf("%d observers", n)
	}
	// Observe with another number is a plain request.
	if d := c.power("one", 2); d.Options.HasOption(message.Observe) || sim.Observers() != 0 {
		t.Errorf("answer to Observe 2: %v", d)
	}
	// What is not observable is not observed.
	c.send(message.Confirmable, codes.GET, 9, "t", message.Option{ID: message.Observe}, message.Option{ID: message.URIPath, Value: []byte("time")})
	if d := c.until("the time", func(d datagram) bool { return d.MessageID == 9 }); d.Options.HasOption(message.Observe) || sim.Observers() != 0 {
		t.Errorf("answer to observing /time: %v", d)
	}
}

// The Accept of the request that registered holds for its notifications; registering again with the same token changes it.
func TestEachObserverHasItsFormat(t *testing.T) {
	sim := run(t, quick())
	c := newRawClient(t, sim.Addr())
	c.power("j", 0, accept(message.AppJSON))
	c.power("p", 0)
	formats := func(n int) map[string]message.MediaType {
		out := map[string]message.MediaType{}
		for range n {
			d := c.until("a notification", func(datagram) bool { return true })
			format, err := d.Options.ContentFormat()
			if err != nil {
				t.Fatalf("%v: %v", d, err)
			}
			out[string(d.Token)] = format
			if format == message.AppJSON && !json.Valid(d.Payload) {
				t.Errorf("no JSON: %q", d.Payload)
			} else if format == message.AppOctets {
				d.seq(t)
			}
		}
		return out
	}
	if f := formats(10); len(f) != 2 || f["j"] != message.AppJSON || f["p"] != message.AppOctets {
		t.Errorf("formats %v", f)
	}
	c.power("j", 0)
	if n := sim.Observers(); n != 2 {
		t.Errorf("%d observers", n)
	}
	if f := formats(10); len(f) != 2 || f["j"] != message.AppOctets {
		t.Errorf("formats %v", f)
	}
}

// A report of twelve channels as JSON needs two blocks; the second is fetched, and belongs to the first.
func TestLongNotificationsComeInBlocks(t *testing.T) {
	sim := run(t, metersim.Options{Channels: make([]metersim.Channel, 12), ReportInterval: 500 * time.Millisecond})
	stream := observe(t, dial(t, sim.Addr(), identity, key), accept(message.AppJSON))
	for range 4 {
		a := next(t, stream)
		var v struct {
			Channels []struct{} `json:"channels"`
		}
		if err := json.Unmarshal(a.body, &v); err != nil || len(v.Channels) != 12 || len(a.body) <= wire.MaxBody {
			t.Errorf("%d channels in %d bytes, %v", len(v.Channels), len(a.body), err)
		}
	}
}
