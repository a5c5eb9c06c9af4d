package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/restore"
)

// newReporter makes what tells people, by Events, how things stand; nil where nobody can be told.
func newReporter(c evacuation.Config, log *slog.Logger, reg prometheus.Registerer) *evacuation.Reporter {
	if c.URL == "" {
		return nil
	}
	c.Log, c.Registerer = log, reg
	r, err := evacuation.NewReporter(c)
	if err != nil {
		log.Error("there will be no Events about this database", "error", err)
		return nil
	}
	return r
}

// reportMove reports a change of protection, if it is one for people: whether there is a way back.
func (g *guard) reportMove(to protection, reason string) {
	switch to { //nolint:exhaustive // the others say nothing about that
	case stateProtected:
		g.reports.Add(evacuation.Report{Kind: evacuation.Protected})
	case stateNoSnapshot, stateRefused:
		g.reports.Add(evacuation.Report{Kind: evacuation.NotProtected, Since: g.board.snapshot().NotProtectedSince, Detail: reason})
	}
}

// reportEntry reports the entries of the journal that are for people.
func (g *guard) reportEntry(event string, attrs []any) {
	switch event {
	case eventNotice:
		if at, ok := attr(attrs, "release_at").(time.Time); ok {
			g.reports.Add(evacuation.Report{Kind: evacuation.Notice, ReleaseAt: &at})
		}
	case eventNoticeWithdrawn:
		g.reports.Add(evacuation.Report{Kind: evacuation.NoticeWithdrawn})
	case eventSuperseded:
		reason, _ := attr(attrs, "reason").(string)
		g.reports.Add(evacuation.Report{Kind: evacuation.Superseded, Detail: reason})
	}
}

// attr is the value of a key among keys and values; nil if it is not there.
func attr(attrs []any, key string) any {
	for i := 0; i+1 < len(attrs); i += 2 {
		if attrs[i] == key {
			return attrs[i+1]
		}
	}
	return nil
}

// reportRestored reports a restore that has come to its end, and what was lost. short is why it ended too early, if it did.
func (g *guard) reportRestored(m restore.Marker, short error) {
	if m.Fork {
		return // nothing was restored
	}
	r := evacuation.Report{Kind: evacuation.Restored, End: m.Plan.End.String(), Timeline: uint32(m.Plan.Timeline)}
	target, from := g.restoredFrom()
	var words []string
	if from != "" {
		words = append(words, "from "+from)
	}
	if target != "" {
		words = append(words, "to "+target+", as asked for")
	}
	if short != nil {
		words = append(words, short.Error())
	}
	if len(m.Plan.Missing) > 0 {
		words = append(words, "missing in the archive: "+strings.Join(m.Plan.Missing, "; "))
	}
	r.Detail = strings.Join(words, "; ")
	// Only a restore of the newest state, from where the writer before wrote to, says what that one has lost.
	if v := g.current(); v != nil && len(words) == 0 {
		store, own := v.arch.WAL(v.server.SegmentSize), v.epoch.Number
		r.Complete = func(ctx context.Context, r *evacuation.Report) {
			if err := whatWasLost(ctx, store, own, r); err != nil {
				g.log.DebugContext(ctx, "what the writer before has lost is not in the report", "error", err)
			}
		}
	}
	g.reports.Add(r)
}

// whatWasLost says in a report how the last writer before an epoch had ended.
func whatWasLost(ctx context.Context, w *archive.WAL, own uint64, r *evacuation.Report) error {
	e, err := lastWords(ctx, w, 0, 1)
	if err != nil {
		return fmt.Errorf("asking how the writer before epoch %d ended: %w", own, err)
	}
	v := e.Verdict
	if e.Epoch >= own || v.Outcome == outcomeRunning || v.Outcome == outcomeNothing {
		return nil // there was none
	}
	r.Before, r.LostBytes = string(v.Outcome), v.Bytes
	if v.Bytes == nil || *v.Bytes != 0 {
		r.Detail = "lost: " + v.Lost
	}
	return nil
}

// reportWaiting reports that a restore can only wait for the archive.
func (a *app) reportWaiting(err error, since time.Time) {
	r := evacuation.Report{Kind: evacuation.RestoreWaiting, WaitsFor: evacuation.WaitsForArchive, Since: &since, Detail: err.Error()}
	if exitOf(err) == exitDenied {
		r.WaitsFor = evacuation.WaitsForCredentials
	}
	a.reports.Add(r)
}

// reporting runs the reports beside something, and ends with it.
func (a *app) reporting(ctx context.Context, do func(context.Context) error) error {
	a.reports = newReporter(a.evacuation(), a.log, nil)
	if a.reports == nil {
		return do(ctx)
	}
	beside, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.reports.Run(beside) }()
	err := do(ctx)
	stop()
	return errors.Join(err, <-ended)
}
