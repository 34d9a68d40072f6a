package serve

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Config is how a function is served.
type Config struct {
	Listen   string        // address of invocations
	Metrics  string        // address of the metrics; empty for none
	InFlight int           // invocations at a time
	Timeout  time.Duration // of one invocation
	Linger   time.Duration // how long to serve on, not ready, once told to end: until then callers may not have heard of it
	Drain    time.Duration // how long to wait for invocations after that
}

// The environment of a function, all with the prefix.
const (
	envPrefix   = "FUNCTION_"
	envListen   = envPrefix + "LISTEN"
	envMetrics  = envPrefix + "METRICS_LISTEN"
	envInFlight = envPrefix + "MAX_INFLIGHT"
	envTimeout  = envPrefix + "TIMEOUT"
	envLinger   = envPrefix + "LINGER"
	envDrain    = envPrefix + "DRAIN"
)

// Defaults returns the configuration of f where nothing is said.
func Defaults(f Function) Config {
	return Config{
		Listen: ":8080", Metrics: ":8081", InFlight: f.InFlight, Timeout: time.Minute,
		// Kubernetes gives a pod 30 s to end.
		Linger: 2 * time.Second, Drain: 25 * time.Second,
	}
}

// FromEnvironment reads the configuration from the environment, strings as NAME=VALUE. Of-watchdog's own variables fprocess and
// upstream_url, which a child of it inherits, say that it is there: then the function listens where the watchdog calls it, has no
// metrics of its own, and does not linger, since the watchdog does.
func FromEnvironment(f Function, environ []string) (Config, error) {
	cfg := Defaults(f)
	env := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	if upstream := env["upstream_url"]; env["fprocess"] != "" && upstream != "" {
		u, err := url.Parse(upstream)
		if err != nil || u.Port() == "" {
			return Config{}, fmt.Errorf("upstream_url=%q: want the address at which the watchdog calls, such as http://127.0.0.1:8082", upstream)
		}
		cfg.Listen, cfg.Metrics, cfg.Linger = u.Host, "", 0
	}
	for name, value := range env {
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		if err := cfg.set(name, value); err != nil {
			return Config{}, fmt.Errorf("%s=%q: %w", name, value, err)
		}
	}
	return cfg, nil
}

func (c *Config) set(name, value string) (err error) {
	switch name {
	case envListen:
		c.Listen, err = parseAddress(value)
	case envMetrics:
		if c.Metrics = ""; value != "off" {
			c.Metrics, err = parseAddress(value)
		}
	case envInFlight:
		if c.InFlight, err = strconv.Atoi(value); err != nil || c.InFlight < 1 || c.InFlight > 10_000 {
			err = fmt.Errorf("want how many invocations run at a time, from 1 to 10000")
		}
	case envTimeout:
		c.Timeout, err = parseDuration(value, time.Millisecond)
	case envLinger:
		c.Linger, err = parseDuration(value, 0)
	case envDrain:
		c.Drain, err = parseDuration(value, 0)
	default:
		all := []string{envListen, envMetrics, envInFlight, envTimeout, envLinger, envDrain}
		err = fmt.Errorf("there is no such setting; there are %s", strings.Join(all, ", "))
	}
	return err
}

// parseAddress takes HOST:PORT, :PORT or PORT.
func parseAddress(s string) (string, error) {
	if !strings.Contains(s, ":") {
		s = ":" + s
	}
	_, port, err := net.SplitHostPort(s)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return "", fmt.Errorf("want a port or HOST:PORT, such as 127.0.0.1:8080")
	}
	return s, nil
}

func parseDuration(s string, atLeast time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < atLeast || d > time.Hour {
		return 0, fmt.Errorf("want a time from %v to 1h, such as 30s", atLeast)
	}
	return d, nil
}
