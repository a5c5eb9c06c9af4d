package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/page"
	"outrider.dev/sidecar/internal/wal"
)

// routes are what the sidecar answers on its port. The port is open to the pod network: the most that anybody can cause
// here is a preparation for a stop.
func (g *guard) routes(hard context.Context, reg prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		// Red only for a superseded writer: the sidecar's health is Postgres' availability.
		if s := g.board.snapshot(); s.State == stateSuperseded {
			answer(w, http.StatusServiceUnavailable, s.Reason+"\n")
			return
		}
		answer(w, http.StatusOK, "ok\n")
	})
	prestop := func(w http.ResponseWriter, r *http.Request) { g.servePreStop(hard, w, r) }
	mux.HandleFunc("GET /prestop", prestop)
	mux.HandleFunc("POST /prestop", prestop)
	mux.HandleFunc("GET /status", g.serveStatus(page.New()))
	return mux
}

// servePreStop answers a hook. A kubelet that hangs up ends its waiting, and nothing that was begun.
func (g *guard) servePreStop(hard context.Context, w http.ResponseWriter, r *http.Request) {
	if foreign(r) {
		answer(w, http.StatusForbidden, "this is for a kubelet, not for the pages of other sites\n")
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(hard, func() { cancel(context.Cause(hard)) })()
	answerJSON(w, g.onPreStop(ctx))
}

func answer(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write([]byte(text)) // the other side may have gone; there is nobody to tell
}

func answerJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v)
}

// Unshipped commits older than this are called lagging: more than a slow moment of the store, and sooner than its
// requests are given up.
const (
	lagFactor = 3
	lagLeast  = 5 * time.Second
)

// report is the state of things as of now.
func (g *guard) report(ctx context.Context) statusReport {
	r := g.board.snapshot()
	r.Journal = g.journal.Recent(20)
	r.Holdings, r.Store = g.door.counts().sum(), g.door.store()
	v := g.current()
	if v == nil || v.ended() {
		r.DiskFree = g.diskFree()
		return r
	}
	durable := v.ship.Durable().LSN
	r.Durable, r.Slot = &durable, v.slot.Load()
	r.outlook = v.outlook(durable)
	r.DiskFree = g.diskFree()
	if age, ok := v.tail.Age(durable); ok {
		s := age.Seconds()
		r.AgeSeconds = &s
		if r.State == stateProtected && age > max(lagFactor*g.policy.RPO, lagLeast) {
			r.State, r.Reason = stateLagging, fmt.Sprintf("commits are not durable in the archive for %s, the target is %s", age.Round(time.Second), g.policy.RPO)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if p, err := v.look.get(ctx); err == nil {
		unshipped, async := distance(durable, p.Flush), distance(p.Flush, p.Insert)
		r.Flushed, r.Inserted, r.UnshippedBytes, r.AsyncBytes = &p.Flush, &p.Insert, &unshipped, &async
		r.outlook.kept(v, p.Flush)
	}
	if since, err := v.ship.Trouble(); err != nil {
		r.Trouble, r.TroubleSince = err.Error(), &since
		if r.State == stateProtected {
			r.State = stateLagging
		}
	}
	return r
}

// distance is how far to is past from, 0 if it is not.
func distance(from, to wal.LSN) int64 {
	if to <= from {
		return 0
	}
	return int64(to - from)
}

// What one connection may take. A request is there in a moment: what comes drop by drop is no kubelet's. An answer may
// take as long as a preparation. A scraper's connection is kept from one scrape to the next.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 10 * time.Second
	answerTimeout  = drain.MaxPrepare + 10*time.Second
	idleTimeout    = 90 * time.Second
	maxHeader      = 8 << 10
)

func newServer(h http.Handler) *http.Server {
	c := &callers{most: mostCallers}
	return &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: answerTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, ConnContext: c.begin, ConnState: c.changed,
	}
}

// serve answers on l until ctx ends, and returns when the last answer was given.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	s := newServer(h)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	sctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	err := s.Shutdown(sctx)
	if serr := <-done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}
	return err
}
