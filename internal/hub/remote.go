package hub

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	commonconfig "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"go.yaml.in/yaml/v3"
)

// RemoteWrite is another store that gets the samples.
type RemoteWrite struct {
	// URL takes Prometheus's remote write, as http://10.0.0.2:8428/api/v1/write. It has no user: RemoteWriteFile is for those.
	URL string
	// Protocol is "1.0", which is the default, or "2.0".
	Protocol string
	// NativeHistograms are sent with 2.0, of which they are a part, and if this is true with 1.0: a receiver that does not know
	// them may drop them, or answer so that the queue tries for ever.
	NativeHistograms bool
}

const (
	flushDeadline = 5 * time.Second // what a receiver gets at the end of a hub to take what waits
	remoteLook    = time.Second     // between two looks at the queues
)

// remoteConfigs returns the queues of cfg, as Prometheus wants them.
func remoteConfigs(cfg Config) ([]*config.RemoteWriteConfig, error) {
	var all []*config.RemoteWriteConfig
	for _, w := range cfg.RemoteWrite {
		one, err := remoteConfig(w)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	if file := cfg.RemoteWriteFile; file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("remote write: %w", err)
		}
		listed, err := parseRemoteWrite(text)
		if err != nil {
			return nil, fmt.Errorf("remote write: %s: %w", file, err)
		}
		for _, one := range listed {
			one.SetDirectory(filepath.Dir(file))
		}
		all = append(all, listed...)
	}
	names, same := map[string]bool{}, map[string]bool{}
	for _, one := range all {
		text, err := yaml.Marshal(one)
		if err != nil {
			return nil, fmt.Errorf("remote write to %s: %w", one.URL.Redacted(), err)
		}
		if same[string(text)] || one.Name != "" && names[one.Name] {
			return nil, fmt.Errorf("remote write to %s: it is there twice, or its name is", one.URL.Redacted())
		}
		same[string(text)], names[one.Name] = true, true
		// What the queue will do later: files that are missing shall be known now.
		if _, err := remote.NewWriteClient("check", &remote.ClientConfig{URL: one.URL, HTTPClientConfig: one.HTTPClientConfig}); err != nil {
			return nil, fmt.Errorf("remote write to %s: %w", one.URL.Redacted(), err)
		}
		if auth := one.HTTPClientConfig.BasicAuth; auth != nil && auth.PasswordFile != "" {
			if _, err := os.Stat(auth.PasswordFile); err != nil { //nolint:gosec // who starts the hub names the file
				return nil, fmt.Errorf("remote write to %s: %w", one.URL.Redacted(), err)
			}
		}
	}
	return all, nil
}

// remoteConfig returns the queue to a receiver of which no more is known than its URL.
func remoteConfig(w RemoteWrite) (*config.RemoteWriteConfig, error) {
	u, err := plainURL(w.URL)
	if err != nil {
		return nil, fmt.Errorf("remote write: %w; as http://10.0.0.2:8428/api/v1/write, a password only in the file for remote write", err)
	}
	one := config.DefaultRemoteWriteConfig
	one.URL = &commonconfig.URL{URL: u}
	// A receiver that has too much to do is no reason to lose samples. The rest is a quarter of the usual: a queue of a hub takes 3 MB.
	one.QueueConfig.RetryOnRateLimit = true
	one.QueueConfig.MaxShards, one.QueueConfig.Capacity, one.QueueConfig.MaxSamplesPerSend = 8, 2500, 500
	switch cmp.Or(w.Protocol, "1.0") {
	case "1.0":
		one.ProtobufMessage, one.SendNativeHistograms, one.SendExemplars = remoteapi.WriteV1MessageType, w.NativeHistograms, true
	case "2.0":
		// Without exemplars: the queue sends those as series of their own, which receivers refuse.
		one.ProtobufMessage, one.SendNativeHistograms = remoteapi.WriteV2MessageType, true
	default:
		return nil, fmt.Errorf("remote write: there is no protocol %q, only 1.0 and 2.0", w.Protocol)
	}
	return &one, nil
}

func isProtocol2(one *config.RemoteWriteConfig) bool {
	return one.ProtobufMessage == remoteapi.WriteV2MessageType
}

// plainURL parses an http URL of a host, without a user.
func plainURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("not a URL: %w", errors.Unwrap(err)) // which would have the password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" {
		return nil, fmt.Errorf("%q is not an http URL of a host without a user", u.Redacted())
	}
	return u, nil
}

