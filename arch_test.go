// Package wattlet_test keeps the import rule of ARCHITECTURE.md, and the habits about code that a linter does not know.
package wattlet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/wattlet/wattlet"

// room is what a package of ours may import of ours, and why nothing else. A path that ends with /... means all below it.
type room struct {
	may []string
	why string
}

const functionsAlone = "a function is watched like anybody's, so it has nothing of the watchers"

// rooms has a row for every package. A sibling that is missing in a row is missing on purpose.
var rooms = map[string]room{
	"internal/energy": {
		why: "quantities are what all others speak in, so they depend on nobody",
	},
	"internal/hostclock": {
		why: "it reads two clocks of the kernel and knows nothing to date",
	},
	"internal/wire/meterpb": {
		why: "generated; it knows bytes, and no meaning",
	},
	"internal/wire": {
		may: []string{"internal/energy", "internal/wire/meterpb"},
		why: "it turns datagrams into readings and back; sockets, keys and clocks belong to meter and metersim",
	},
	"internal/meter": {
		may: []string{"internal/energy", "internal/hostclock", "internal/wire", "internal/wire/meterpb"},
		why: "it knows one meter; whose energy it was is accounting's business, and metersim is its peer over the network only",
	},
	"internal/metersim": {
		may: []string{"internal/energy", "internal/wire", "internal/wire/meterpb"},
		why: "it stands for the firmware, which shares the wire with the agent and no code",
	},
	"internal/calibration": {
		why: "it computes on readings and a reference, whoever took them",
	},
	"internal/sysfsmeter": {
		may: []string{"internal/energy", "internal/hostclock"},
		why: "it knows the kernel's sensor files; siblings reach each other through accounting",
	},
	"internal/legacymeter": {
		may: []string{"internal/energy"},
		why: "the earlier protocol goes when its last board goes, and nothing else may notice",
	},
	"internal/dnssd": {
		why: "it finds names and addresses, whatever they belong to",
	},
	"internal/workload": {
		why: "identities are what all others speak of, so they depend on nobody",
	},
	"internal/cgroup": {
		may: []string{"internal/workload"},
		why: "it knows the kernel's counters; what they cost is for accounting to bring together",
	},
	"internal/align": {
		may: []string{"internal/energy"},
		why: "it computes on totals and times, whoever measured them",
	},
	"internal/attribution": {
		may: []string{"internal/energy", "internal/workload"},
		why: "the model is a pure function of intervals, live and in replay",
	},
	"internal/attribution/baseline": {
		may: []string{"internal/attribution", "internal/energy", "internal/workload"},
		why: "estimators of others, to be judged by; the agent links none",
	},
	"internal/trace": {
		may: []string{"internal/energy", "internal/workload"},
		why: "a format is read and written without knowing what is computed from it",
	},
	"internal/validation": {
		may: []string{"internal/attribution", "internal/attribution/baseline", "internal/energy", "internal/workload"},
		why: "it judges estimators through their interface, as anyone could",
	},
	"internal/boardsim": {
		may: []string{"internal/energy", "internal/workload"},
		why: "it stands for boards, which share nothing with the agent but kernel files and joules",
	},
	"internal/kube": {
		may: []string{"internal/energy", "internal/workload"},
		why: "it knows pods; which control group is whose is for the command to bring together",
	},
	"internal/kubesim": {
		why: "it stands for the API server, which shares HTTP with the agent and no code",
	},
	"internal/activity": {
		may: []string{"internal/workload"},
		why: "it counts requests; whose energy they used is accounting's business",
	},
	"internal/accounting": {
		may: []string{"internal/align", "internal/attribution", "internal/energy", "internal/workload"},
		why: "it declares the interfaces of meters and other sources; importing one would make the rest second class",
	},
	"internal/hub": {
		may: []string{"internal/energy", "internal/workload"},
		why: "it reaches agents over HTTP like any other scraper, so that it shows what Prometheus would",
	},
	"deploy/prometheus": {
		why: "files, which a program may carry",
	},
	"web": {
		why: "files, which speak to the hub over HTTP like any other page",
	},
	"internal/exporter": {
		may: []string{"internal/accounting", "internal/attribution", "internal/energy", "internal/workload"},
		why: "it reads snapshots, so that a scrape can neither touch a source nor change a number",
	},
	"internal/push": {
		why: "it sends whatever a gatherer has, so that what is pushed is what is scraped",
	},
	"functions/internal/serve": {
		why: "it serves whatever function; functions run where the agent watches, and share nothing with it",
	},
	"functions/internal/primes": {
		why: "it is work, and nothing else",
	},
	"functions/internal/treebank": {
		why: "it knows words; who asks for them does not matter",
	},
	"functions/analyze-sentence": {may: []string{"functions/internal/serve", "functions/internal/treebank"}, why: functionsAlone},
	"functions/cpu-bound":        {may: []string{"functions/internal/primes", "functions/internal/serve"}, why: functionsAlone},
	"functions/gzip":             {may: []string{"functions/internal/serve"}, why: functionsAlone},
	"functions/io-bound":         {may: []string{"functions/internal/serve"}, why: functionsAlone},
	"functions/memory-bound":     {may: []string{"functions/internal/serve"}, why: functionsAlone},
	"functions/resize-image":     {may: []string{"functions/internal/serve"}, why: functionsAlone},
	"functions/short-forked":     {may: []string{"functions/internal/primes", "functions/internal/serve"}, why: functionsAlone},
	"cmd/wattlet": {
		may: []string{"internal/..."},
		why: "commands wire rooms together; what two of them share is a room",
	},
	"cmd/wattctl": {
		may: []string{"deploy/prometheus", "internal/...", "web"},
		why: "commands wire rooms together; what two of them share is a room",
	},
}

