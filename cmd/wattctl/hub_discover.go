package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/wattlet/wattlet/internal/dnssd"
	"github.com/wattlet/wattlet/internal/hub"
)

// discoverFlags say where to look for agents.
type discoverFlags struct {
	DNS        []string `name:"targets.dns" placeholder:"NAME,..." help:"Agents by the SRV records of a name, as _wattlet._tcp.example.org; may be repeated."`
	Local      bool     `name:"targets.local" help:"Agents on the local network that are announced as _wattlet._tcp (DNS-SD)."`
	Kubernetes string   `name:"targets.kubernetes" placeholder:"SELECTOR" help:"Agents in pods with these labels, as app.kubernetes.io/name=wattlet."`
	Namespace  string   `name:"kubernetes.namespace" placeholder:"NAME" help:"Namespace of those pods; default all."`
	API        string   `name:"kubernetes.api" placeholder:"URL" help:"Kubernetes API; default that of the cluster wattctl runs in."`
	Token      string   `name:"kubernetes.token-file" type:"path" placeholder:"FILE" help:"Bearer token for it; default the service account's."`
	CA         string   `name:"kubernetes.ca" type:"path" placeholder:"FILE" help:"Certificates to trust for it, PEM; default the service account's."`
	HTTPS      bool     `name:"targets.https" help:"Agents that are found speak https."`
}

// any says whether agents are looked for.
func (f discoverFlags) any() bool { return len(f.DNS) > 0 || f.Local || f.Kubernetes != "" }

// discoverers makes of the flags what looks for agents.
func (f discoverFlags) discoverers() (all []hub.Discoverer, err error) {
	for _, name := range f.DNS {
		all = append(all, hub.DNS(name, f.HTTPS, nil))
	}
	if f.Local {
		l := localAgents{https: f.HTTPS, seen: map[string]time.Time{}}
		all = append(all, hub.Discoverer{Name: "local network", Every: localLook, Find: l.find})
	}
	if f.Kubernetes == "" {
		if f.Namespace != "" || f.API != "" || f.Token != "" || f.CA != "" {
			return nil, usagef("which pods? --kubernetes.… goes with --targets.kubernetes, as --targets.kubernetes=app.kubernetes.io/name=wattlet")
		}
		return all, nil
	}
	k := hub.Kubernetes{API: f.API, Namespace: f.Namespace, Selector: f.Kubernetes, TokenFile: f.Token, CA: f.CA, HTTPS: f.HTTPS}
	pods, err := k.Pods()
	if err != nil {
		return nil, usagef("--targets.kubernetes: %w", err)
	}
	return append(all, pods), nil
}

const (
	// agentType is the service type of an agent's pages.
	agentType = "_wattlet._tcp"
	// localLook is the time between two looks at the local network, localFor how long one listens.
	localLook = 30 * time.Second
	localFor  = 3 * time.Second
	// localKept is how long an agent is kept that no longer answers: multicast is lost easily over Wi-Fi.
	localKept = 5 * time.Minute
)

// localAgents are the agents on the local network.
type localAgents struct {
	https bool
	seen  map[string]time.Time // by URL
}

// find listens for a while.
func (l localAgents) find(ctx context.Context) ([]hub.Target, error) {
	listen, cancel := context.WithTimeout(ctx, localFor)
	defer cancel()
	err := dnssd.Browse(listen, agentType, nil, func(s dnssd.Service) {
		if len(s.Addrs) == 0 {
			return
		}
		u := url.URL{Scheme: "http", Host: netip.AddrPortFrom(s.Addrs[0], s.Port).String()}
		if l.https {
			u.Scheme = "https"
		}
		l.seen[u.String()] = time.Now()
	})
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("look at the local network: %w", err)
	}
	var all []hub.Target
	for at, when := range l.seen {
		if time.Since(when) > localKept {
			delete(l.seen, at)
			continue
		}
		all = append(all, hub.Target{URL: at})
	}
	return all, nil
}
