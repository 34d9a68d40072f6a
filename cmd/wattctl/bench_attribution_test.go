package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// benchAttribution runs the command as the command line would.
func benchAttribution(t *testing.T, args ...string) (stdout string, err error) {
	t.Helper()
	var line struct {
		Attribution benchAttributionCmd `cmd:""`
	}
	p, err := kong.New(&line, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	k, err := p.Parse(append([]string{"attribution"}, args...))
	if err != nil {
		return "", usageError{err}
	}
	var out output
	err = k.Run(&app{t.Context(), &out, &out})
	return out.String(), err
}

func TestBenchAttribution(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	scores, plot := filepath.Join(dir, "scores.json"), filepath.Join(dir, "plot.html")
	out, err := benchAttribution(t, "--quick", "--seeds=1", "--estimators=chk,utilisation", "--json="+scores, "--plot="+plot)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Attribution on synthetic: median", "\ngovernor change\n", "chk", "utilisation", "Mean error by lag left in, s"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not print %q:\n%s", want, out)
		}
	}
	var r struct {
		Format     string
		Estimators []string
		Cases      []struct {
			Case string
			Rows []struct {
				Summary struct {
					Conservation int64 `json:"conservation_uj"`
					MeanError    struct{ Median float64 }
				}
			} `json:"estimators"`
		}
	}
	if err := json.Unmarshal([]byte(read(t, scores)), &r); err != nil {
		t.Fatal(err)
	}
	if r.Format != "wattlet-bench-attribution/1" || len(r.Estimators) != 2 || len(r.Cases) < 5 {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Cases {
		for _, row := range c.Rows {
			if row.Summary.Conservation != 0 {
				t.Errorf("%s: the parts are off by %d µJ", c.Case, row.Summary.Conservation)
			}
		}
	}
	if page := read(t, plot); !strings.HasPrefix(page, "<!DOCTYPE html>") || !strings.Contains(page, "</svg>") {
		t.Errorf("no page: %.100s", page)
	}
}

func TestBenchAttributionFaults(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for _, tc := range []struct {
		args, want string
		usage      bool
	}{
		{"--seeds=0", "--seeds=0: give 1 to 1000", true},
		{"--estimators=magic", `there is no "magic"; there are `, true},
		{"--estimators=nnls,nnls", "nnls is named twice", true},
		{"--plot=x.png", "--plot=x.png: the name must end with .html or .svg", true},
		{"--data=/nowhere", "/nowhere", true},
		{"--data=" + empty, "there is no file named *.power.csv.gz", false},
		{"--json=/nowhere/x.json", "/nowhere/x.json", false},
		{"--plot=/nowhere/x.svg", "/nowhere/x.svg", false},
	} {
		out, err := benchAttribution(t, tc.args)
		usage := usageError{}
		if err == nil || out != "" || !strings.Contains(err.Error(), tc.want) || errors.As(err, &usage) != tc.usage {
			t.Errorf("%s: %v, printed %q", tc.args, err, out)
		}
	}
	if _, err := os.Stat("x.png"); err == nil {
		t.Error("x.png was made")
	}
}
