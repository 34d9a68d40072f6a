package main

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wattlet/wattlet/internal/dnssd"
	"github.com/wattlet/wattlet/internal/hub"
)

func TestDiscoverFlags(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, tc := range map[string]struct {
		flags discoverFlags
		names []string
		want  string
	}{
		"none": {discoverFlags{}, nil, ""},
		"all": {
			discoverFlags{DNS: []string{"a.b", "c.d"}, Local: true, Kubernetes: "app=x", API: "http://127.0.0.1:8001"},
			[]string{"DNS a.b", "DNS c.d", "local network", "Kubernetes 127.0.0.1:8001"}, "",
		},
		"no selector":   {discoverFlags{Namespace: "x"}, nil, "which pods? --kubernetes.… goes with --targets.kubernetes"},
		"no cluster":    {discoverFlags{Kubernetes: "app=x"}, nil, "--targets.kubernetes: this is no pod of a cluster"},
		"wrong API":     {discoverFlags{Kubernetes: "app=x", API: "x"}, nil, "is not a URL"},
		"token, no TLS": {discoverFlags{Kubernetes: "app=x", API: "http://x", Token: "t"}, nil, "a token is not sent"},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := tc.flags.discoverers()
			if tc.want != "" {
				if usage := (usageError{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want %s", err, tc.want)
				}
				return
			}
			var names []string
			for _, d := range all {
				names = append(names, d.Name)
			}
			if err != nil || !reflect.DeepEqual(names, tc.names) || tc.flags.any() != (len(names) > 0) {
				t.Errorf("%q, %v, want %q", names, err, tc.names)
			}
		})
	}
}

// An agent that is announced on one host is found on another, and forgotten some time after it has gone.
func TestLocalAgents(t *testing.T) {
	t.Parallel()
	a, b := twoHosts(t, "192.0.2.1/24", "192.0.2.2/24")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	announced := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(a.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			announced <- err
			return
		}
		announced <- dnssd.Announce(ctx, agentType, dnssd.Service{Instance: "pi", Port: 9780, Interface: "va"})
	}()
	l := localAgents{https: true, seen: map[string]time.Time{"https://192.0.2.9:9780": time.Now().Add(-localKept - time.Second)}}
	b.do(t, func() {
		all, err := l.find(t.Context())
		if want := []hub.Target{{URL: "https://192.0.2.1:9780"}}; err != nil || !reflect.DeepEqual(all, want) {
			t.Errorf("%+v, %v, want %+v", all, err, want)
		}
	})
	stop()
	if err := <-announced; err != nil {
		t.Error(err)
	}
}
