package kube

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// KubeletConfig is what a Kubelet is made of.
type KubeletConfig struct {
	Config
	Access
	// URL is the kubelet's, such as https://127.0.0.1:10250.
	URL string
	// Every is the time between two questions; default 10 s. A pod that is not known is asked for within a second.
	Every time.Duration
}

const (
	defaultKubeletEvery = 10 * time.Second
	kubeletTimeout      = 10 * time.Second
	// maxList bounds the list of a node's pods: 110 of 20 kB are usual for many.
	maxList = 64 << 20
)

// Kubelet asks the node's kubelet for its pods. It needs no API server; the service account needs the verb get on nodes/pods, which
// shows this node's pods alone.
type Kubelet struct {
	source
	cfg KubeletConfig
}

// NewKubelet returns a Kubelet that asks nothing yet.
func NewKubelet(c KubeletConfig) *Kubelet {
	if c.Every <= 0 {
		c.Every = defaultKubeletEvery
	}
	return &Kubelet{source: newSource(c.Config, c.URL), cfg: c}
}

// Run asks until ctx ends, then returns nil.
func (k *Kubelet) Run(ctx context.Context) error {
	return k.poll(ctx, k.cfg.Every, k.ask)
}

func (k *Kubelet) ask(ctx context.Context) error {
	transport, header, err := k.cfg.connect()
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, kubeletTimeout)
	defer cancel()
	req, err := request(ctx, k.cfg.URL+"/pods", header)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("pods of the kubelet at %s: %w", k.cfg.URL, err)
	}
	defer resp.Body.Close() //nolint:errcheck // nothing was written
	if resp.StatusCode != http.StatusOK {
		err = hint(readEnd(resp.StatusCode, resp.Body), "the verb get on nodes/pods")
		return fmt.Errorf("pods of the kubelet at %s: %w", k.cfg.URL, err)
	}
	k.Directory.begin()
	err = readList(io.LimitReader(resp.Body, maxList), func(a *apiPod) { k.Directory.put(a.pod(k.cfg.Label)) })
	if err != nil {
		return fmt.Errorf("pods of the kubelet at %s: %w", k.cfg.URL, err)
	}
	k.Directory.sweep()
	return nil
}
