package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestHubOTLPFlags(t *testing.T) {
	t.Parallel()
	good := hubCmd{ScrapeInterval: time.Second, Target: []string{"pi:1"}, OTLP: otlpFlags{"http://c:4318", "/etc/headers", "/etc/ca.pem", time.Minute}}
	cfg, err := good.config()
	if o := cfg.OTLP; err != nil || o.URL != "http://c:4318" || o.HeadersFile != "/etc/headers" || o.CA != "/etc/ca.pem" || o.Interval != time.Minute {
		t.Errorf("%+v, %v", o, err)
	}
	for want, flags := range map[string]otlpFlags{
		"--otlp.… goes with --otlp":                       {HeadersFile: "/etc/headers", Interval: time.Second},
		"as --otlp=http://10.0.0.4:4318":                  {CA: "/etc/ca.pem", Interval: time.Second},
		"--otlp.interval=0s":                              {URL: "http://c"},
		`OTLP: "c:4318" is not an http URL of a host`:     {URL: "c:4318", Interval: time.Second},
		"OTLP: headers: open /nowhere: no such file or d": {URL: "http://c", HeadersFile: "/nowhere", Interval: time.Second},
	} {
		c := good
		c.Data, c.Listen, c.OTLP = t.TempDir(), "127.0.0.1:0", flags
		err := c.Run(&app{t.Context(), new(output), new(output)})
		if usage := (usageError{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", flags, err, want)
		}
	}
}
