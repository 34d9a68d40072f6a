package hub

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/klauspost/compress/snappy"
	remoteapi "github.com/prometheus/client_golang/exp/api/remote"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/storage/remote"
)

// Bounds of what others push. Prometheus sends 2000 samples at once, which are 50 kB, and 600 kB unpacked.
const (
	receiveBytes    = 2 << 20
	receiveUnpacked = 8 << 20
	receiveAtOnce   = 8
	receiveTimeout  = 10 * time.Second // of the body
	// receiveLate is how old a sample may be that comes after newer ones: a queue that could not send for long is late.
	receiveLate = 3 * time.Hour
)

// newReceiver takes samples from agents that push: remote write 1.0 and 2.0.
func (h *Hub) newReceiver(reg prometheus.Registerer) (http.Handler, error) {
	if !h.cfg.Receive {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "this hub receives nothing: start it with --receive", http.StatusNotFound)
		}), nil
	}
	requests := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "wattlet_hub_receive_requests_total", Help: "Requests of those that push samples, by the status they were answered with.",
	}, []string{"code"})
	if err := reg.Register(requests); err != nil {
		return nil, err
	}
	// What is wrong with a request is in its answer; its sender would fill our log.
	write := remote.NewWriteHandler(slog.New(slog.DiscardHandler), reg, h.samples,
		remoteapi.MessageTypes{remoteapi.WriteV1MessageType, remoteapi.WriteV2MessageType}, false, false)
	return promhttp.InstrumentHandlerCounter(requests, bounded(write)), nil
}

// bounded hands requests to next whose bodies are complete and of bearable size when unpacked, few at once.
func bounded(next http.Handler) http.Handler {
	places := make(chan struct{}, receiveAtOnce)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many others push at this moment", http.StatusServiceUnavailable)
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(receiveTimeout)) // a writer of tests has none
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, receiveBytes))
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			http.Error(w, "more than 2 MiB at once", http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if n, err := snappy.DecodedLen(body); err == nil && n > receiveUnpacked {
			http.Error(w, "more than 8 MiB at once, unpacked", http.StatusRequestEntityTooLarge)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(w, r)
	})
}