// standardOnly are packages that import nothing from outside the standard library: everyone links them.
var standardOnly = []string{"internal/energy", "internal/workload"}

// pure packages compute. They get time as an argument and randomness as a source, and return what others may log: then
// recorded traces replay through them, and a test needs no patience.
var pure = []string{
	"functions/internal/primes", "functions/internal/treebank",
	"internal/align", "internal/attribution", "internal/attribution/baseline", "internal/calibration", "internal/energy", "internal/workload",
}

// impure are the imports a pure package does not have, with all that is below them.
var impure = []string{"crypto/rand", "log", "math/rand", "net", "os", "syscall"}

// clock are the functions of package time that know what time it is, or wait for it.
var clock = []string{"After", "AfterFunc", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}

// linksTesting are the packages that link the testing package through no fault of ours.
var linksTesting = map[string]string{
	"internal/hub": "Prometheus's tsdb imports its own test helpers",
	"cmd/wattctl":  "through internal/hub",
}

// unlinked has for each package what its binary must not contain, and why.
var unlinked = map[string]map[string]string{
	"cmd/wattlet": {
		"github.com/prometheus/prometheus/...":        "the agent exposes metrics and stores none",
		"github.com/plgd-dev/go-coap/v3/tcp":          "meters speak UDP; nothing else may be dialled or served",
		module + "/internal/metersim/...":             "an agent that measures cannot also make up readings",
		module + "/internal/boardsim/...":             "an agent that measures cannot also make up boards",
		module + "/internal/kubesim/...":              "an agent that measures cannot also make up pods",
		"k8s.io/...":                                  "tens of megabytes for three GET requests",
		"google.golang.org/grpc/...":                  "two unary calls on a socket do not need it: ADR 0012",
		module + "/internal/trace/...":                "records leave over HTTP; compression is the recorder's work",
		module + "/internal/attribution/baseline/...": "an agent splits energy in one way",
		module + "/internal/validation/...":           "an agent does not judge itself",
		module + "/internal/hub/...":                  "the hub reaches agents over HTTP, and a board has no room for its storage",
	},
}

// pkg is what `go list` says about a package.
type pkg struct {
	ImportPath, Doc, Dir              string
	GoFiles, CgoFiles, IgnoredGoFiles []string
	TestGoFiles, XTestGoFiles         []string
	Imports, Deps                     []string // direct ones of the non-test files, and all that get linked
}

