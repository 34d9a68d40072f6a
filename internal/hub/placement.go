package hub

import (
	"context"
	_ "embed" // the description of the API
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/storage"
)

// Bounds of a placement query. It reads a day of two metrics, sample by sample, and keeps none of them: 50 million samples are
// what 2,800 nodes with 5 s between samples have in a day.
const (
	placementTimeout = 10 * time.Second
	placementSamples = 50_000_000
	placementsAtOnce = 2
	placementWindow  = 30 * time.Minute // by default
	placementDay     = 24 * time.Hour   // highest power and invocations are looked for
	maxName          = 253              // bytes of a function's or a namespace's name, as of Kubernetes
)

// placement answers where an invocation of a function costs how many joules, from the samples of a storage.
type placement struct {
	store   storage.Queryable
	now     func() time.Time
	slots   slots
	timeout time.Duration
	samples int // that a query may read

	mu  sync.Mutex
	day day
}

// day is the highest power of each node, W, in the day before at, in ms. It is good for a minute: to read a day's samples is half of
// a query's work, and a scheduler asks for one function after the other.
type day struct {
	at      int64
	highest map[nodeKey]float64
}

// known returns the highest powers of the day before a time, in ms, if they were read lately.
func (p *placement) known(end int64) map[nodeKey]float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if end < p.day.at || end-p.day.at > time.Minute.Milliseconds() {
		return nil
	}
	return maps.Clone(p.day.highest)
}

func (p *placement) keep(d day) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d.at > p.day.at && d.at <= p.now().UnixMilli() {
		p.day = d
	}
}

func newPlacement(store storage.Queryable) *placement {
	return &placement{store: store, now: time.Now, slots: make(slots, placementsAtOnce), timeout: placementTimeout, samples: placementSamples}
}

//go:embed placement.openapi.yaml
var placementOpenAPI []byte

// register adds the pages to those of a hub.
func (p *placement) register(mux *http.ServeMux) {
	mux.Handle("GET /api/v1/placement", p)
	mux.HandleFunc("GET /api/v1/placement.openapi.yaml", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(placementOpenAPI) // the reader went away
	})
}

// Placement is the answer to a placement query. Its JSON is described in placement.openapi.yaml, and docs/placement.md says how to
// read it.
type Placement struct {
	Format    string    `json:"format"` // "wattlet-placement/1"
	Time      time.Time `json:"time"`   // what is told is of then
	Function  string    `json:"function"`
	Namespace *string   `json:"namespace"` // null if any was asked for
	// Basis says of which time joules per invocation and cold starts are: "agent_start" or "window".
	Basis         string  `json:"basis"`
	WindowSeconds float64 `json:"window_seconds"`
	// FunctionKnown is false if no agent has told of the function in the window.
	FunctionKnown bool       `json:"function_known"`
	Estimates     []Estimate `json:"estimates"`
	Warnings      []string   `json:"warnings"`
}

// Estimate is what is known of the function on one node. A node that does not run it has null for what would be of the function.
type Estimate struct {
	Cluster             string         `json:"cluster"` // empty if series have no such label
	Node                string         `json:"node"`
	Namespace           *string        `json:"namespace"` // of the function
	JoulesPerInvocation *InvocationJ   `json:"joules_per_invocation"`
	Latency             *Latency       `json:"latency"`
	ColdStart           *ColdStart     `json:"cold_start"`
	BaseShare           *BaseShare     `json:"base_share_joules_per_invocation"`
	Power               NodePower      `json:"power"`
	Trust               EstimateTrust  `json:"trust"`
	Freshness           EstimateOfTime `json:"freshness"`
	// Agents is the number of targets that tell of the node at present; the figures are one's.
	Agents int `json:"agents"`
}

// InvocationJ is the mean active energy of an invocation with its 95 % interval, J. Bounds are null where none can be defended.
type InvocationJ struct {
	Mean   float64  `json:"mean"`
	Low95  *float64 `json:"low95"`
	High95 *float64 `json:"high95"`
	// From and To are the time it is of; From is null if the agent's start is not known.
	From *time.Time `json:"from"`
	To   time.Time  `json:"to"`
	// Invocations is how many of that time the hub knows of; AtLeast is true where there can be more.
	Invocations float64 `json:"invocations"`
	AtLeast     bool    `json:"invocations_at_least"`
}

// Latency are quantiles of the durations of successful requests in the window, in seconds.
type Latency struct {
	P50 float64 `json:"p50_seconds"`
	P95 float64 `json:"p95_seconds"`
	// BeyondBuckets is true if a quantile lies above the highest bucket's bound and is at least that.
	BeyondBuckets bool    `json:"beyond_buckets"`
	Requests      float64 `json:"requests"`
	Source        string  `json:"source"` // the histogram's name
	Scope         string  `json:"scope"`  // "node" or "cluster"
}

// ColdStart is the mean energy of a cold start, J, and of how many it is the mean.
type ColdStart struct {
	Mean   float64 `json:"mean_joules"`
	Number float64 `json:"cold_starts"`
}

