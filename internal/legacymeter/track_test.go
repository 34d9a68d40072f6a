package legacymeter

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
)

var monday = time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)

// after returns the instant some seconds after monday.
func after(seconds float64) instant {
	d := time.Duration(seconds * float64(time.Second))
	return instant{time.Hour + d, monday.Add(d)}
}

// said is a message with a time since boot in seconds and a charge in mA·s.
func said(uptime, charge float64) Message {
	return Message{TimestampUS: uint64(math.Round(uptime * 1e6)), ChargeMAS: charge, CurrentMA: 1}
}

func TestTrackVerdicts(t *testing.T) {
	type step struct {
		arrived float64 // -1: the board is asked, at the instant of the message that follows
		m       Message
		want    verdict
	}
	const ask = -1
	for name, steps := range map[string][]step{
		"a stream": {
			{100, said(50, 5000), began}, {101, said(51, 5100), took}, {102, said(52, 5200), took},
		},
		"lost datagrams": {
			{100, said(50, 5000), began}, {108, said(58, 5800), took},
		},
		"doubled and overtaken": {
			{100, said(50, 5000), began}, {101, said(51, 5100), took}, {101, said(51, 5100), known},
			{103, said(53, 5300), took}, {103.1, said(52, 5200), known}, {104, said(54, 5400), took},
		},
		"two streams interleaved": {
			{100, said(50, 5000), began}, {100.4, said(50.4, 5040), took}, {101, said(51, 5100), took}, {101.4, said(51.4, 5140), took},
		},
		"overtaken by just less than the window": {
			{100, said(50, 5000), began}, {101, said(60, 6000), took}, {110, said(51, 5100), known}, {110.1, said(69, 6900), took},
		},
		"an outage": {
			{100, said(50, 5000), began}, {ask, Message{}, 0}, {500, said(450, 45000), took},
		},
		"a restart": {
			{100, said(50, 5000), began}, {ask, Message{}, 0}, {112, said(3, 300), renewed}, {113, said(4, 400), took},
		},
		"a restart, all zero at first": {
			{100, said(50, 5000), began}, {ask, Message{}, 0}, {112, Message{}, blank}, {113, said(1, 100), renewed},
		},
		"a restart, its clock past the former one": {
			{100, said(50, 5000), began}, {ask, Message{}, 0}, {200, said(90, 4000), renewed},
		},
		"a restart, clock and charge past the former ones": {
			{100, said(50, 5000), began}, {ask, Message{}, 0}, {200, said(90, 9000), renewed},
		},
		"a restart of a young board": {
			{100, said(3, 300), began}, {ask, Message{}, 0}, {111, said(10.5, 1050), renewed},
		},
		"an outage of a young board": {
			{100, said(3, 300), began}, {ask, Message{}, 0}, {111, said(14, 1400), took},
		},
		"a process that did not run finds its datagrams late": {
			{100, said(5, 500), began}, {160, said(6, 600), took}, {160, said(7, 700), took}, {160, said(64, 6400), took},
			{161, said(66, 6600), took},
		},
		"one torn timestamp": {
			// 2^32 us ahead: one half from before the carry, one from after.
			{100, said(50, 5000), began}, {101, said(51+4294.967296, 5100), strange}, {102, said(52, 5200), took},
			{103, said(53, 5300), took},
		},
		"one torn timestamp behind": {
			{100, said(5000, 5000), began}, {101, said(5001-4294.967296, 5001), known}, {102, said(5002, 5002), took},
		},
		"one torn charge": {
			// 4096 - 2^-41 with the low half zeroed is 4095.998, less than before and no restart.
			{100, said(50, 4095.9999), began}, {101, said(51, 4095.998046875), took}, {102, said(52, 4096.5), took},
		},
		"a wild charge": {
			{100, said(50, 5000), began}, {101, said(51, 1e9), strange}, {102, said(52, 5200), took},
		},
		"a fallen charge": {
			{100, said(50, 5000), began}, {101, said(51, 4000), strange}, {102, said(52, 5200), took},
		},
		"a truth that contradicts is believed after the window": {
			{100, said(50, 5000), began}, {101, said(3, 300), known}, {102, said(4, 400), known}, {103, said(5, 500), known},
			{110.9, said(12.9, 1290), known}, {111, said(13, 1300), renewed}, {112, said(14, 1400), took},
		},
		"one forged message does not end the readings": {
			{100, said(50, 5000), began}, {101, said(9000, 5100), strange}, {101.5, said(51.5, 5150), took},
		},
		"forged messages that contradict each other are never believed": {
			{100, said(50, 5000), began}, {101, said(900, 1), strange}, {105, said(30, 3000), known}, {110, said(2, 5), known},
			{115, said(7000, 2), strange}, {120, said(70, 7000), took},
		},
		"the mock server, no timestamps and random steps": {
			{100, Message{ChargeMAS: 713.2, CurrentMA: 12}, began}, {101, Message{ChargeMAS: 1701.9, CurrentMA: 950}, took},
			{102, Message{ChargeMAS: 1702, CurrentMA: 3}, took}, {102, Message{ChargeMAS: 1702, CurrentMA: 3}, took},
			{ask, Message{}, 0}, {113, Message{ChargeMAS: 400, CurrentMA: 3}, renewed},
		},
		"two streams of the mock server, each with its own totals": {
			{100, Message{ChargeMAS: 5000}, began}, {100.5, Message{ChargeMAS: 300}, strange}, {101, Message{ChargeMAS: 5500}, took},
			{101.5, Message{ChargeMAS: 800}, strange}, {102, Message{ChargeMAS: 6000}, took},
		},
		"a board takes the mock server's place": {
			{100, Message{ChargeMAS: 5000}, began}, {101, said(70, 7000), strange}, {ask, Message{}, 0}, {120, said(89, 8900), renewed},
		},
		"only zeros": {
			{100, Message{}, blank}, {101, Message{}, blank},
		},
	} {
		tr := track{volts: 5 * energy.Volt}
		tr.request(after(99.9))
		for i, s := range steps {
			if s.arrived == ask {
				tr.request(after(steps[i+1].arrived - 0.01))
				continue
			}
			epoch := tr.epoch
			r, got := tr.take(s.m, after(s.arrived))
			if got != s.want {
				t.Errorf("%s: message %d: verdict %d, want %d", name, i, got, s.want)
				break
			}
			if isReading := got == took || got == began || got == renewed; isReading != (r.Epoch != 0) {
				t.Errorf("%s: message %d: verdict %d with reading %+v", name, i, got, r)
			}
			if isNew := got == began || got == renewed; isNew != (tr.epoch != epoch) {
				t.Errorf("%s: message %d: verdict %d, epoch %x after %x", name, i, got, tr.epoch, epoch)
			}
		}
	}
}