// self returns p's path below the module's.
func (p pkg) self() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func TestArchitecture(t *testing.T) {
	pkgs, err := list(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report(t, tableFaults(rooms, pkgs))
	for _, p := range pkgs {
		report(t, packageFaults(p))
		for _, name := range slices.Concat(p.GoFiles, p.CgoFiles, p.IgnoredGoFiles, p.TestGoFiles, p.XTestGoFiles) {
			faults, err := sourceFaults(p.self(), filepath.Join(p.Dir, name), nil)
			if err != nil {
				t.Fatal(err)
			}
			report(t, faults)
		}
	}
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, fault := range faults {
		t.Error(fault)
	}
}

// list returns the module's packages, without those that consist of tests only.
func list(ctx context.Context) ([]pkg, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-json", "./...").Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("go list: %w: %s", err, exit.Stderr)
	} else if err != nil {
		return nil, err
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		pkgs = append(pkgs, p)
	}
}

// tableFaults compares the rows of a table of rooms with the packages there are.
func tableFaults(rooms map[string]room, pkgs []pkg) (faults []string) {
	there := map[string]bool{}
	for _, p := range pkgs {
		there[p.self()] = true
	}
	for _, self := range slices.Sorted(maps.Keys(rooms)) {
		if !there[self] {
			faults = append(faults, fmt.Sprintf("%s has a row in rooms, but no package: remove the row", self))
		}
		if rooms[self].why == "" {
			faults = append(faults, fmt.Sprintf("%s: its row in rooms gives no reason", self))
		}
	}
	return faults
}

// packageFaults holds one package against the tables.
func packageFaults(p pkg) (faults []string) {
	self := p.self()
	if len(p.GoFiles)+len(p.CgoFiles) == 0 {
		return nil // tests only
	}
	fault := func(format string, args ...any) {
		faults = append(faults, self+" "+fmt.Sprintf(format, args...))
	}
	row, ok := rooms[self]
	if !ok {
		fault("is not in rooms: add it to the table with a reason")
	}
	if p.Doc == "" {
		fault("has no package comment: say in one sentence what it is for")
	}
	if _, excused := linksTesting[self]; !excused && slices.Contains(p.Deps, "testing") {
		fault("links the testing package: move what serves tests into a _test.go file")
	}
	for _, imp := range p.Imports {
		dep, ours := strings.CutPrefix(imp, module+"/")
		switch {
		case ours && ok && !slices.ContainsFunc(row.may, matches(dep)):
			fault("may not import %s: %s", dep, row.why)
		case !ours && slices.Contains(standardOnly, self) && !standard(imp):
			fault("may import only the standard library, not %s: every package links it", imp)
		}
		if slices.Contains(pure, self) && slices.ContainsFunc(impure, func(i string) bool { return matches(imp)(i + "/...") }) {
			fault("must stay pure, but imports %s: take what it gives as an argument", imp)
		}
	}
	for _, pattern := range slices.Sorted(maps.Keys(unlinked[self])) {
		if i := slices.IndexFunc(p.Deps, func(dep string) bool { return matches(dep)(pattern) }); i >= 0 {
			fault("must not link %s: %s", p.Deps[i], unlinked[self][pattern])
		}
	}
	return faults
}

// matches returns whether a pattern names path, or with /... at its end a folder that path is or lies in.
func matches(path string) func(pattern string) bool {
	return func(pattern string) bool {
		folder, below := strings.CutSuffix(pattern, "/...")
		return path == folder || below && strings.HasPrefix(path, folder+"/")
	}
}

// standard returns whether path is of the standard library: the first element of all others is a domain name.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

