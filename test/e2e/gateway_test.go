package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	functionNamespace = "openfaas-fn"
	gatewayURL        = "http://" + nodeIP + ":8080"
	gatewayMetrics    = "http://" + nodeIP + ":8082/metrics"
)

// gateway is a double of OpenFaaS's: routes, metrics and waking from zero as those are seen from outside, and nothing else of it.
type gateway struct {
	c *cluster

	total, begin *prometheus.CounterVec
	count        *prometheus.GaugeVec
	seconds      *prometheus.HistogramVec

	mu    sync.Mutex
	known map[string]known // by function
	turn  int
}

// known is what the gateway last heard of a function.
type known struct {
	at        time.Time
	addresses []string
}

// startGateway serves until the test ends.
func startGateway(tb testing.TB, c *cluster) {
	tb.Helper()
	g := &gateway{
		c: c, known: map[string]known{},
		total:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_function_invocation_total", Help: "Answers."}, []string{"function_name", "code"}),
		begin:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "gateway_function_invocation_started", Help: "Calls."}, []string{"function_name"}),
		count:   prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "gateway_service_count", Help: "Replicas."}, []string{"function_name"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "gateway_functions_seconds", Help: "Durations."}, []string{"function_name", "code"}),
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(g.total, g.begin, g.count, g.seconds)
	mux := http.NewServeMux()
	mux.HandleFunc("/function/{name}", g.function)
	mux.HandleFunc("/function/{name}/{rest...}", g.function)
	mux.HandleFunc("GET /system/functions", g.list)
	mux.HandleFunc("POST /system/scale-function/{name}", g.scaleFunction)
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	pages := http.NewServeMux()
	pages.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))

	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // that one ends before what cleanups end
	var wg sync.WaitGroup
	for port, h := range map[string]http.Handler{"8080": mux, "8082": pages} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", nodeIP+":"+port)
		if err != nil {
			tb.Fatal(err)
		}
		s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
		wg.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				tb.Error(err)
			}
		})
		tb.Cleanup(func() { _ = s.Close() })
	}
	wg.Go(func() {
		tick := time.NewTicker(time.Second) // the real one's is 5 s
		defer tick.Stop()
		for ctx.Err() == nil {
			g.countReplicas(ctx)
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
	tb.Cleanup(cancel)
}

// deployment is what is read of a function's.
type deployment struct {
	Metadata struct{ Name string }
	Spec     struct{ Replicas int }
	Status   struct{ ReadyReplicas, Replicas int }
}

func (g *gateway) deployments(ctx context.Context) ([]deployment, error) {
	b, err := g.c.api(ctx, http.MethodGet, "/apis/apps/v1/namespaces/"+functionNamespace+"/deployments", "", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []deployment }
	err = json.Unmarshal(b, &list)
	return list.Items, err
}

func (g *gateway) countReplicas(ctx context.Context) {
	list, err := g.deployments(ctx)
	if err != nil {
		return // while the API server is away the last count stays
	}
	for _, d := range list {
		g.count.WithLabelValues(d.Metadata.Name + "." + functionNamespace).Set(float64(d.Spec.Replicas))
	}
}

// addresses returns where a function is ready; the last known while the API server is away.
func (g *gateway) addresses(ctx context.Context, name string, fresh bool) []string {
	g.mu.Lock()
	k := g.known[name]
	g.mu.Unlock()
	if !fresh && len(k.addresses) > 0 && time.Since(k.at) < 500*time.Millisecond {
		return k.addresses
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	pods, err := g.c.pods(ctx, "faas_function="+name)
	if err != nil {
		return k.addresses
	}
	k = known{at: time.Now()}
	for _, p := range pods {
		if p.ready() {
			k.addresses = append(k.addresses, p.Status.PodIP)
		}
	}
	g.mu.Lock()
	g.known[name] = k
	g.mu.Unlock()
	return k.addresses
}

func (g *gateway) scale(ctx context.Context, name string, replicas int) error {
	_, err := g.c.api(ctx, http.MethodPatch, "/apis/apps/v1/namespaces/"+functionNamespace+"/deployments/"+name+"/scale",
		"application/merge-patch+json", fmt.Appendf(nil, `{"spec": {"replicas": %d}}`, replicas))
	return err
}

// wake scales a function from zero and waits for its first pod.
func (g *gateway) wake(ctx context.Context, name string) []string {
	list, err := g.deployments(ctx)
	if err != nil {
		return nil
	}
	for _, d := range list {
		if d.Metadata.Name != name {
			continue
		}
		if d.Spec.Replicas == 0 && g.scale(ctx, name, 1) != nil {
			return nil
		}
		for ctx.Err() == nil {
			if a := g.addresses(ctx, name, true); len(a) > 0 {
				return a
			}
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// function passes a call on. Calls that fail are counted too, even those of functions that do not exist.
func (g *gateway) function(w http.ResponseWriter, r *http.Request) {
	name, _, _ := strings.Cut(r.PathValue("name"), ".")
	full := name + "." + functionNamespace
	begin := time.Now()
	g.begin.WithLabelValues(full).Inc()
	code := g.pass(w, r, name)
	g.total.WithLabelValues(full, strconv.Itoa(code)).Inc()
	g.seconds.WithLabelValues(full, strconv.Itoa(code)).Observe(time.Since(begin).Seconds())
}

func (g *gateway) pass(w http.ResponseWriter, r *http.Request, name string) (code int) {
	fail := func(code int, err error) int {
		http.Error(w, err.Error(), code)
		return code
	}
	addresses := g.addresses(r.Context(), name, false)
	if len(addresses) == 0 {
		if addresses = g.wake(r.Context(), name); len(addresses) == 0 {
			return fail(http.StatusServiceUnavailable, fmt.Errorf("no endpoint of %s", name))
		}
	}
	g.mu.Lock()
	g.turn++
	address := addresses[g.turn%len(addresses)]
	g.mu.Unlock()
	url := "http://" + address + ":8080/" + r.PathValue("rest")
	if r.URL.RawQuery != "" {
		url += "?" + r.URL.RawQuery
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, url, r.Body)
	if err != nil {
		return fail(http.StatusInternalServerError, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fail(http.StatusBadGateway, err)
	}
	defer resp.Body.Close()
	w.Header().Set("X-Call-Id", newUID())
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the caller sees what is missing
	return resp.StatusCode
}

func (g *gateway) list(w http.ResponseWriter, r *http.Request) {
	list, err := g.deployments(r.Context())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	out := []map[string]any{}
	for _, d := range list {
		out = append(out, map[string]any{
			"name": d.Metadata.Name, "namespace": functionNamespace, "replicas": d.Spec.Replicas, "availableReplicas": d.Status.ReadyReplicas,
		})
	}
	_ = json.NewEncoder(w).Encode(out) // the caller sees what is missing
}

func (g *gateway) scaleFunction(w http.ResponseWriter, r *http.Request) {
	var body struct{ Replicas int }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := g.scale(r.Context(), r.PathValue("name"), body.Replicas); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusAccepted)
}
