package main

import (
	"time"

	"github.com/wattlet/wattlet/internal/hub"
)

// otlpFlags say which OpenTelemetry collector gets the newest values.
type otlpFlags struct {
	URL         string        `name:"otlp" placeholder:"URL" help:"Sends the newest values to an OpenTelemetry collector, OTLP/HTTP, as http://10.0.0.4:4318."`
	HeadersFile string        `name:"otlp.headers-file" type:"path" placeholder:"FILE" help:"Headers for it, with keys: one a line, as authorization: Bearer …"`
	CA          string        `name:"otlp.ca" type:"path" placeholder:"FILE" help:"Certificates to trust for it, PEM; default the system's."`
	Interval    time.Duration `name:"otlp.interval" default:"15s" help:"Time between two exports; default ${default}."`
}

// config makes of the flags what the hub wants.
func (f otlpFlags) config() (hub.OTLP, error) {
	switch {
	case f.URL == "" && (f.HeadersFile != "" || f.CA != ""):
		return hub.OTLP{}, usagef("--otlp.… goes with --otlp, as --otlp=http://10.0.0.4:4318")
	case f.URL != "" && f.Interval <= 0:
		return hub.OTLP{}, usagef("--otlp.interval=%v: it must be positive", f.Interval)
	}
	return hub.OTLP(f), nil
}