// parseRemoteWrite reads a list as of Prometheus's remote_write section; an error names the line where one can be told.
func parseRemoteWrite(text []byte) ([]*config.RemoteWriteConfig, error) {
	var all []*config.RemoteWriteConfig
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&all); err != nil && !errors.Is(err, io.EOF) {
		return nil, errors.New(strings.Join(strings.Fields(err.Error()), " ")) // its lines on one
	}
	if len(all) == 0 {
		return nil, errors.New("it has no list of receivers, as - url: http://10.0.0.2:8428/api/v1/write")
	}
	for i, one := range all {
		if one == nil || one.URL == nil {
			return nil, fmt.Errorf("receiver %d is empty", i+1)
		}
		if _, err := plainURL(one.URL.String()); err != nil {
			return nil, fmt.Errorf("receiver %d: %w; the user goes into basic_auth", i+1, err)
		}
		if err := one.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("receiver %d: %w", i+1, err)
		}
	}
	return all, nil
}

// externalLabels checks the labels that tell this hub's samples from others'.
func externalLabels(all map[string]string) (labels.Labels, error) {
	for name, value := range all {
		if !model.LegacyValidation.IsValidLabelName(name) || strings.HasPrefix(name, "__") || !model.LabelValue(value).IsValid() || value == "" {
			return labels.EmptyLabels(), fmt.Errorf("%s=%q cannot be an external label", name, value)
		}
	}
	return labels.FromMap(all), nil
}

// remoteWriter sends what the write-ahead log gets to other stores, and tells how that goes. It implements storage.Storage, of which
// queries find nothing.
type remoteWriter struct {
	*remote.WriteStorage

	reg     *prometheus.Registry // of the queues alone, so that a look at them is cheap
	log     *slog.Logger
	reasons *reasons
	up      *prometheus.GaugeVec
	queues  map[queueID]*queueState
	once    sync.Once
	closed  error
}

// newRemoteWriter returns a writer whose queues begin to run with ApplyConfig. Its Close stops them.
func newRemoteWriter(cfg Config, reg prometheus.Registerer, scraper remote.ReadyScrapeManager) (*remoteWriter, error) {
	w := &remoteWriter{
		reg: prometheus.NewRegistry(), log: cfg.Logger, reasons: &reasons{said: &said{last: map[string]string{}}},
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "wattlet_hub_remote_write_up",
			Help: "1 while the receiver takes all it is sent, else 0; missing before anything was sent.",
		}, []string{"remote_name", "url"}),
		queues: map[queueID]*queueState{},
	}
	if err := errors.Join(reg.Register(w.reg), reg.Register(w.up)); err != nil {
		return nil, fmt.Errorf("remote write: %w", err)
	}
	w.WriteStorage = remote.NewWriteStorage(slog.New(w.reasons), keeping{w.reg}, cfg.Dir, flushDeadline, scraper, false)
	return w, nil
}

// keeping is a registry that knows the queues' counts also when they have ended.
type keeping struct{ *prometheus.Registry }

// Unregister implements prometheus.Registerer.
func (keeping) Unregister(prometheus.Collector) bool { return true }

// Querier implements storage.Storage.
func (*remoteWriter) Querier(_, _ int64) (storage.Querier, error) { return storage.NoopQuerier(), nil }

// ChunkQuerier implements storage.Storage.
func (*remoteWriter) ChunkQuerier(_, _ int64) (storage.ChunkQuerier, error) {
	return storage.NoopChunkedQuerier(), nil
}

// StartTime implements storage.Storage.
func (*remoteWriter) StartTime() (int64, error) { return math.MaxInt64, nil }

// Close sends what was written, for as long as flushDeadline allows. Nothing may be written any more. It is as often as one likes.
func (w *remoteWriter) Close() error {
	w.once.Do(func() {
		w.drain()
		before := w.counts()
		w.closed = w.WriteStorage.Close()
		for id, after := range w.counts() {
			if n := after.refused - before[id].refused; n > 0 {
				w.log.Error("remote write: the hub ends before the receiver took these samples, which it will never get",
					"url", id.url, "at_least", n)
			}
		}
	})
	return w.closed
}

// drain waits until the queues have read what was written last, unless they have no room for it.
func (w *remoteWriter) drain() {
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	before := -1.0
	for range 50 {
		w.Notify()
		<-poll.C
		read := 0.0
		families, _ := w.reg.Gather() // those that could be gathered
		for _, f := range families {
			if f.GetName() == "prometheus_wal_watcher_records_read_total" {
				for _, m := range f.GetMetric() {
					read += m.GetCounter().GetValue()
				}
			}
		}
		if read == before {
			return
		}
		before = read
	}
}

// run tells when a receiver begins or ceases to take samples, until ctx ends.
func (w *remoteWriter) run(ctx context.Context) error {
	tick := time.NewTicker(remoteLook)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			w.look(now)
		case <-ctx.Done():
			return nil
		}
	}
}

// queueID tells a queue from others.
type queueID struct{ name, url string }

// queueCounts are what a queue has counted since it began.
type queueCounts struct {
	refused, retried float64 // samples and native histograms
	sent             float64 // Unix time of the newest that was sent, be it taken or refused
}

