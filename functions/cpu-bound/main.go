// Command cpu-bound is a function that computes and does nothing else: it counts primes, one invocation on one core.
package main

import (
	"net/http"
	"os"

	"github.com/wattlet/wattlet/functions/internal/primes"
	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() { os.Exit(serve.Main(function())) }

// Below 500000 there are 41538 primes; to find them takes a core of a Raspberry Pi 4 about 0.1 s, by estimate.
const (
	defaultBelow = 500_000
	maxBelow     = 50_000_000
)

func function() serve.Function {
	return serve.Function{Name: "cpu-bound", Serve: invoke, InFlight: 32}
}

// answer has no times, so that equal invocations have equal answers.
type answer struct {
	Below  int `json:"below"`
	Primes int `json:"primes"`
}

func invoke(w http.ResponseWriter, r *http.Request) error {
	q := serve.NewQuery(r)
	below := q.Int("below", defaultBelow, 0, maxBelow)
	if err := q.Err(); err != nil {
		return err
	}
	n, err := primes.Count(r.Context(), uint32(below))
	if err != nil {
		return err
	}
	return serve.JSON(w, answer{below, n})
}
