package hub

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// exampleStore is what the example of docs/placement.md is of: function resize on two boards of a cluster in Munich and one in
// Garching, where another could run it.
func exampleStore() string {
	board := func(cluster, node, more string) string {
		return labelled("wattlet_node_info{meter=\"bench\",estimated=\"false\"} 1x240\nwattlet_meter_up{meter=\"bench\"} 1x240\n"+
			fmt.Sprintf("process_start_time_seconds %dx240\n", placementStart.Unix()-20)+more,
			fmt.Sprintf(`cluster=%q,instance=%q,job="wattlet"%s`, cluster, node, map[string]string{
				"jetson-nano": `,power_limit_watts="10"`, "raspberrypi": `,power_limit_watts="6"`, "odroid": `,power_limit_watts="20"`,
			}[node]), fmt.Sprintf(`node=%q`, node))
	}
	function := func(perStep int, mean, low, high, coldStart, equal float64, prior int) string {
		return fmt.Sprintf(`wattlet_function_invocations_total 0+%dx240
			wattlet_function_joules_per_invocation{bound="mean"} %vx240
			wattlet_function_joules_per_invocation{bound="low"} %vx240
			wattlet_function_joules_per_invocation{bound="high"} %vx240
			wattlet_function_coldstart_joules_total %vx240
			wattlet_function_cold_starts_total 2x240
			wattlet_function_base_share_joules_total{policy="equal"} 0+%vx240
			wattlet_function_base_share_joules_total{policy="proportional"} 0+%vx240
			wattlet_function_prior_dominated %dx240
			wattlet_function_collinear 0x240
			`, perStep, mean, low, high, 2*coldStart, equal*float64(perStep), equal/2*float64(perStep), prior)
	}
	latencies := func(series string, counts ...int) (text string) {
		for i, le := range []string{"0.125", "0.25", "0.5", "1", "+Inf"} {
			text += fmt.Sprintf("%s,le=%q} 0+%dx240\n", series, le, counts[i])
		}
		return text
	}
	watchdog := func(node string) string {
		return fmt.Sprintf(`http_request_duration_seconds_bucket{cluster="munich",node=%q,namespace="openfaas-fn",function="resize",code="200"`, node)
	}
	return board("munich", "jetson-nano", "wattlet_node_power_watts 4.5x240\n"+function(16, 0.5, 0.46875, 0.53125, 6, 0.25, 0)) +
		board("munich", "raspberrypi", "wattlet_node_power_watts 4.5x240\n"+function(8, 0.75, 0.6875, 0.8125, 4, 0.5, 0)) +
		board("garching", "odroid", "wattlet_node_power_watts 5x240\n"+function(4, 0.4375, 0.25, 0.625, 8, 0.75, 1)) +
		board("garching", "coral", "wattlet_node_power_watts 3x120 7 3x119\n") +
		latencies(watchdog("jetson-nano"), 8, 14, 16, 16, 16) +
		latencies(watchdog("raspberrypi"), 0, 4, 7, 8, 8) +
		latencies(`gateway_functions_seconds_bucket{cluster="garching",function_name="resize.openfaas-fn",code="200"`, 2, 3, 4, 4, 4)
}

// TestPlacementDocs compares the example of docs/placement.md with what the page says of exampleStore. Quantiles by hand, of half an hour, 60
// steps: the Jetson's 95 % are 912 of 960 requests, 72 of the 120 from 0.25 to 0.5 s; the Pi's 456 of 480, 36 of the 60 from 0.5 to 1 s; those of
// the Odroid's gateway 228 of 240, 48 of the 60 from 0.25 to 0.5 s.
func TestPlacementDocs(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/placement.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(page), "```json\n")
	example, _, ok := strings.Cut(example, "```")
	if !ok {
		t.Fatal("docs/placement.md has no example in ```json")
	}
	p := newPlacement(madeUp(t, strings.ReplaceAll(exampleStore(), `function="gzip"`, `function="resize"`)))
	p.now = func() time.Time { return placementNow.Add(3 * time.Second) }
	w := askPlacement(t, p, "function=resize")
	checkAgainstDescription(t, w.Body.Bytes())
	var got bytes.Buffer
	if err := json.Indent(&got, w.Body.Bytes(), "", "  "); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, err)
	}
	var want, is any
	if err := json.Unmarshal([]byte(example), &want); err != nil {
		t.Errorf("the example is no JSON: %v", err)
	}
	if err := json.Unmarshal(got.Bytes(), &is); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(is) != fmt.Sprint(want) { // maps are printed sorted
		t.Errorf("the example is not what the page says:\n%s", got.String())
	}
}
