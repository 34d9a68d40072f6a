package meter

import (
	"math/rand/v2"
	"testing"
)

func TestTracker(t *testing.T) {
	type step struct {
		boot, seq uint32
		want      verdict
	}
	for name, tc := range map[string]struct {
		steps           []step
		lost, recovered uint64
		missing         int
	}{
		"in order":       {[]step{{1, 5, fresh}, {1, 6, fresh}, {1, 7, fresh}}, 0, 0, 0},
		"doubled":        {[]step{{1, 5, fresh}, {1, 5, stale}, {1, 4, stale}}, 0, 0, 0},
		"lost":           {[]step{{1, 5, fresh}, {1, 9, fresh}}, 3, 0, 3},
		"overtaken":      {[]step{{1, 5, fresh}, {1, 7, fresh}, {1, 6, late}, {1, 6, stale}}, 1, 1, 0},
		"reboot":         {[]step{{1, 5, fresh}, {2, 1, newBoot}, {1, 6, stale}, {2, 2, fresh}}, 0, 0, 0},
		"reboot, lost":   {[]step{{1, 5, fresh}, {1, 8, fresh}, {2, 1, newBoot}, {2, 3, fresh}}, 3, 0, 1},
		"second reboot":  {[]step{{1, 5, fresh}, {2, 1, newBoot}, {3, 4, newBoot}, {2, 2, stale}}, 0, 0, 0},
		"a far off leap": {[]step{{1, 1, fresh}, {1, 4_000_000_000, fresh}}, 3_999_999_998, 0, maxMissing},
	} {
		t.Run(name, func(t *testing.T) {
			var tr tracker
			for i, s := range tc.steps {
				if got := tr.see(s.boot, s.seq); got != s.want {
					t.Errorf("step %d: %v, want %v", i, got, s.want)
				}
			}
			if tr.lost != tc.lost || tr.recovered != tc.recovered || len(tr.missing) != tc.missing {
				t.Errorf("lost %d, recovered %d, missing %d; want %d, %d, %d",
					tr.lost, tr.recovered, len(tr.missing), tc.lost, tc.recovered, tc.missing)
			}
		})
	}
}

// Whatever the order, each report of a boot is either told once or counted as missing.
func TestTrackerTellsEachReportOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 3))
	for range 500 {
		var tr tracker
		n := uint32(1 + rng.IntN(200))
		told := map[uint32]int{}
		for range 3 * n {
			seq := 1 + rng.Uint32N(n)
			if v := tr.see(1, seq); v == fresh || v == late {
				told[seq]++
			}
		}
		for seq, times := range told {
			if times != 1 {
				t.Fatalf("report %d was told %d times", seq, times)
			}
		}
		if from, any := tr.first(); any {
			if told[from] != 0 {
				t.Fatalf("report %d is told and missing", from)
			}
			tr.forget(from + 1)
			if next, any := tr.first(); any && next <= from {
				t.Fatalf("forgot %d, and %d is the first missing", from, next)
			}
		}
		if tr.lost-tr.recovered < uint64(len(tr.missing)) {
			t.Fatalf("lost %d, recovered %d, but %d missing", tr.lost, tr.recovered, len(tr.missing))
		}
	}
}

func TestEndpoints(t *testing.T) {
	key := []byte("0123456789abcdef")
	for url, want := range map[string]string{
		"coaps://10.0.0.5":       "10.0.0.5:5684",
		"coaps://[fe80::1]:1234": "[fe80::1]:1234",
		"coaps://meter.local/":   "meter.local:5684",
		"coap://127.0.0.1:9":     "127.0.0.1:9",
		"coap://[::1]":           "[::1]:5683",
		"coap://10.0.0.5":        "",
		"coap://example.org":     "",
		"http://10.0.0.5":        "",
		"coaps://10.0.0.5/power": "",
		"coaps://":               "",
		"10.0.0.5":               "",
		"":                       "",
	} {
		got, _, err := Endpoint{URL: url, Key: key}.address()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", url, got, err, want)
		}
	}
	if _, _, err := (Endpoint{URL: "coaps://10.0.0.5"}).address(); err == nil {
		t.Error("coaps without a key passed")
	}
}
