package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestHubFlags(t *testing.T) {
	good := hubCmd{ScrapeInterval: time.Second, Target: []string{"pi:1", "jetson=https://10.0.0.8:9780"}}
	cfg, err := good.config()
	if err != nil || len(cfg.Targets) != 2 || cfg.Targets[0].Name != "" || cfg.Targets[0].URL != "pi:1" ||
		cfg.Targets[1].Name != "jetson" || cfg.Targets[1].URL != "https://10.0.0.8:9780" {
		t.Errorf("%+v, %v", cfg, err)
	}
	for name, tc := range map[string]struct {
		change func(*hubCmd)
		want   string
	}{
		"no targets":     {func(c *hubCmd) { c.Target = nil }, "which agents? Give --target"},
		"interval":       {func(c *hubCmd) { c.ScrapeInterval = 0 }, "--scrape.interval=0s"},
		"half a user":    {func(c *hubCmd) { c.User = "u" }, "--user and --password-file go together"},
		"retention":      {func(c *hubCmd) { c.Retention = "soon" }, "--retention=soon"},
		"retention size": {func(c *hubCmd) { c.RetentionSize = "2" }, "--retention.size=2 "},
		"target":         {func(c *hubCmd) { c.Target = []string{"ftp://pi"} }, `"ftp://pi" is not an agent's address`},
	} {
		t.Run(name, func(t *testing.T) {
			c := good
			c.Data, c.Listen = t.TempDir(), "127.0.0.1:0"
			tc.change(&c)
			err := c.Run(&app{t.Context(), new(output), new(output)})
			if usage := (usageError{}); !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %s", err, tc.want)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1B": 1, "3KB": 3072, "512MB": 536870912, "2GB": 2147483648, "1TB": 1099511627776,
		"": 0, "GB": 0, "2": 0, "2G": 0, "-1GB": 0, "1.5GB": 0, "0MB": 0, "9999999TB": 0, "1BB": 0,
	} {
		if got, ok := parseSize(text); got != want || ok != (want > 0) {
			t.Errorf("%q: %d, %v, want %d", text, got, ok, want)
		}
	}
}

// TestHub runs a hub until it is interrupted; a second one on its storage, and one on its port, fail and say why.
func TestHub(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stdout := new(output)
	c := hubCmd{Data: filepath.Join(t.TempDir(), "data"), Listen: "127.0.0.1:0", Target: []string{"127.0.0.1:1"}, ScrapeInterval: time.Second}
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = c.Run(&app{ctx, stdout, new(output)})
	}()
	eventually(t, "its address", ended, func() bool { return strings.Contains(stdout.String(), "\n") })
	at, _, _ := strings.Cut(strings.TrimPrefix(stdout.String(), "hub at http://"), ",")
	eventually(t, "somebody at "+at, ended, func() bool {
		conn, err := net.Dial("tcp", at)
		return err == nil && conn.Close() == nil
	})
	for want, second := range map[string]hubCmd{
		"is in use by another hub": c,
		"choose another address":   {Data: t.TempDir(), Listen: at, Target: c.Target, ScrapeInterval: time.Second},
	} {
		err := second.Run(&app{t.Context(), new(output), new(output)})
		if usage := (usageError{}); err == nil || errors.As(err, &usage) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	interrupt()
	<-ended
	if err != nil {
		t.Error(err)
	}
}
