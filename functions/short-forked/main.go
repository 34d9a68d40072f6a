// Command short-forked is a function whose work is done by short processes: each invocation starts children of about 20 ms, one after
// the other or several at a time, which is what watchers of live processes miss.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wattlet/wattlet/functions/internal/primes"
	"github.com/wattlet/wattlet/functions/internal/serve"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		os.Exit(child(os.Args[2]))
	}
	os.Exit(serve.Main(function()))
}

// Below 100000 there are 9592 primes; to start a process and find them takes a core of a Raspberry Pi 4 about 20 ms, by estimate.
const (
	defaultChildren = 5
	maxChildren     = 500
	maxParallel     = 16
	defaultBelow    = 100_000
	maxBelow        = 5_000_000
	childWord       = "count-primes-below"
)

func function() serve.Function {
	return serve.Function{Name: "short-forked", Serve: invoke, InFlight: 8}
}

type answer struct {
	Children int `json:"children"`
	Below    int `json:"below"`
	Primes   int `json:"primes"` // that each child found
}

func invoke(w http.ResponseWriter, r *http.Request) error {
	q := serve.NewQuery(r)
	a := answer{Children: q.Int("children", defaultChildren, 1, maxChildren), Below: q.Int("below", defaultBelow, 0, maxBelow)}
	parallel := q.Int("parallel", 1, 1, maxParallel)
	if err := q.Err(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program to start it again: %w", err)
	}
	found := make([]int, a.Children)
	group, ctx := errgroup.WithContext(r.Context())
	group.SetLimit(parallel)
	for i := range found {
		group.Go(func() (err error) {
			found[i], err = fork(ctx, self, a.Below)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, n := range found {
		if n != found[0] {
			return fmt.Errorf("two children counted %d and %d primes below %d", n, found[0], a.Below)
		}
	}
	a.Primes = found[0]
	return serve.JSON(w, a)
}

// fork has a child count; it is killed when ctx ends.
func fork(ctx context.Context, self string, below int) (int, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, childWord, strconv.Itoa(below))
	cmd.Env = []string{"GOMAXPROCS=1", "GOGC=off"}
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("a child: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(string(out), "\n"))
	if err != nil {
		return 0, fmt.Errorf("a child said %.80q: %w", out, err)
	}
	return n, nil
}

// child is what a child does; its parent reads what it prints.
func child(below string) int {
	n, err := strconv.ParseUint(below, 10, 32)
	if err != nil || n > maxBelow {
		fmt.Fprintf(os.Stderr, "short-forked: %s %q: want a number up to %d\n", childWord, below, maxBelow)
		return 2
	}
	count, err := primes.Count(context.Background(), uint32(n))
	if err == nil {
		_, err = fmt.Println(count)
	}
	if err != nil {
		return 1
	}
	return 0
}
