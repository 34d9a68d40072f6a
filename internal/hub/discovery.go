package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// agentPort is an agent's where nothing else is said.
	agentPort = 9780
	// discoverEvery is the time between two looks for agents, discoverWithin what one may take.
	discoverEvery  = 30 * time.Second
	discoverWithin = 10 * time.Second
	// maxDiscovered bounds what one look may find, maxPods the bytes of an answer that lists pods.
	maxDiscovered = 10_000
	maxPods       = 64 << 20
)

// Discoverer finds agents that come and go. They are reached as Config.Client says.
type Discoverer struct {
	// Name is for messages, as "DNS _wattlet._tcp.example.org".
	Name string
	// Find returns the agents there are now. While it fails, those of the last time are kept.
	Find func(ctx context.Context) ([]Target, error)
	// Every is the time between two calls of Find; default 30 s.
	Every time.Duration
}

// discover looks for agents until ctx ends.
func (h *Hub) discover(ctx context.Context, i int) {
	d := h.cfg.Discover[i]
	tick := time.NewTicker(cmp.Or(d.Every, discoverEvery))
	defer tick.Stop()
	var broken string
	for {
		err := h.find(ctx, i)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && err.Error() != broken:
			broken = err.Error()
			h.log.Error("looking for agents failed; those found before are kept", "where", d.Name, "err", err)
		case err == nil && broken != "":
			broken = ""
			h.log.Info("looking for agents works again", "where", d.Name)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// find looks once.
func (h *Hub) find(ctx context.Context, i int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, discoverWithin, fmt.Errorf("no answer within %v", discoverWithin))
	defer cancel()
	all, err := h.cfg.Discover[i].Find(ctx)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	if len(all) > maxDiscovered {
		return fmt.Errorf("%d agents, more than %d: is that the right name?", len(all), maxDiscovered)
	}
	return h.targets.found(i, all)
}

// DNS finds agents by SRV records (RFC 2782) of a name such as _wattlet._tcp.example.org, which is DNS-SD (RFC 6763) where the name
// is an instance's, or as Kubernetes has them for each pod behind a headless service: _metrics._tcp.wattlet.monitoring.svc.
// resolver may be nil.
func DNS(name string, https bool, resolver *net.Resolver) Discoverer {
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	return Discoverer{Name: "DNS " + name, Find: func(ctx context.Context) ([]Target, error) {
		_, records, err := resolver.LookupSRV(ctx, "", "", name)
		if missing := (*net.DNSError)(nil); errors.As(err, &missing) && missing.IsNotFound {
			return nil, nil // a service of which nothing runs
		}
		if err != nil {
			return nil, fmt.Errorf("look up SRV records of %s: %w", name, err)
		}
		var all []Target
		for _, r := range records {
			all = append(all, agentAt(https, strings.TrimSuffix(r.Target, "."), r.Port))
		}
		return all, nil
	}}
}

// agentAt is the agent at a host and port.
func agentAt(https bool, host string, port uint16) Target {
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(host, strconv.Itoa(int(port)))}
	if https {
		u.Scheme = "https"
	}
	return Target{URL: u.String()}
}

// Kubernetes says where the pods of agents are listed.
type Kubernetes struct {
	// API is the URL of the API server; empty within a cluster.
	API string
	// Namespace of the pods; empty for all. Selector is for their labels, as app.kubernetes.io/name=wattlet.
	Namespace, Selector string
	// TokenFile has a bearer token and CA the certificates to trust, PEM; empty within a cluster means the service account's.
	TokenFile, CA string
	// HTTPS is how agents are reached.
	HTTPS bool
}

// serviceAccount is where Kubernetes puts a pod's credentials.
const serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount/"