// BaseShare is the energy of the idle board that falls upon an invocation in the window, J, by policy; null where there is none.
type BaseShare struct {
	Equal        *float64 `json:"equal"`
	Proportional *float64 `json:"proportional"`
	Requested    *float64 `json:"requested"`
}

// NodePower is what the node draws now and may draw, W.
type NodePower struct {
	Now         *float64 `json:"now_watts"`
	Limit       *float64 `json:"limit_watts"`
	LimitSource *string  `json:"limit_source"` // "label" or "observed_24h"
	Headroom    *float64 `json:"headroom_watts"`
}

// EstimateTrust says what is known against the figures.
type EstimateTrust struct {
	// Trustworthy is true if there is an interval, the estimate is not stale, neither prior-dominated nor collinear, and the meter
	// is up.
	Trustworthy    bool  `json:"trustworthy"`
	PriorDominated *bool `json:"prior_dominated"`
	Collinear      *bool `json:"collinear"`
	MeterUp        *bool `json:"meter_up"`
	// Estimated is true if energy is charge times an assumed voltage.
	Estimated *bool `json:"energy_estimated"`
}

// EstimateOfTime says how old the newest sample of the estimate is, or of the node if it does not run the function.
type EstimateOfTime struct {
	Newest time.Time `json:"newest_sample_time"`
	Age    float64   `json:"age_seconds"`
	// Stale is true if the series has ended, as when the agent cannot be reached, or has had no sample for five minutes.
	Stale bool `json:"stale"`
}

// placementQuery is what was asked.
type placementQuery struct {
	function, namespace string
	any                 bool // namespace
	at                  time.Time
	window              time.Duration
	windowed            bool // it was asked for
}

// parsePlacement checks a query's parameters.
func parsePlacement(values url.Values, now time.Time) (placementQuery, error) {
	q := placementQuery{at: now, window: placementWindow, any: true}
	for name, v := range values {
		if len(v) > 1 {
			return q, fmt.Errorf("parameter %q is given %d times", name, len(v))
		}
		var err error
		switch text := v[0]; name {
		case "function":
			q.function, err = text, checkName(text)
		case "namespace":
			q.namespace, q.any, err = text, false, checkName(text)
		case "time":
			q.at, err = parseTime(text)
		case "window":
			var d model.Duration
			d, err = model.ParseDuration(text)
			q.window, q.windowed = time.Duration(d), true
			if err == nil && (q.window < time.Minute || q.window > placementDay) {
				err = fmt.Errorf("%s is not between 1m and 24h", text)
			}
		default:
			err = errors.New("there is none of that name; there are function, namespace, time and window")
		}
		if err != nil {
			return q, fmt.Errorf("invalid parameter %q: %w", name, err)
		}
	}
	if q.function == "" {
		return q, errors.New(`parameter "function" is missing; as ?function=gzip`)
	}
	return q, nil
}

func checkName(text string) error {
	switch {
	case text == "":
		return errors.New("it is empty")
	case len(text) > maxName || !utf8.ValidString(text):
		return fmt.Errorf("a name is at most %d bytes of UTF-8", maxName)
	}
	return nil
}

// parseTime reads a time as Prometheus's API takes it: RFC 3339, or seconds of Unix time.
func parseTime(text string) (time.Time, error) {
	if s, err := strconv.ParseFloat(text, 64); err == nil && s >= 0 && s <= 253402300799 { // the last of year 9999
		whole, part := math.Modf(s)
		return time.Unix(int64(whole), int64(math.Round(part*1e3))*1e6), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil && t.Unix() >= 0 {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%.40q is no time; as 2006-01-02T15:04:05Z or in seconds since 1970", text)
}

// ServeHTTP answers a query. Errors have the shape and the codes of Prometheus's API.
func (p *placement) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, kind string, err error) {
		respond(w, status, map[string]string{"status": "error", "errorType": kind, "error": err.Error()})
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		fail(http.StatusBadRequest, "bad_data", err)
		return
	}
	q, err := parsePlacement(values, p.now())
	if err != nil {
		fail(http.StatusBadRequest, "bad_data", err)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.timeout)
	defer cancel()
	answer, err := p.query(ctx, q)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		fail(http.StatusServiceUnavailable, "timeout", fmt.Errorf("no answer within %v; ask for a shorter window, or later", p.timeout))
	case errors.Is(err, errTooMany):
		fail(http.StatusUnprocessableEntity, "execution", err)
	case err != nil:
		fail(http.StatusInternalServerError, "internal", err)
	default:
		respond(w, http.StatusOK, answer)
	}
}

func respond(w http.ResponseWriter, status int, what any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(what) // the reader went away
}

// query reads what is needed and makes the answer of it.
func (p *placement) query(ctx context.Context, q placementQuery) (*Placement, error) {
	slot, err := p.slots.Insert(ctx, "")
	if err != nil {
		return nil, err
	}
	defer p.slots.Delete(slot)
	end := q.at.UnixMilli()
	known := p.known(end)
	r, err := readPlacement(ctx, p.store, q, known, p.samples)
	if err != nil {
		return nil, err
	}
	if known == nil {
		p.keep(day{end, r.highest})
	}
	return r.answer(), nil
}
