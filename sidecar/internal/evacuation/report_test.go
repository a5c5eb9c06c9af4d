package evacuation_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/evacuation"
)

// reporting runs a Reporter beside the server of start.
func reporting(t *testing.T, change func(*evacuation.Config)) (*world, *evacuation.Reporter) {
	t.Helper()
	w := start(t, nil)
	w.answers(says(http.StatusOK, "noted"))
	cfg := evacuation.Config{
		URL: w.server.URL + "/v1/evacuations", CA: certificate(w.server), TokenFile: w.token, Interval: 5 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	r, err := evacuation.NewReporter(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return w, r
}

// reports are the bodies that came, in order.
func (w *world) reports() (all []evacuation.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.calls {
		var r evacuation.Report
		if err := json.Unmarshal([]byte(c.body), &r); err != nil || c.token != "Bearer first" {
			w.t.Errorf("%q came as %q: %v", c.body, c.token, err)
		}
		all = append(all, r)
	}
	return all
}

func (w *world) kinds() string {
	var all []string
	for _, r := range w.reports() {
		all = append(all, string(r.Kind))
	}
	return strings.Join(all, " ")
}

func TestReportsComeInOrderAndWhole(t *testing.T) {
	w, r := reporting(t, nil)
	lost := int64(7)
	r.Add(evacuation.Report{Kind: evacuation.Notice, ReleaseAt: &release})
	r.Add(evacuation.Report{Kind: evacuation.Restored, End: "0/3000060", Timeline: 2, Complete: func(_ context.Context, r *evacuation.Report) { r.Before, r.LostBytes = "interrupted", &lost }})
	r.Add(evacuation.Report{Kind: evacuation.Superseded, Detail: strings.Repeat("ä", 5000)})
	w.wait("three reports", func() bool { return w.kinds() == "notice restored superseded" })
	got := w.reports()
	if !got[0].ReleaseAt.Equal(release) || got[1].Before != "interrupted" || *got[1].LostBytes != lost || len(got[2].Detail) > 610 || strings.ContainsRune(got[2].Detail, '\uFFFD') {
		t.Errorf("%+v", got)
	}
}

// A database that flaps is one that is in the state that it ends in, and what was said is not said again.
func TestOnlyTheLastStateIsReported(t *testing.T) {
	w, r := reporting(t, func(c *evacuation.Config) { c.Interval = 200 * time.Millisecond })
	for range 20 {
		r.Add(evacuation.Report{Kind: evacuation.NotProtected, Since: &release, Detail: "why"})
		r.Add(evacuation.Report{Kind: evacuation.Protected})
	}
	w.wait("a state", func() bool { return w.kinds() == "protected" })
	r.Add(evacuation.Report{Kind: evacuation.Protected})
	r.Add(evacuation.Report{Kind: evacuation.NoticeWithdrawn})
	w.wait("what came after it", func() bool { return strings.HasSuffix(w.kinds(), "notice_withdrawn") })
	r.Add(evacuation.Report{Kind: evacuation.NotProtected, Since: &release, Detail: "why"})
	w.wait("the new state", func() bool { return w.kinds() == "protected notice_withdrawn not_protected" })
}

// What cannot be sent is tried again; what comes meanwhile displaces the oldest, and whoever adds never waits.
func TestReportsOutliveAnOutage(t *testing.T) {
	w, r := reporting(t, nil)
	w.answers(says(http.StatusServiceUnavailable, "unknown"))
	r.Add(evacuation.Report{Kind: evacuation.RestoreWaiting, WaitsFor: evacuation.WaitsForArchive})
	w.calledAgain(2)
	for range 100 {
		r.Add(evacuation.Report{Kind: evacuation.Superseded})
	}
	r.Add(evacuation.Report{Kind: evacuation.Notice, ReleaseAt: &release})
	before := w.count()
	w.answers(says(http.StatusOK, "noted"))
	w.wait("the last report", func() bool { return strings.HasSuffix(w.kinds(), " notice") })
	if n := w.count() - before; n > 20 {
		t.Errorf("%d of 101 reports were kept", n)
	}
	if n := w.said("cannot be reported"); n != 1 {
		t.Errorf("%d lines about the outage", n)
	}
}

// A refusal is final, and said once.
func TestRefusedReportsAreDropped(t *testing.T) {
	w, r := reporting(t, nil)
	w.answers(says(http.StatusForbidden, "not_ours"))
	r.Add(evacuation.Report{Kind: evacuation.Superseded})
	r.Add(evacuation.Report{Kind: evacuation.NoticeWithdrawn})
	w.wait("both", func() bool { return w.kinds() == "superseded notice_withdrawn" })
	w.answers(says(http.StatusOK, "noted"))
	r.Add(evacuation.Report{Kind: evacuation.Notice, ReleaseAt: &release})
	w.wait("the third", func() bool { return w.kinds() == "superseded notice_withdrawn notice" })
	if n := w.said("are refused"); n != 1 {
		t.Errorf("%d lines about the refusal", n)
	}
}

// A stop waits for nobody: neither for a server that does not answer, nor for what is still being found out.
func TestAStopDoesNotWaitForReports(t *testing.T) {
	for name, slow := range map[string]func(context.Context, *evacuation.Report){
		"a server that hangs":       nil,
		"a report in the making":    func(ctx context.Context, _ *evacuation.Report) { <-ctx.Done() },
		"a token that is not there": nil,
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t, nil)
			w.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
			if strings.Contains(name, "token") {
				if err := os.Remove(w.token); err != nil {
					t.Fatal(err)
				}
			}
			r, err := evacuation.NewReporter(evacuation.Config{URL: w.server.URL + "/v1/evacuations", CA: certificate(w.server), TokenFile: w.token, Timeout: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			begun := make(chan struct{})
			r.Add(evacuation.Report{Kind: evacuation.Superseded, Complete: func(ctx context.Context, report *evacuation.Report) {
				close(begun)
				if slow != nil {
					slow(ctx, report)
				}
			}})
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			<-begun
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
	}
}

func TestNoReporterTakesEverything(*testing.T) {
	var r *evacuation.Reporter
	r.Add(evacuation.Report{Kind: evacuation.Protected})
}