func TestTrackReadings(t *testing.T) {
	tr := track{volts: 5100 * energy.Volt / 1000}
	tr.request(after(99.9))
	first, _ := tr.take(Message{TimestampUS: 50e6, ChargeMAS: 5000.5, CurrentMA: 250.25}, after(100))
	want := energy.Reading{
		Epoch: first.Epoch, At: 50 * time.Second, Host: after(100).wall, Estimated: true,
		Charge: 5_000_500, Energy: 25_502_550, // 5.0005 C at 5.1 V
		Current: 250_250, Power: 1_276_275, // the moment's, since there is no interval yet
	}
	if first != want {
		t.Errorf("first reading\n%+v, want\n%+v", first, want)
	}
	// 2 s later, 0.3 s late: the mean of the totals, whatever the moment's current; said at 102 s all the same, but for a
	// drift of 100 ppm in 2.3 s.
	second, _ := tr.take(Message{TimestampUS: 52e6, ChargeMAS: 6000.5, CurrentMA: 7}, after(102.3))
	want.At, want.Host, want.Interval = 52*time.Second, after(102.00023).wall, 2*time.Second
	want.Charge, want.Energy = 6_000_500, 30_602_550
	want.Current, want.Power = 500_000, 2_550_000
	if second != want {
		t.Errorf("second reading\n%+v, want\n%+v", second, want)
	}
}

func TestTrackMockTime(t *testing.T) {
	tr := track{volts: 5 * energy.Volt}
	tr.request(after(100))
	for i, charge := range []float64{600, 600, 1400} {
		// Answered after 0.25 s: the totals began when the mock server was asked.
		r, _ := tr.take(Message{ChargeMAS: charge}, after(100.25+float64(i)))
		if want := 250*time.Millisecond + time.Duration(i)*time.Second; r.At != want || !r.Host.Equal(after(100.25+float64(i)).wall) {
			t.Errorf("message %d: at %v, host %v; want %v", i, r.At, r.Host, want)
		}
		if want := energy.Charge(charge * 1000); r.Charge != want {
			t.Errorf("message %d: charge %v, want %v", i, r.Charge, want)
		}
	}
}

