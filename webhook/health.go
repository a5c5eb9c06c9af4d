package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// health answers /healthz as long as there is a process, and /readyz when nothing is missing, or with what is. It
// answers from the first moment on, so that waiting for the API server is not taken for being dead.
type health struct {
	log *slog.Logger

	mu     sync.Mutex
	checks []check
	said   string // the last answer that was logged
}

// check is one thing that has to be in order. Its error says what is missing.
type check struct {
	name string
	err  func() error
}

func newHealth(log *slog.Logger) *health {
	return &health{log: log, checks: []check{{"start", func() error { return errors.New("the API server has not been reached yet") }}}}
}

// require replaces what has to be in order.
func (h *health) require(checks ...check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = checks
}

// missing says what is not in order, one line for each; "" if all is.
func (h *health) missing(ctx context.Context) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var lines []string
	for _, c := range h.checks {
		if err := c.err(); err != nil {
			lines = append(lines, c.name+": "+err.Error())
		}
	}
	text := strings.Join(lines, "\n")
	switch {
	case h.said == "" && text != "":
		h.log.InfoContext(ctx, "not ready", "missing", lines)
		h.said = text
	case h.said != "" && text == "":
		h.log.InfoContext(ctx, "ready")
		h.said = text
	}
	return text
}

// ServeHTTP implements http.Handler.
func (h *health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch r.URL.Path {
	case "/healthz":
		fmt.Fprintln(w, "ok")
	case "/readyz":
		if missing := h.missing(r.Context()); missing != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, missing)
			return
		}
		fmt.Fprintln(w, "ok")
	default:
		http.NotFound(w, r)
	}
}

// answering begins to answer plain HTTP, for probes and metrics; run goes on with it until ctx ends.
func answering(ctx context.Context, what, address string, handler http.Handler) (run func(context.Context) error, err error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for %s: %w", what, err)
	}
	srv := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second, IdleTimeout: 30 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	return func(ctx context.Context) error {
		select {
		case err := <-ended:
			return fmt.Errorf("answering %s: %w", what, err)
		case <-ctx.Done():
		}
		err := srv.Close()
		if e := <-ended; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
		if err != nil {
			return fmt.Errorf("ending the answers to %s: %w", what, err)
		}
		return nil
	}, nil
}