// sourceFaults reads one file of package self; src is as for parser.ParseFile.
func sourceFaults(self, name string, src any) (faults []string, err error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if ast.IsGenerated(file) {
		return nil, nil // written by a program of somebody else
	}
	fault := func(n ast.Node, format string, args ...any) {
		faults = append(faults, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	test := strings.HasSuffix(name, "_test.go")

	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil {
			continue
		}
		if f.Name.Name == "init" {
			fault(f, "init runs before main can decide anything: make it a function that main calls")
		}
		if constructor(f.Name.Name) && !test {
			ast.Inspect(f, func(n ast.Node) bool {
				if starts(n) {
					fault(n, "%s starts a goroutine, which then has no owner: start it in Run(ctx)", f.Name.Name)
				}
				return true
			})
		}
	}

	if test || !slices.Contains(pure, self) {
		return faults, nil
	}
	var local string // what this file calls package time
	for _, spec := range file.Imports {
		if path, _ := strconv.Unquote(spec.Path.Value); path == "time" {
			local = "time"
			if spec.Name != nil {
				local = spec.Name.Name
			}
			if local == "." {
				fault(spec, "a dot import of time hides who reads the clock")
			}
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && local != "" && x.Name == local && slices.Contains(clock, sel.Sel.Name) {
			fault(sel, "%s must stay pure, but uses time.%s: take the time as an argument", self, sel.Sel.Name)
		}
		return true
	})
	return faults, nil
}

func constructor(name string) bool {
	return strings.HasPrefix(name, "New") || strings.HasPrefix(name, "new") || strings.HasPrefix(name, "Open")
}

// starts returns whether n starts a goroutine: a go statement, or the Go method of a sync.WaitGroup or errgroup.Group.
func starts(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		sel, ok := n.Fun.(*ast.SelectorExpr)
		return ok && sel.Sel.Name == "Go"
	}
	return false
}

// Below, each rule is shown to fail where it should, and only there.

func TestTableFaults(t *testing.T) {
	pkgs := []pkg{{ImportPath: module + "/internal/energy"}}
	for name, tc := range map[string]struct {
		rooms map[string]room
		want  string
	}{
		"good":                {map[string]room{"internal/energy": {why: "a reason"}}, ""},
		"row without package": {map[string]room{"internal/energy": {why: "a reason"}, "internal/gone": {why: "a reason"}}, "internal/gone has a row"},
		"row without reason":  {map[string]room{"internal/energy": {}}, "internal/energy: its row in rooms gives no reason"},
	} {
		t.Run(name, func(t *testing.T) { wantFault(t, tableFaults(tc.rooms, pkgs), tc.want) })
	}
}

func TestPackageFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		self          string
		imports, deps []string
		undocumented  bool
		want          string
	}{
		"good":                   {self: "internal/wire", imports: []string{"errors", module + "/internal/energy", "google.golang.org/protobuf/proto"}},
		"good command":           {self: "cmd/wattlet", imports: []string{"os", module + "/internal/meter"}},
		"pure may format":        {self: "internal/energy", imports: []string{"fmt", "time", "logic", "network"}},
		"agent may dial":         {self: "cmd/wattlet", deps: []string{"github.com/plgd-dev/go-coap/v3/tcp/client", module + "/internal/hubris"}},
		"not in the table":       {self: "internal/unheard", want: "internal/unheard is not in rooms"},
		"below one in the table": {self: "internal/energy/deep", want: "internal/energy/deep is not in rooms"},
		"sibling":                {self: "internal/meter", imports: []string{module + "/internal/metersim"}, want: "may not import internal/metersim: it knows one meter"},
		"upwards":                {self: "internal/energy", imports: []string{module + "/internal/wire"}, want: "may not import internal/wire"},
		"command of a command":   {self: "cmd/wattctl", imports: []string{module + "/cmd/wattlet/flags"}, want: "may not import cmd/wattlet/flags"},
		"no package comment":     {self: "internal/energy", undocumented: true, want: "internal/energy has no package comment"},
		"links testing":          {self: "internal/meter", deps: []string{"fmt", "testing"}, want: "internal/meter links the testing package"},
		"outside the standard":   {self: "internal/energy", imports: []string{"golang.org/x/exp/constraints"}, want: "only the standard library"},
		"pure opens files":       {self: "internal/energy", imports: []string{"os"}, want: "must stay pure, but imports os"},
		"pure speaks":            {self: "internal/energy", imports: []string{"net/http"}, want: "must stay pure, but imports net/http"},
		"pure logs":              {self: "internal/energy", imports: []string{"log/slog"}, want: "must stay pure, but imports log/slog"},
		"pure throws dice":       {self: "internal/energy", imports: []string{"math/rand/v2"}, want: "must stay pure, but imports math/rand/v2"},
		"agent links client-go":  {self: "cmd/wattlet", deps: []string{"k8s.io/client-go/rest"}, want: "must not link k8s.io/client-go/rest: tens of"},
		"agent links TCP":        {self: "cmd/wattlet", deps: []string{"github.com/plgd-dev/go-coap/v3/tcp"}, want: "must not link github.com/plgd-dev/go-coap/v3/tcp: "},
		"agent links the hub":    {self: "cmd/wattlet", deps: []string{module + "/internal/hub"}, want: "must not link"},
	} {
		t.Run(name, func(t *testing.T) {
			p := pkg{ImportPath: module + "/" + tc.self, Doc: "Package.", GoFiles: []string{"a.go"}, Imports: tc.imports, Deps: tc.deps}
			if tc.undocumented {
				p.Doc = ""
			}
			wantFault(t, packageFaults(p), tc.want)
		})
	}
}