func TestTrackResume(t *testing.T) {
	// Of an earlier process, which assumed 5 V.
	last := energy.Reading{Epoch: 77, At: 1000 * time.Second, Host: after(0).wall, Charge: 100 * energy.Coulomb, Energy: 500 * energy.Joule}
	for name, tc := range map[string]struct {
		arrived float64
		m       Message
		resumed bool
	}{
		"a minute later":                        {60, said(1060, 106e3), true},
		"at once, the same message":             {0.1, said(1000, 100e3), true},
		"3 s early or late":                     {63, said(1060.1, 106e3), true},
		"a day later, 50 ppm slow":              {86400, said(1000+86400-4.3, 1e6), true},
		"a day later, 200 ppm slow":             {86400, said(1000+86400-17.3, 1e6), false},
		"restarted":                             {60, said(50, 5e3), false},
		"restarted, its clock past the old one": {2000, said(1900, 190e3), false},
		"the charge fell":                       {60, said(1060, 90e3), false},
		"another board, much longer up":         {60, said(90000, 9e6), false},
		"the mock server":                       {60, Message{ChargeMAS: 106e3}, false},
	} {
		tr := track{volts: 10 * energy.Volt, resume: func() (energy.Reading, bool) { return last, true }}
		tr.request(after(tc.arrived - 0.1))
		r, v := tr.take(tc.m, after(tc.arrived))
		if v != began || (r.Epoch == last.Epoch) != tc.resumed || r.Epoch == 0 {
			t.Errorf("%s: verdict %d, epoch %d", name, v, r.Epoch)
		}
		want := r.Charge.Times(10 * energy.Volt)
		if tc.resumed {
			want = last.Energy + (r.Charge - last.Charge).Times(10*energy.Volt) // what was is not valued anew
		}
		if r.Energy != want || r.Charge != tc.m.charge() || r.Interval != 0 {
			t.Errorf("%s: %+v; want energy %v", name, r, want)
		}
	}
	for name, resume := range map[string]func() (energy.Reading, bool){
		"nothing saved": func() (energy.Reading, bool) { return energy.Reading{}, false },
		"none":          nil,
	} {
		tr := track{volts: energy.Volt, resume: resume}
		if r, v := tr.take(said(5, 1), after(5)); v != began || r.Epoch == 0 {
			t.Errorf("%s: verdict %d, epoch %d", name, v, r.Epoch)
		}
	}
	// A later restart of the board is not the saved epoch, even if it would fit.
	tr := track{volts: energy.Volt, resume: func() (energy.Reading, bool) { return last, true }}
	tr.take(said(5, 1), after(5))
	tr.request(after(1000))
	if r, v := tr.take(said(900, 0.5e6), after(1000)); v != renewed || r.Epoch == last.Epoch || r.Energy != r.Charge.Times(energy.Volt) {
		t.Errorf("verdict %d, %+v", v, r)
	}
}

func TestTrackClocks(t *testing.T) {
	for name, tc := range map[string]struct {
		mono, wall, board time.Duration // from the first message to the second
		want              verdict
	}{
		"host suspended":                   {time.Second, time.Hour, time.Hour, took},
		"wall clock set ahead":             {time.Second, time.Hour, time.Second, took},
		"wall clock set back":              {time.Second, -time.Hour, time.Second, took},
		"board's clock ahead of both":      {time.Second, time.Second, 20 * time.Second, strange},
		"board's clock ahead by the drift": {100 * time.Hour, 100 * time.Hour, 100*time.Hour + 36*time.Second, took},
	} {
		tr := track{volts: 5 * energy.Volt}
		first := after(100)
		tr.request(first)
		tr.take(Message{TimestampUS: 50e6, ChargeMAS: 100}, first)
		second := instant{first.mono + tc.mono, first.wall.Add(tc.wall)}
		m := Message{TimestampUS: uint64((50*time.Second + tc.board).Microseconds()), ChargeMAS: 101}
		if _, v := tr.take(m, second); v != tc.want {
			t.Errorf("%s: verdict %d, want %d", name, v, tc.want)
		}
	}
}

// TestTrackConserves sends the messages of a board that restarts now and then through a network that loses, doubles and
// reorders them, and checks that the readings add up to the charge last heard of each run of the board, to the microcoulomb.
func TestTrackConserves(t *testing.T) {
	for seed := range uint64(1000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		tr := track{volts: 5 * energy.Volt}
		host := 0.0
		var sum, want energy.Charge
		var last energy.Reading
		epochs := 0
		for run := range 5 {
			up := 3 + rnd.Float64()*30 // before the agent is heard
			host += up
			tr.request(after(host))
			var heard energy.Charge
			var held []Message
			for range 10 + rnd.IntN(50) {
				m := said(up, 500*up)
				var arrive []Message
				switch rnd.IntN(10) {
				case 0: // lost
				case 1:
					held = append(held, m) // overtaken by the next
				case 2:
					arrive = []Message{m, m}
				default:
					arrive = append([]Message{m}, held...)
					held = nil
				}
				for _, m := range arrive {
					heard = max(heard, m.charge())
					r, _ := tr.take(m, after(host+rnd.Float64()*0.2))
					if r.Epoch == 0 {
						continue
					}
					if r.Epoch == last.Epoch {
						if r.At <= last.At || r.Charge < last.Charge || r.Energy != r.Charge.Times(tr.volts) {
							t.Fatalf("seed %d: %+v after %+v", seed, r, last)
						}
						sum += r.Charge - last.Charge
					} else {
						if epochs++; run > 0 && r.Host.Add(-r.At).Before(last.Host) {
							t.Fatalf("seed %d: epoch began at %v, before the last reading at %v", seed, r.Host.Add(-r.At), last.Host)
						}
						sum += r.Charge
					}
					last = r
				}
				step := 1.0
				if rnd.IntN(20) == 0 { // an outage
					step = 12 + rnd.Float64()*100
					tr.request(after(host + step - 0.5))
				}
				up, host = up+step, host+step
			}
			want += heard
			host += 11 // silence, then asked again above
		}
		if sum != want || epochs != 5 {
			t.Fatalf("seed %d: %v in %d epochs, want %v in 5", seed, sum, epochs, want)
		}
	}
}
