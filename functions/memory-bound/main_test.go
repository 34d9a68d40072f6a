package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/semaphore"
)

// The chase visits each line once a round, whatever the size.
func TestRing(t *testing.T) {
	for _, n := range []int{1, 2, 3, 64, 1000, 1 << 14} {
		lines, seen, at := ring(n), make([]bool, n), uint32(0)
		near := 0
		for range n {
			if seen[at] {
				t.Fatalf("%d lines: %d is met twice in a round", n, at)
			}
			seen[at] = true
			if d := int(lines[at].next) - int(at); d > -4 && d < 4 {
				near++
			}
			at = lines[at].next
		}
		if at != 0 {
			t.Errorf("%d lines: a round ends at %d", n, at)
		}
		if n >= 1000 && near > n/50 {
			t.Errorf("%d lines: %d steps go where a prefetcher would look", n, near)
		}
	}
}

func TestWork(t *testing.T) {
	lines := ring(1000)
	var all uint32
	for _, l := range lines {
		all += l.value[0]
	}
	for name, f := range map[string]func() (uint32, error){
		"two rounds": func() (uint32, error) { return chase(t.Context(), lines, 2000) },
		"two passes": func() (uint32, error) { return stream(t.Context(), lines, 2) },
	} {
		if sum, err := f(); sum != 2*all || err != nil {
			t.Errorf("%s: %d, %v, want %d", name, sum, err, 2*all)
		}
	}
}

func newMemory() *memory { return &memory{users: semaphore.NewWeighted(everyone)} }

func TestInvoke(t *testing.T) {
	m := newMemory()
	for query, want := range map[string]string{
		"mib=1&steps=10000":            `{"mode":"chase","mib":1,"steps":10000,"sum":`,
		"mib=2&mode=stream&passes=2":   `{"mode":"stream","mib":2,"passes":2,"sum":`,
		"mib=1&steps=0":                `{"mode":"chase","mib":1,"sum":0}`,
		"mib=1&mode=stream&passes=0":   `{"mode":"stream","mib":1,"sum":0}`,
		"":                             `{"mode":"chase","mib":32,"steps":1000000,"sum":`,
		"mib=0":                        "want a whole number",
		"mib=257":                      "want a whole number",
		"mode=dance":                   "want one of chase, stream",
		"mib=1&passes=1":               `"passes" is unknown`,
		"mib=1&mode=stream&steps=1000": `"steps" is unknown`,
	} {
		once, twice := say(m, query), say(m, query)
		if !strings.Contains(once, want) || once != twice {
			t.Errorf("%q: %s and %s, want %s", query, once, twice, want)
		}
	}
}

func say(m *memory, query string) string {
	w := httptest.NewRecorder()
	if err := m.invoke(w, httptest.NewRequest(http.MethodGet, "/?"+query, nil)); err != nil {
		return err.Error()
	}
	return w.Body.String()
}

// Many at once with different sizes get what they would have got alone, and there is one buffer at a time.
func TestShared(t *testing.T) {
	want := map[string]string{}
	for _, query := range []string{"mib=1&steps=70000", "mib=2&steps=70000", "mib=3&steps=70000"} {
		want[query] = say(newMemory(), query)
	}
	m := newMemory()
	var wg sync.WaitGroup
	for range 8 {
		for query, want := range want {
			wg.Go(func() {
				if got := say(m, query); got != want {
					t.Errorf("%q: %s, want %s", query, got, want)
				}
			})
		}
	}
	wg.Wait()
	if !m.users.TryAcquire(everyone) {
		t.Error("somebody has not left")
	}
}

// Who waits for others to leave does not wait for longer than its caller.
func TestEnds(t *testing.T) {
	m := newMemory()
	_, leave, err := m.use(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := m.use(ctx, 2); err == nil {
		t.Error("it did not wait")
	}
	leave()
	if _, err := chase(ctx, ring(10), 100); err == nil {
		t.Error("the chase did not end")
	}
	if _, err := stream(ctx, ring(10), 100); err == nil {
		t.Error("the stream did not end")
	}
	if got := say(m, "mib=2&steps=1"); !strings.HasPrefix(got, `{"mode"`) {
		t.Error(got)
	}
}

func BenchmarkInvoke(b *testing.B) {
	for _, query := range []string{"mode=chase", "mode=stream"} {
		b.Run(query, func(b *testing.B) {
			m := newMemory()
			say(m, query)
			b.ReportAllocs()
			for b.Loop() {
				say(m, query)
			}
		})
	}
}