// Pods finds agents as pods that run, one target for each, at the container port named metrics or else 9780. It needs the right to
// list pods. The list is asked for as a whole: a watch, for which there is client-go, is not worth 27 MB here.
func (k Kubernetes) Pods() (Discoverer, error) {
	if k.API == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" {
			return Discoverer{}, errors.New("this is no pod of a cluster: say where the Kubernetes API is, as http://127.0.0.1:8001 of kubectl proxy")
		}
		k.API = "https://" + net.JoinHostPort(host, port)
		k.TokenFile, k.CA = cmp.Or(k.TokenFile, serviceAccount+"token"), cmp.Or(k.CA, serviceAccount+"ca.crt")
	}
	api, err := url.Parse(k.API)
	if err != nil || api.Scheme != "http" && api.Scheme != "https" || api.Host == "" || api.User != nil {
		return Discoverer{}, errors.New("the address of the Kubernetes API is not a URL as https://10.0.0.1:6443, without a user")
	}
	if k.TokenFile != "" && api.Scheme == "http" {
		return Discoverer{}, errors.New("a token is not sent to a Kubernetes API without TLS")
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.CA != "" {
		text, err := os.ReadFile(k.CA)
		if err != nil {
			return Discoverer{}, fmt.Errorf("certificates of the Kubernetes API: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(text) {
			return Discoverer{}, fmt.Errorf("certificates of the Kubernetes API: %s has none", k.CA)
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = tlsConfig
	client := &http.Client{Transport: transport}
	path := api.JoinPath("api/v1/pods")
	if k.Namespace != "" {
		path = api.JoinPath("api/v1/namespaces", k.Namespace, "pods")
	}
	return Discoverer{Name: "Kubernetes " + api.Host, Find: func(ctx context.Context) (all []Target, err error) {
		defer client.CloseIdleConnections()
		for next := ""; ; {
			u := *path
			u.RawQuery = url.Values{
				"labelSelector": {k.Selector}, "fieldSelector": {"status.phase=Running"}, "limit": {"500"}, "continue": {next},
			}.Encode()
			body, err := k.get(ctx, client, u.String())
			if err != nil {
				return nil, fmt.Errorf("list pods: %w", err)
			}
			var some []Target
			if some, next, err = parsePods(body, k.HTTPS); err != nil {
				return nil, fmt.Errorf("list pods: %w", err)
			}
			if all = append(all, some...); next == "" || len(all) > maxDiscovered {
				return all, nil
			}
		}
	}}, nil
}

// get asks the API server. The token is read each time: Kubernetes renews it.
func (k Kubernetes) get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, http.NoBody) //nolint:gosec // who starts the hub says where
	if err != nil {
		return nil, err
	}
	if k.TokenFile != "" {
		token, err := os.ReadFile(k.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	resp, err := client.Do(req) //nolint:gosec // as above
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPods))
	switch {
	case resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s answered %s; the service account needs a role that may list pods", req.URL.Host, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
	}
	return body, err
}

// parsePods reads a PodList of the Kubernetes API, as far as it matters here, and where its next part begins.
func parsePods(text []byte, https bool) (all []Target, next string, err error) {
	var list struct {
		Kind     string
		Metadata struct{ Continue string }
		Items    []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp string
			}
			Spec struct {
				NodeName   string
				Containers []struct {
					Ports []struct {
						Name          string
						ContainerPort uint16
					}
				}
			}
			Status struct{ Phase, PodIP string }
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, "", fmt.Errorf("not a list of pods: %w", err)
	}
	if list.Kind != "PodList" {
		return nil, "", fmt.Errorf("not a list of pods, but %q", list.Kind)
	}
	for _, p := range list.Items {
		if p.Status.Phase != "Running" || p.Status.PodIP == "" || p.Metadata.DeletionTimestamp != "" {
			continue
		}
		port := uint16(agentPort)
		for _, c := range p.Spec.Containers {
			for _, named := range c.Ports {
				if named.Name == "metrics" && named.ContainerPort != 0 {
					port = named.ContainerPort
				}
			}
		}
		t := agentAt(https, p.Status.PodIP, port)
		t.Name = cmp.Or(p.Spec.NodeName, p.Metadata.Name)
		all = append(all, t)
	}
	return all, list.Metadata.Continue, nil
}

// found takes what the i-th Discoverer has found. What is not an agent's address costs itself only.
func (t *targets) found(i int, list []Target) error {
	var errs []error
	some := make([]target, 0, len(list))
	for _, c := range list {
		one, err := t.check(c, 0)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		some = append(some, one)
	}
	slices.SortFunc(some, func(x, y target) int { return cmp.Or(cmp.Compare(x.name, y.name), cmp.Compare(x.url, y.url)) })
	t.mu.Lock()
	changed := !slices.EqualFunc(some, t.discovered[i], func(x, y target) bool { return x.name == y.name && x.url == y.url })
	if changed {
		t.discovered[i] = some
		t.merge()
	}
	t.mu.Unlock()
	if changed {
		select {
		case t.changed <- struct{}{}:
		default: // it is known already
		}
	}
	return errors.Join(errs...)
}

// merge makes the list of all. Named agents come first; one that was found twice, or is named, is there once, and two of one name
// are told apart by their addresses. The caller holds mu.
func (t *targets) merge() {
	t.all = slices.Concat(t.fixed, t.listed)
	names, urls := map[string]bool{}, map[string]bool{}
	for _, one := range t.all {
		names[one.name], urls[one.metrics.String()] = true, true
	}
	for _, some := range t.discovered {
		for _, one := range some {
			if u := one.metrics.String(); urls[u] {
				continue
			}
			if names[one.name] {
				one.name += " " + one.metrics.Host
			}
			names[one.name], urls[one.metrics.String()] = true, true
			t.all = append(t.all, one)
		}
	}
}
