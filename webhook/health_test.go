package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func probe(t *testing.T, h http.Handler, path string) (code int, body string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody))
	return w.Code, w.Body.String()
}

func TestReadinessSaysWhatIsMissing(t *testing.T) {
	h := newHealth(quiet())
	if code, body := probe(t, h, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "API server") {
		t.Errorf("at the start: %d %s", code, body)
	}
	if code, _ := probe(t, h, "/healthz"); code != http.StatusOK {
		t.Errorf("at the start it is not alive: %d", code)
	}
	missing := errors.New("the namespaces are not known")
	h.require(check{"a", func() error { return nil }}, check{"b", func() error { return missing }})
	if code, body := probe(t, h, "/readyz"); code != http.StatusServiceUnavailable || body != "b: the namespaces are not known\n" {
		t.Errorf("%d %q", code, body)
	}
	missing = nil
	if code, body := probe(t, h, "/readyz"); code != http.StatusOK || body != "ok\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := probe(t, h, "/else"); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
}

func TestProbesAreAnsweredUntilTheEnd(t *testing.T) {
	h := newHealth(quiet())
	run, err := answering(t.Context(), "probes", "127.0.0.1:0", h)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := run(ctx); err != nil {
		t.Errorf("run: %v", err)
	}
	if _, err := answering(t.Context(), "probes", "256.0.0.1:0", h); err == nil {
		t.Error("it listens at an address that is none")
	}
}
