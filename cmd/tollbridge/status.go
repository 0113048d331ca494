package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// statusIndex is what there is at the status address.
const statusIndex = `tollbridge

/livez    200: the process lives
/readyz   200: it does its whole work; 503 says why not
/metrics  for Prometheus
`

// serveStatus answers /, /livez, /readyz and /metrics until ctx ends. unready
// returns why the daemon does not do its whole work now: none is ready.
func (b *bridge) serveStatus(ctx context.Context, m metrics, unready func() []string) error {
	if b.status == nil {
		<-ctx.Done()
		return nil
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(m)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, statusIndex) //nolint:errcheck // whoever asked has gone
	})
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { writeHealth(w, unready()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	server := http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(b.status); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// unready is why a daemon that accounts is not ready. A peer that is away is no
// reason, since the spool is there for it.
func (b *bridge) unready() []string {
	var why []string
	if err := b.runner.Err(); err != nil {
		why = append(why, "accounting stands still: "+err.Error())
	} else if b.runner.Stats().Position == 0 {
		why = append(why, "accounting has not begun")
	}
	if by := b.clock.behind.Load(); by > 0 {
		why = append(why, fmt.Sprintf("the host's clock is %v behind that of accounting, which is about to be set back", time.Duration(by).Round(time.Second)))
	}
	if reason, held := b.spool.Journal().Held(); held {
		why = append(why, "messages have to wait: "+reason)
	}
	if b.archive != nil {
		if err := b.archive.Err(); err != nil {
			why = append(why, "the archive can't be written: "+err.Error())
		}
	}
	if books := b.books.Load(); books != nil && !books.balanced {
		why = append(why, "the books do not balance: "+books.problems[0])
	}
	return why
}

// writeHealth answers 200, or 503 with the reasons.
func writeHealth(w http.ResponseWriter, why []string) {
	w.Header().Set("Content-Type", "application/json")
	answer := map[string]any{"status": "ok"}
	if len(why) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		answer = map[string]any{"status": "unavailable", "why": why}
	}
	json.NewEncoder(w).Encode(answer) //nolint:errcheck // whoever asked has gone
}
