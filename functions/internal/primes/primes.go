// Package primes is work for a processor: deterministic, without memory, with a result that anyone can check.
package primes

import "context"

// Count returns how many primes there are below n, by dividing each odd number by what could divide it. It takes about
// n^1.5/ln n divisions of 32-bit numbers, which small cores have too. It ends early, with an error, if ctx does.
func Count(ctx context.Context, n uint32) (int, error) {
	if n <= 2 {
		return 0, nil
	}
	count := 1 // 2
	for i := uint32(3); i < n; i += 2 {
		if i&4095 == 1 && ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if prime(i) {
			count++
		}
	}
	return count, nil
}

// prime tells of an odd number from 3 to 2^31.
func prime(n uint32) bool {
	for d := uint32(3); d*d <= n; d += 2 {
		if n%d == 0 {
			return false
		}
	}
	return true
}
