package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Config is what all sources have in common.
type Config struct {
	// Directory is told of the pods.
	Directory *Directory
	// Label is one by which pods say which function they serve, before those of the platforms; empty for none.
	Label string
	// Report is told of every answer, with nil, and of every failure. May be nil.
	Report func(error)
	// Logger is told when the source falls silent or answers again; nil for none.
	Logger *slog.Logger
}

// The waits between two tries: the first after a failure, and the longest; each is up to half shorter or longer by chance, so that
// the agents of a cluster do not come all at once.
const (
	firstWait   = time.Second
	longestWait = 30 * time.Second
)

// source is what all sources do: try, tell how it went, and wait.
type source struct {
	Config
	name     string // for the log
	first    time.Duration
	longest  time.Duration
	failures int
	failing  bool
}

func newSource(c Config, name string) source {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return source{Config: c, name: name, first: firstWait, longest: longestWait}
}

// ok says that the source has answered.
func (s *source) ok() {
	if s.Report != nil {
		s.Report(nil)
	}
}

// well says that it goes on answering.
func (s *source) well() {
	s.failures = 0
	if s.failing {
		s.failing = false
		s.Logger.Info("the source of pods' names answers again", "source", s.name)
	}
}

// fail says that it has not.
func (s *source) fail(err error) {
	s.failures++
	if s.Report != nil {
		s.Report(err)
	}
	if !s.failing {
		s.failing = true
		s.Logger.Warn("pods are not told: those that are known keep their names, new ones go by their UIDs", "source", s.name, "err", err)
	}
}

// wait returns how long to wait before the next try.
func (s *source) wait() time.Duration {
	d := s.first
	for n := 1; n < s.failures && d < s.longest; n++ {
		d *= 2
	}
	d = min(d, s.longest)
	return d/2 + rand.N(d)
}

// pause waits, and returns false if ctx ends.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// poll asks every so often, and when a pod is wanted that is not known, until ctx ends.
func (s *source) poll(ctx context.Context, every time.Duration, ask func(context.Context) error) error {
	for {
		switch err := ask(ctx); {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			s.fail(err)
			if !pause(ctx, s.wait()) {
				return nil
			}
			continue
		}
		s.ok()
		s.well()
		if !pause(ctx, min(every, s.first)) { // not more often, whatever is wanted
			return nil
		}
		t := time.NewTimer(every - min(every, s.first))
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-s.Directory.wanted:
		case <-t.C:
		}
		t.Stop()
	}
}

// Access says how to reach an HTTPS server of the cluster.
type Access struct {
	// TokenFile and CAFile are read for every connection, since they are renewed. CAFile is empty for the system's certificates.
	TokenFile, CAFile string
	// Insecure takes any certificate.
	Insecure bool
}

// connect returns what carries requests over a new connection, to be closed by CloseIdleConnections, and a header with the token.
func (a *Access) connect() (*http.Transport, http.Header, error) {
	header := http.Header{"Accept": {"application/json"}, "User-Agent": {"wattlet"}}
	if a.TokenFile != "" {
		b, err := os.ReadFile(a.TokenFile)
		if err != nil {
			return nil, nil, fmt.Errorf("service account: %w", err)
		}
		header.Set("Authorization", "Bearer "+strings.TrimSpace(string(b)))
	}
	trusted := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: a.Insecure} //nolint:gosec // where that was asked for
	if a.CAFile != "" && !a.Insecure {
		pem, err := os.ReadFile(a.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("certificates to trust: %w", err)
		}
		trusted.RootCAs = x509.NewCertPool()
		if !trusted.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("certificates to trust: %s has none in PEM format", a.CAFile)
		}
	}
	var http1 http.Protocols
	http1.SetHTTP1(true) // what we need of it; and the agent links no other
	return &http.Transport{
		TLSClientConfig: trusted, Protocols: &http1, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
		MaxResponseHeaderBytes: 64 << 10,
		// Where a node's rules for services are not there yet, the first connection never gets through, and the next does.
		DialContext: (&net.Dialer{Timeout: 5 * time.Second, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4,
		}}).DialContext,
	}, header, nil
}

// request returns a GET request.
func request(ctx context.Context, url string, header http.Header) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header = header
	return req, nil
}

// hint adds to a refusal what may be done about it.
func hint(err error, right string) error {
	if s, ok := errors.AsType[statusError](err); ok {
		switch s.Code {
		case http.StatusUnauthorized:
			return fmt.Errorf("%w; is the service account's token the cluster's?", err)
		case http.StatusForbidden:
			return fmt.Errorf("%w; the service account needs %s", err, right)
		}
	}
	return err
}
