package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wattlet/wattlet/internal/attribution"
	"github.com/wattlet/wattlet/internal/attribution/baseline"
	"github.com/wattlet/wattlet/internal/validation"
)

// estimators are what attribution can be benchmarked with, by the names of --estimators.
var estimators = map[string]func(attribution.Board) attribution.Estimator{
	"chk":         func(b attribution.Board) attribution.Estimator { return attribution.New(b) },
	"cpu-share":   baseline.CPUShare,
	"utilisation": baseline.Utilisation,
	"nnls":        baseline.NNLS,
	"faasmeter":   baseline.FaasMeter(0),
	"faasmeter-1": baseline.FaasMeter(1),
}

// benchmarked are the estimators of a benchmark that names none, in the order of its tables.
var benchmarked = []string{"chk", "cpu-share", "nnls", "faasmeter", "utilisation"}

type benchAttributionCmd struct {
	Data       string   `placeholder:"DIR" type:"existingdir" help:"Compose loads of recorded runs (*.power.csv.gz, *.invocations.csv), not of made-up ones."`
	Seeds      uint64   `default:"6" help:"Random seeds of each load."`
	FirstSeed  uint64   `default:"1" help:"The first of them; judge by seeds that nobody tuned by."`
	Estimators []string `placeholder:"NAME,..." help:"Only these; default all but variants."`
	JSON       string   `name:"json" placeholder:"FILE" help:"Write all scores, as one JSON object."`
	Plot       string   `placeholder:"FILE" help:"Draw bars and curves, as a page (.html) or a picture (.svg)."`
	Quick      bool     `help:"Loads of 10 minutes instead of 30, fewer points in the curves."`
}

// Run judges the estimators by loads whose true energies are known, and prints tables.
func (c benchAttributionCmd) Run(a *app) error {
	chosen, err := c.estimators()
	if err != nil {
		return err
	}
	if c.Seeds < 1 || c.Seeds > 1000 {
		return usagef("--seeds=%d: give 1 to 1000", c.Seeds)
	}
	draw := validation.WriteHTML
	switch filepath.Ext(c.Plot) {
	case ".svg":
		draw = validation.WriteSVG
	case ".html", ".htm", "":
	default:
		return usagef("--plot=%s: the name must end with .html or .svg", c.Plot)
	}
	plan := validation.SyntheticPlan(c.Seeds, c.Quick)
	if c.Data != "" {
		runs, err := validation.LoadRecordings(os.DirFS(c.Data))
		if err != nil {
			return fmt.Errorf("--data=%s: %w", c.Data, err)
		}
		if plan, err = validation.RecordedPlan(runs, filepath.Base(c.Data), c.Seeds, c.Quick); err != nil {
			return err
		}
	}
	plan.Cases = append(plan.Cases, boardSetups(c.Quick)...)
	// What cannot be written is told now, not after minutes.
	scores, err := createOrNot(c.JSON)
	if err != nil {
		return err
	}
	defer scores.Close()
	plot, err := createOrNot(c.Plot)
	if err != nil {
		return err
	}
	defer plot.Close()
	plan.First = c.FirstSeed
	result, err := plan.Run(a.ctx, chosen, func(int, int, string) {})
	if err != nil {
		return err
	}
	if scores != nil {
		enc := json.NewEncoder(scores)
		enc.SetIndent("", " ")
		if err := errors.Join(enc.Encode(result), scores.Close()); err != nil {
			return err
		}
	}
	if plot != nil {
		if err := errors.Join(draw(plot, result), plot.Close()); err != nil {
			return err
		}
	}
	return validation.WriteText(a.stdout, result)
}

// createOrNot creates a file; none, and no error, for an empty path. Closing none is harmless, and closing twice too.
func createOrNot(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	return os.Create(path)
}

func (c benchAttributionCmd) estimators() (chosen []validation.Named, err error) {
	names := c.Estimators
	if len(names) == 0 {
		names = benchmarked
	}
	for i, name := range names {
		construct, ok := estimators[name]
		if !ok {
			known := make([]string, 0, len(estimators))
			for k := range estimators {
				known = append(known, k)
			}
			slices.Sort(known)
			return nil, usagef("--estimators: there is no %q; there are %s", name, strings.Join(known, ", "))
		}
		if slices.Contains(names[:i], name) {
			return nil, usagef("--estimators: %s is named twice", name)
		}
		chosen = append(chosen, validation.Named{Name: name, New: construct})
	}
	return chosen, nil
}
