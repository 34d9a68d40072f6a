package primes

import (
	"context"
	"errors"
	"testing"
)

// The counts are known since long ago (OEIS A006880 for powers of ten).
func TestCount(t *testing.T) {
	for n, want := range map[uint32]int{0: 0, 1: 0, 2: 0, 3: 1, 4: 2, 5: 2, 6: 3, 9: 4, 10: 4, 26: 9, 100: 25, 1000: 168, 10_000: 1229, 100_000: 9592, 1_000_000: 78498} {
		if got, err := Count(t.Context(), n); got != want || err != nil {
			t.Errorf("primes below %d: %d, %v, want %d", n, got, err, want)
		}
	}
}

func TestEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := Count(ctx, 1_000_000); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d, %v", n, err)
	}
}

func BenchmarkCount(b *testing.B) {
	for b.Loop() {
		if n, _ := Count(b.Context(), 100_000); n != 9592 {
			b.Fatal(n)
		}
	}
}