// counts returns what the queues have counted.
func (w *remoteWriter) counts() map[queueID]queueCounts {
	families, _ := w.reg.Gather() // those that could be gathered
	all := map[queueID]queueCounts{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var id queueID
			for _, l := range m.GetLabel() {
				switch l.GetName() {
				case "remote_name":
					id.name = l.GetValue()
				case "url":
					id.url = l.GetValue()
				}
			}
			c := all[id]
			switch f.GetName() {
			case "prometheus_remote_storage_samples_failed_total", "prometheus_remote_storage_histograms_failed_total":
				c.refused += m.GetCounter().GetValue()
			case "prometheus_remote_storage_samples_retried_total", "prometheus_remote_storage_histograms_retried_total":
				c.retried += m.GetCounter().GetValue()
			case "prometheus_remote_storage_queue_highest_sent_timestamp_seconds":
				c.sent = m.GetGauge().GetValue()
			default:
				continue
			}
			all[id] = c
		}
	}
	return all
}

// look compares all queues with how they were.
func (w *remoteWriter) look(now time.Time) {
	for id, counts := range w.counts() {
		q := w.queues[id]
		if q == nil {
			q = new(queueState)
			w.queues[id] = q
		}
		q.see(counts, now)
		why := w.reasons.of(id.name)
		if q.how == q.told {
			continue
		}
		if q.how != queueWell && why == "" && !q.waited { // it is counted first and explained a moment later
			q.waited = true
			continue
		}
		w.up.WithLabelValues(id.name, id.url).Set(map[queueHow]float64{queueWell: 1}[q.how])
		switch q.how {
		case queueAway:
			w.log.Warn("remote write: the receiver does not take samples, they wait in the write-ahead log", "url", id.url, "err", why)
		case queueRefused:
			w.log.Error("remote write: the receiver refuses samples, those are lost to it", "url", id.url, "err", why)
		case queueWell:
			if q.told != queueNew {
				w.log.Info("remote write: the receiver takes samples again", "url", id.url)
			}
		case queueNew: // it never comes back
		}
		q.told = q.how
	}
}

// queueHow is how it goes with a queue.
type queueHow int

const (
	queueNew     queueHow = iota // nothing was sent yet
	queueWell                    // all is taken
	queueAway                    // the receiver does not answer, or says that it cannot now
	queueRefused                 // the receiver answers, and does not take
)

// refusedFor is how long nothing may be refused until a queue is well again: one bad sample among many is no news each time.
const refusedFor = time.Minute

// queueState is what is known of a queue.
type queueState struct {
	how  queueHow
	told queueHow // of which log and metric know
	last queueCounts
	bad  time.Time // when something was last refused
	good int       // looks in sequence that saw samples being sent and nothing amiss

	waited bool // for a reason
}

// see takes note of a queue's counts.
func (q *queueState) see(c queueCounts, now time.Time) {
	was := q.last
	q.last = c
	switch {
	case c.refused > was.refused:
		q.how, q.bad, q.good = queueRefused, now, 0
	case c.retried > was.retried:
		q.good = 0
		if q.how != queueRefused || now.Sub(q.bad) >= refusedFor {
			q.how = queueAway
		}
	case c.sent > was.sent:
		// A batch that is refused counts as sent for a moment: two looks.
		if q.good++; q.good >= 2 && (q.how != queueRefused || now.Sub(q.bad) >= refusedFor) {
			q.how = queueWell
		}
	}
}

// reasons is the log of the queues. It keeps why sending failed last, by queue: they would tell each time.
type reasons struct {
	*said

	queue string
}

// said is what all queues have said.
type said struct {
	mu   sync.Mutex
	last map[string]string
}

// Enabled implements slog.Handler.
func (*reasons) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (r *reasons) Handle(_ context.Context, record slog.Record) error {
	var why string
	if record.Level >= slog.LevelError {
		why = record.Message
	}
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == "err" {
			why = a.Value.String()
		}
		return true
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if why != "" {
		r.last[r.queue] = strings.Join(strings.Fields(why), " ")
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (r *reasons) WithAttrs(attrs []slog.Attr) slog.Handler {
	queue := r.queue
	for _, a := range attrs {
		if a.Key == "remote_name" {
			queue = a.Value.String()
		}
	}
	return &reasons{r.said, queue}
}

// WithGroup implements slog.Handler.
func (r *reasons) WithGroup(string) slog.Handler { return r }

// of returns why a queue failed last.
func (r *reasons) of(queue string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[queue]
}

// scraperOf lets a queue ask the hub's scraper for metadata.
type scraperOf struct{ hub *Hub }

// Get implements remote.ReadyScrapeManager.
func (s scraperOf) Get() (*scrape.Manager, error) { return s.hub.scraper, nil }
