package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/rules"
	"go.yaml.in/yaml/v3"
)

// RuleFile is recording rules and alerts in the format of Prometheus's rule_files.
type RuleFile struct {
	// Name says where they come from, in errors and in /api/v1/rules; unique.
	Name string
	Text []byte
}

// As Prometheus has them: an alert that was pending goes on after a restart if the hub was away for less than the first, and fires
// no sooner than the second afterwards; one that fires is told again after the third.
const (
	outageTolerance = time.Hour
	forGracePeriod  = 10 * time.Minute
	resendDelay     = time.Minute
)

// ruleFiles are parsed rules, by the name of their file. They implement rules.GroupLoader.
type ruleFiles struct {
	names  []string
	groups map[string]*rulefmt.RuleGroups
	parser parser.Parser
}

// Load implements rules.GroupLoader.
func (f *ruleFiles) Load(name string, _ bool, _ model.ValidationScheme) (*rulefmt.RuleGroups, []error) {
	return f.groups[name], nil
}

// Parse implements rules.GroupLoader.
func (f *ruleFiles) Parse(query string) (parser.Expr, error) { return f.parser.ParseExpr(query) }

// parseRules parses all files; an error names file and line.
func parseRules(files []RuleFile) (*ruleFiles, error) {
	f := &ruleFiles{groups: map[string]*rulefmt.RuleGroups{}, parser: parser.NewParser(parser.Options{})}
	for _, file := range files {
		if _, twice := f.groups[file.Name]; twice {
			return nil, fmt.Errorf("rules %s: the file is there twice", file.Name)
		}
		groups, err := parseRuleFile(file.Text, f.parser)
		if err != nil {
			return nil, fmt.Errorf("rules %s:%w", file.Name, err)
		}
		f.names, f.groups[file.Name] = append(f.names, file.Name), groups
	}
	return f, nil
}

// parseRuleFile returns the first error, which begins with its line where one can be told.
func parseRuleFile(text []byte, p parser.Parser) (*rulefmt.RuleGroups, error) {
	groups, errs := rulefmt.Parse(text, false, model.UTF8Validation, p, slog.New(slog.DiscardHandler))
	var where struct {
		Groups []struct {
			Name  string
			Rules []yaml.Node
		}
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&where); err == nil {
		if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
			return nil, errors.New(" a second document begins within, of which nobody would take notice")
		}
	}
	if len(errs) == 0 {
		return groups, nil
	}
	message := strings.Join(strings.Fields(errs[0].Error()), " ") // its lines on one
	// The errors have lines, but for those of templates in labels and annotations, and of groups' names.
	if rule, ok := errors.AsType[*rulefmt.Error](errs[0]); ok && strings.HasPrefix(message, "group ") {
		for _, g := range where.Groups {
			if g.Name == rule.Group && rule.Rule <= len(g.Rules) {
				return nil, fmt.Errorf("%d: %s", g.Rules[rule.Rule-1].Line, message)
			}
		}
	}
	message = strings.TrimPrefix(message, "0:0: ")
	if strings.IndexFunc(message, unicode.IsDigit) != 0 {
		message = " " + message
	}
	return nil, errors.New(message)
}

// newRules returns the rules' manager, and what ends an evaluation that is under way.
func (h *Hub) newRules(reg prometheus.Registerer) (_ *rules.Manager, end context.CancelFunc) {
	ctx, end := context.WithCancel(context.Background())
	notify := func(context.Context, string, ...*rules.Alert) {}
	if h.alerts != nil {
		notify = rules.SendAlerts(h.alerts, h.base().String())
	}
	return rules.NewManager(&rules.ManagerOptions{
		Context: ctx, ExternalURL: h.base(), QueryFunc: rules.EngineQueryFunc(h.newEngine(nil), h.store), NotifyFunc: notify,
		AppendableV2: h.samples, Queryable: h.store, Registerer: reg, GroupLoader: h.ruleFiles, Parser: h.ruleFiles.parser,
		OutageTolerance: outageTolerance, ForGracePeriod: forGracePeriod, ResendDelay: resendDelay,
		DefaultRuleQueryOffset: func() time.Duration { return 0 },
		// It would tell of each evaluation that fails; /api/v1/rules tells the same, and ruleHealth the first.
		Logger: slog.New(slog.DiscardHandler),
	}), end
}

// ruleHealth tells when a rule begins to fail and when it is well again.
type ruleHealth struct {
	log *slog.Logger

	mu  sync.Mutex
	bad map[string]bool // by group and place in it
}

// evaluate is rules.DefaultEvalIterationFunc and a look at how it went.
func (r *ruleHealth) evaluate(ctx context.Context, g *rules.Group, at time.Time) {
	rules.DefaultEvalIterationFunc(ctx, g, at)
	if ctx.Err() != nil {
		return // the hub ends
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, rule := range g.Rules() {
		key := fmt.Sprint(rules.GroupKey(g.File(), g.Name()), ";", i)
		bad := rule.Health() == rules.HealthBad
		switch {
		case bad && !r.bad[key]:
			r.log.Error("a rule cannot be evaluated", "file", g.File(), "group", g.Name(), "rule", rule.Name(), "err", rule.LastError())
		case !bad && r.bad[key]:
			r.log.Info("a rule can be evaluated again", "file", g.File(), "group", g.Name(), "rule", rule.Name())
		}
		r.bad[key] = bad
	}
}