func TestSourceFaults(t *testing.T) {
	for name, tc := range map[string]struct {
		self, file, src, want string
	}{
		"good":                {"internal/meter", "a.go", `package a; import "time"; func Run() { go f(); _ = time.Now() }`, ""},
		"method called init":  {"internal/meter", "a.go", `package a; func (t T) init() {}`, ""},
		"generated init":      {"internal/meter", "a.pb.go", "// Code generated by x. DO NOT EDIT.\n\npackage a; func init() {}", ""},
		"init":                {"internal/meter", "a.go", `package a; func init() {}`, "a.go:1:12: init runs before main"},
		"init of a test":      {"internal/meter", "a_test.go", `package a; func init() {}`, "a_test.go:1:12: init runs before main"},
		"go in a constructor": {"internal/meter", "a.go", `package a; func NewT() *T { t := &T{}; go t.f(); return t }`, "a.go:1:40: NewT starts a goroutine"},
		"Go in a constructor": {"internal/meter", "a.go", `package a; func OpenT() *T { var g sync.WaitGroup; g.Go(f); return nil }`, "OpenT starts a goroutine"},
		"go in a test's fake": {"internal/meter", "a_test.go", `package a; func newFake() { go f() }`, ""},
		"pure":                {"internal/energy", "a.go", `package a; import "time"; func F(t time.Time) { _ = t.Sub(t) + time.Second; t.Now() }`, ""},
		"pure with a clock":   {"internal/energy", "a.go", `package a; import "time"; var t = time.Now()`, "a.go:1:35: internal/energy must stay pure, but uses time.Now"},
		"clock as a value":    {"internal/energy", "a.go", `package a; import clk "time"; var now = clk.Now`, "must stay pure, but uses time.Now"},
		"hidden clock":        {"internal/energy", "a.go", `package a; import . "time"; var t = Now()`, "a dot import of time"},
		"pure that waits":     {"internal/energy", "a.go", `package a; import "time"; func F() { <-time.After(1) }`, "must stay pure, but uses time.After"},
		"test of pure":        {"internal/energy", "a_test.go", `package a; import "time"; var t = time.Now()`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			faults, err := sourceFaults(tc.self, tc.file, tc.src)
			if err != nil {
				t.Fatal(err)
			}
			wantFault(t, faults, tc.want)
		})
	}
}

// wantFault checks that there is exactly one fault and it contains want, or none if want is empty.
func wantFault(t *testing.T, faults []string, want string) {
	t.Helper()
	if want == "" && len(faults) > 0 || want != "" && (len(faults) != 1 || !strings.Contains(faults[0], want)) {
		t.Errorf("faults %q, want %q", faults, want)
	}
}
