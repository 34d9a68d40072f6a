package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wattlet/wattlet/internal/metersim"
)

// agentURL is where an agent is that runs beside the tests; that of a pod has the pod's address.
const agentURL = "http://127.0.0.1:9780"

var meterKey = []byte("0123456789abcdef0123456789abcdef")

// startMeter runs a meter whose first channel measures the node.
func startMeter(tb testing.TB, address string, t *truth) *metersim.Sim {
	tb.Helper()
	sim, err := metersim.Listen(metersim.Options{
		Addr: address, PSK: metersim.OneKey("wattlet", meterKey),
		// A shunt of 10 mΩ: the node may draw more than a small one can show. An ideal sensor: what is tested is who gets which part.
		Channels: []metersim.Channel{{Number: 1, Name: nodeName, Load: t, Ideal: true, ShuntUohm: 10_000}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // that one ends before what cleanups end
	done := make(chan error, 1)
	go func() { done <- sim.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, t.err()); err != nil {
			tb.Error(err)
		}
	})
	return sim
}

// startAgent runs the agent against a meter.
func startAgent(tb testing.TB, meter *metersim.Sim, t *truth, args ...string) *process {
	tb.Helper()
	t.serveStat(tb, work("proc"), ownGroup+"/wattlet")
	if err := errors.Join(os.WriteFile(work("psk"), meterKey, 0o600), os.MkdirAll(work("state"), 0o700)); err != nil {
		tb.Fatal(err)
	}
	p := start(tb, "wattlet", setting("WATTLET_BIN", repository("bin", "wattlet")), append([]string{
		"--node=" + nodeName, "--meter.url=" + meter.URL(), "--meter.psk-identity=wattlet", "--meter.psk-file=" + work("psk"), "--meter.channel=1",
		"--state.directory=" + work("state"), "--path.proc=" + work("proc"),
	}, args...)...)
	eventually(tb, "the agent is ready", func() error {
		_, err := call(tb.Context(), agentURL+"/readyz", nil)
		return err
	})
	return p
}

// snapshot is what is read of the agent's.
type snapshot struct {
	Nodes []struct {
		EnergyUJ    *int64 `json:"energy_uj"`
		MeasuredUJ  *int64 `json:"measured_uj"`
		SourceEpoch uint64 `json:"source_epoch"`
		SourceAtUs  int64  `json:"source_at_us"`
		Attribution *struct {
			BaseUJ      int64             `json:"base_uj"`
			DepartedUJ  int64             `json:"departed_uj"`
			InvariantUJ int64             `json:"invariant_uj"`
			Workloads   []workloadAccount `json:"workloads"`
			Functions   []functionAccount `json:"functions"`
		} `json:"attribution"`
	} `json:"nodes"`
}

type workloadAccount struct {
	Kind, Namespace, Name string
	EnergyUJ              int64 `json:"energy_uj"`
	ColdStartUJ           int64 `json:"coldstart_uj"`
}

type functionAccount struct {
	Namespace, Function string
	EnergyUJ            int64   `json:"energy_uj"`
	ColdStartUJ         int64   `json:"coldstart_uj"`
	ColdStarts          uint64  `json:"cold_starts"`
	StdDevUJ            int64   `json:"stddev_uj"`
	Invocations         float64 `json:"invocations"`
	WattsPerCore        float64 `json:"watts_per_core"`
}

// joules is all that a function has cost.
func (f functionAccount) joules() float64 { return float64(f.EnergyUJ+f.ColdStartUJ) / 1e6 }

func readSnapshot(ctx context.Context, agent string) (s snapshot, err error) {
	b, err := call(ctx, agent+"/api/v1/snapshot", nil)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, err
	}
	if len(s.Nodes) != 1 {
		return s, fmt.Errorf("%d nodes in the snapshot", len(s.Nodes))
	}
	return s, nil
}

// functions returns the accounts by function.
func (s snapshot) functions() map[string]functionAccount {
	out := map[string]functionAccount{}
	if a := s.Nodes[0].Attribution; a != nil {
		for _, f := range a.Functions {
			out[f.Function] = f
		}
	}
	return out
}

// metrics returns the samples of a page of metrics by their name with labels as written.
func metrics(ctx context.Context, url string) (map[string]string, error) {
	b, err := call(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if i := strings.LastIndexByte(line, ' '); i > 0 && !strings.HasPrefix(line, "#") {
			out[line[:i]] = line[i+1:]
		}
	}
	return out, nil
}

// settled waits until the agent's accounts have all that happened before now on the meter's clock, and a time more in which they
// are corrected.
func settled(tb testing.TB, agent string, meter *metersim.Sim, more time.Duration) snapshot {
	tb.Helper()
	until := meter.Now() + more
	var s snapshot
	eventually(tb, "the agent's accounts are up to date", func() (err error) {
		if s, err = readSnapshot(tb.Context(), agent); err != nil {
			return err
		}
		if at := time.Duration(s.Nodes[0].SourceAtUs) * time.Microsecond; at < until {
			return fmt.Errorf("they stand at %v, wanted are %v", at, until)
		}
		return nil
	})
	return s
}
