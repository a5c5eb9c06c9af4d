package main

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/policy"
)

// Over real HTTP a browser gets the page, and whatever does not ask for one gets what it always got.
func TestStatusNegotiation(t *testing.T) {
	g := newGuard(runConfig{policy: policy.Policy{Archive: "oss://b/<i>orders</i>"}, pgdata: t.TempDir(), log: slog.New(slog.DiscardHandler)}, &door{}, nil)
	g.board.set(stateRefused, "<script>alert(1)</script>: mend it")
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx := t.Context()
	go func() { done <- serve(ctx, l, g.routes(ctx, prometheus.NewRegistry())) }()
	t.Cleanup(func() {
		if err := <-done; err != nil { // t's context has ended
			t.Error(err)
		}
	})
	ask := func(accept ...string) (http.Header, string) {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.Addr().String()+"/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header["Accept"] = accept
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		if err != nil || a.StatusCode != http.StatusOK {
			t.Fatalf("status %d, %v", a.StatusCode, err)
		}
		if a.Header.Get("Vary") != "Accept" {
			t.Errorf("Accept %q: a cache would mix up the answers", accept)
		}
		return a.Header, string(b)
	}
	for _, accept := range [][]string{
		nil,
		{"*/*"},
		{"application/json"},
		{"application/json, text/html"},
		{"text/html;q=0"},
		{"text/*"},
		{"text/html;q=0.5, application/json"},
		{"text/html;q=0.5, */*"},
		{"text/html;q=nonsense"},
		{";;;,,"},
	} {
		h, body := ask(accept...)
		var r statusReport
		if err := json.Unmarshal([]byte(body), &r); err != nil || h.Get("Content-Type") != "application/json" || r.State != stateRefused {
			t.Errorf("Accept %q: %s, %v: %.60s", accept, h.Get("Content-Type"), err, body)
		}
	}
	for _, accept := range [][]string{
		{"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"}, {"text/html"}, {"text/html, */*"}, {"TEXT/HTML ; q=0.9", "application/json;q=0.1"},
	} {
		h, body := ask(accept...)
		if h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(body, "<!doctype html>") {
			t.Errorf("Accept %q: %s: %.60s", accept, h.Get("Content-Type"), body)
		}
		if p := h.Get("Content-Security-Policy"); !strings.Contains(p, "default-src 'none'") || strings.Contains(p, "unsafe") {
			t.Errorf("the policy is %q", p)
		}
		if !strings.Contains(body, "&lt;script&gt;alert(1)") || strings.Contains(body, "<script>alert") || !strings.Contains(body, "No way back since") {
			t.Errorf("the reason is not on the page as text: %s", body)
		}
	}
}

// However long the sidecar runs, the plot is of the last minutes, and what is not known is kept as such.
func TestAgesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &guard{board: newBoard("", "", nil)}
		done := make(chan error)
		ctx := t.Context()
		go func() { done <- g.watchAge(ctx) }()
		time.Sleep(time.Hour + time.Second)
		all := g.board.ages.all()
		if want := int(agesSpan / agesStep); len(all) != want {
			t.Errorf("%d samples, want %d", len(all), want)
		}
		for _, s := range all {
			if s.Age != nil || time.Since(s.At) > agesSpan {
				t.Fatalf("a sample %v", s)
			}
		}
		t.Cleanup(func() {
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}

// The page says since when shipping lags, not since when the database was protected before.
func TestLaggingSince(t *testing.T) {
	now := time.Now()
	old, trouble := now.Add(-24*time.Hour), now.Add(-time.Minute)
	g := newGuard(runConfig{log: slog.New(slog.DiscardHandler)}, &door{}, nil)
	g.board.update(func(r *statusReport) { r.State, r.Since = stateProtected, old })
	for name, c := range map[string]struct {
		report statusReport
		want   time.Time
	}{
		"an old commit": {statusReport{State: stateLagging, Since: old, AgeSeconds: new(30.0)}, now.Add(-30 * time.Second)},
		"both":          {statusReport{State: stateLagging, Since: old, AgeSeconds: new(30.0), Trouble: "x", TroubleSince: &trouble}, trouble},
		"all is well":   {statusReport{State: stateProtected, Since: old, AgeSeconds: new(0.2)}, old},
	} {
		if got := g.onPage(c.report, now).Since; !got.Equal(c.want) {
			t.Errorf("%s: since %s, want %s", name, got, c.want)
		}
	}
}
