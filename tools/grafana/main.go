// Grafana writes Wattlet's dashboards for Grafana, which are made here in Go, as JSON into a directory. The JSON is the same for
// the same code: deploy/grafana holds it, and a test keeps it current.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: grafana DIRECTORY, which gets the dashboards' JSON")
		os.Exit(2) //nolint:forbidigo // a command
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "grafana:", err)
		os.Exit(1) //nolint:forbidigo // a command
	}
}

// boards are all dashboards.
func boards() []board { return []board{cluster(), functions(), node(), meters(), earlier()} }

// write writes the dashboards into a directory, each into a file named for its UID.
func write(dir string) error {
	for _, b := range boards() {
		text, err := render(b)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, b.uid+".json"), text, 0o644); err != nil { //nolint:gosec // all may read it
			return fmt.Errorf("write dashboard: %w", err)
		}
	}
	return nil
}

// render returns a dashboard's JSON.
func render(b board) ([]byte, error) {
	d, err := b.build()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", b.uid, err)
	}
	text, err := encode(d)
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", b.uid, err)
	}
	return text, nil
}

// encode returns JSON that people can read.
func encode(d model) ([]byte, error) {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, err
	}
	return []byte(unescaped.Replace(text.String())), nil
}

// unescaped undoes what encoding/json does for HTML's sake, which SetEscapeHTML cannot where types marshal themselves: queries are
// to be read. No text of ours has a backslash before such a sequence.
var unescaped = strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&")
