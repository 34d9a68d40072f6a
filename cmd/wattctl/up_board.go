package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wattlet/wattlet/internal/activity"
	"github.com/wattlet/wattlet/internal/boardsim"
	"github.com/wattlet/wattlet/internal/workload"
)

const (
	// showEvery is the time between two updates of a board's files. An agent that reads them is wrong about when CPU time was
	// used by half of it on average.
	showEvery = 10 * time.Millisecond
	// truthEvery is the time between two records of a board's truth, truthKept how far back they reach: farther than the
	// accounts of an agent are ever behind.
	truthEvery = 200 * time.Millisecond
	truthKept  = 2 * time.Minute
)

// board is a simulated board with all that its agent sees of it.
type board struct {
	*boardsim.Board
	name    string
	channel uint32
	dir     string // of its kernel's files
	url     string // of its agent's pages
	tree    *boardsim.Tree
	dogs    *watchdogs
	entries []byte // in the functions' file

	mu     sync.Mutex
	truths []truth // by time
}

// truth is where a board's energy had gone at an instant, in joules.
type truth struct {
	total     float64
	functions []boardsim.FunctionTruth
}

// newBoard switches a board on. Its files are to be made in dir.
func newBoard(o boardsim.Options, channel uint32, dir string, dogs *watchdogs) (*board, error) {
	sim, err := boardsim.New(o)
	if err != nil {
		return nil, err
	}
	b := &board{Board: sim, name: o.Name, channel: channel, dir: dir, tree: &boardsim.Tree{Board: sim, Dir: dir}, dogs: dogs}
	random := filepath.Join(dir, "proc/sys/kernel/random")
	if err := os.MkdirAll(random, 0o750); err != nil {
		return nil, fmt.Errorf("files of board %s: %w", b.name, err)
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	boot := fmt.Appendf(nil, "%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	if err := os.WriteFile(filepath.Join(random, "boot_id"), boot, 0o600); err != nil {
		return nil, fmt.Errorf("files of board %s: %w", b.name, err)
	}
	return b, nil
}

// run simulates the board in real time until ctx ends. now is the time since it was switched on.
func (b *board) run(ctx context.Context, now func() time.Duration) error {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for next := time.Duration(0); ; {
		at := now()
		if err := b.update(at); err != nil {
			return err
		}
		if at >= next {
			next = at + truthEvery
			b.remember()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// update shows the board as it is now. What serves which function is said before there is a control group: a platform, too,
// knows of its pods before they run.
func (b *board) update(now time.Duration) error {
	b.Advance(now)
	if len(b.TakeEvents()) > 0 || b.entries == nil {
		if err := b.writeFunctions(); err != nil {
			return fmt.Errorf("functions of board %s: %w", b.name, err)
		}
	}
	return b.tree.Update()
}

func (b *board) functionsFile() string { return filepath.Join(b.dir, "functions.yaml") }

// writeFunctions says which control groups serve which function. The file is replaced as a whole.
func (b *board) writeFunctions() error {
	type entry struct {
		Workload  workload.ID `yaml:"workload"`
		Namespace string      `yaml:"namespace"`
		Function  string      `yaml:"function"`
		Name      string      `yaml:"name"`
		Watchdog  string      `yaml:"watchdog"`
	}
	entries := []entry{}
	for _, w := range b.Workloads() {
		if w.Kind == workload.Function {
			entries = append(entries, entry{w.ID, w.Namespace, w.Function, w.Name, b.dogs.url(b.name, w.Name)})
		}
	}
	text, err := yaml.Marshal(entries)
	if err != nil || bytes.Equal(text, b.entries) {
		return err
	}
	b.entries = text
	part := b.functionsFile() + ".part"
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, b.functionsFile())
}

// asked returns what a pod has been asked to do; ok is false if it is not ready or no longer there.
func (b *board) asked(pod string) (a workload.Activity, ok bool) {
	list := b.Workloads()
	i := slices.IndexFunc(list, func(w workload.Workload) bool { return w.Name == pod && w.Kind == workload.Function })
	if i < 0 {
		return a, false
	}
	for _, a := range b.Activity() {
		if a.ID == list[i].ID {
			return a, true
		}
	}
	return a, false
}

// remember records the truth.
func (b *board) remember() {
	t := b.Truth()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.truths = append(b.truths, truth{t.Total, t.Functions})
	if n := len(b.truths) - int(truthKept/truthEvery); n > 0 {
		b.truths = slices.Delete(b.truths, 0, n)
	}
}

// truthWhen returns the truth of the instant at which the board had drawn so much since it was switched on, in joules. ok is
// false if that is too long ago or has not come.
func (b *board) truthWhen(drawn float64) (t truth, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i, _ := slices.BinarySearchFunc(b.truths, drawn, func(t truth, drawn float64) int {
		if t.total < drawn {
			return -1
		}
		return 1
	})
	if i == 0 || i == len(b.truths) {
		return t, false
	}
	x, y := b.truths[i-1], b.truths[i]
	part := (drawn - x.total) / (y.total - x.total)
	t = truth{drawn, slices.Clone(x.functions)} // the functions are always the same
	for i := range t.functions {
		f, to := &t.functions[i], &y.functions[i]
		f.Energy += part * (to.Energy - f.Energy)
		f.ColdStart += part * (to.ColdStart - f.ColdStart)
	}
	return t, true
}

// watchdogs is a server that stands for the watchdogs of all pods.
type watchdogs struct {
	http.Server
	listener net.Listener
}

// newWatchdogs listens. What arrives is answered, for the boards that are there by then, once run serves.
func newWatchdogs(boards []*board) (*watchdogs, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the watchdogs' metrics: %w", err)
	}
	d := &watchdogs{listener: l}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{board}/{pod}/metrics", func(w http.ResponseWriter, r *http.Request) {
		for _, b := range boards {
			if b.name != r.PathValue("board") {
				continue
			}
			if a, ok := b.asked(r.PathValue("pod")); ok {
				activity.Exposer(func() (int64, map[activity.Series]int64) {
					if a.Completed == 0 {
						return a.InFlight, nil
					}
					return a.InFlight, map[activity.Series]int64{{Code: http.StatusOK, Method: http.MethodPost}: a.Completed}
				}).ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, "no such pod is ready", http.StatusServiceUnavailable)
	})
	d.Handler, d.ReadHeaderTimeout = mux, 10*time.Second
	return d, nil
}

// url returns the address of a pod's watchdog.
func (d *watchdogs) url(board, pod string) string {
	return "http://" + d.listener.Addr().String() + "/" + board + "/" + pod + "/metrics"
}

// run serves until ctx ends.
func (d *watchdogs) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = d.Close() })()
	if err := d.Serve(d.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the watchdogs' metrics: %w", err)
	}
	return nil
}

// Close ends it, served or not.
func (d *watchdogs) Close() error { return errors.Join(d.Server.Close(), d.listener.Close()) }
