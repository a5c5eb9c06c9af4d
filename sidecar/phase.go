package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/policy"
)

// phase is one step of a stop, or of what came after it, as the archive tells it.
type phase struct {
	Name  string `json:"name"`
	Epoch uint64 `json:"epoch"`
	// At is when it was over, or where it has no length when it happened; absent for what should have been seen and was
	// not. Clocks of two machines may tell it.
	At     *time.Time     `json:"at,omitempty"`
	Since  *float64       `json:"seconds,omitempty"`        // since the phase before
	Outage *float64       `json:"outage_seconds,omitempty"` // since the outage began
	Text   string         `json:"text"`
	Detail map[string]any `json:"details,omitempty"` // the attributes of the journal's entry that tells it
	order  time.Time      // by which it is sorted
}

// The names of phases. They are stable.
const (
	stepLastCommit       = "last_commit"    // that was restored
	stepLastBeat         = "last_heartbeat" // of a writer that left no receipt
	stepNotice           = "notice"
	stepNoticeWithdrawn  = "notice_withdrawn"
	stepCheckpoint       = "checkpoint"
	stepPrepared         = "prepared" // everything that was flushed is in the archive, or as much as could be
	stepEvacuationAsked  = "evacuation_asked"
	stepEvacuationFailed = "evacuation_failed" // nobody answered
	stepCordon           = "cordon"            // the node has its taint
	stepEviction         = "eviction"          // what was answered about the pod, a refusal too
	stepPostgresStopping = "postgres_stopping"
	stepPostgresDown     = "postgres_down"
	stepReceipt          = "receipt"
	stepSuperseded       = "superseded"
	stepFencedReadOnly   = "fenced_read_only"
	stepClaimed          = "claimed" // the next epoch
	stepRestore          = "restore" // its begin
	stepUnpacked         = "unpacked"
	stepReplayBegins     = "replay_begins" // the server may start
	stepRestoredShort    = "restored_short"
	stepRestoreFailed    = "restore_failed"
	stepAcceptsWrites    = "accepts_writes"
	stepFirstWrite       = "first_write"
)

// stampFormat is a time in UTC to the millisecond.
const stampFormat = "2006-01-02 15:04:05.000Z"

// timed is a phase that happened.
func timed(name string, epoch uint64, at time.Time, detail map[string]any, words ...string) phase {
	at = at.UTC()
	words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
	return phase{Name: name, Epoch: epoch, At: &at, Text: strings.Join(words, ", "), Detail: detail}
}

// timeLine is the last stop and what came after it. The times are put in order where two tellers overlap, such as a
// writer that notices late that it was superseded; what was not seen stays behind what it would have followed.
func (e *ending) timeLine(stop []archive.Entry) {
	e.Phases = e.stopPhases(stop)
	if p, ok := e.lastCommit(); ok {
		e.Phases = append(e.Phases, p)
	}
	inOrder(e.Phases)
	if p, ok := e.receiptPhase(stop); ok {
		e.Phases = append(e.Phases, p)
	}
	e.Phases = append(e.Phases, e.afterPhases()...)
	inOrder(e.Phases)
	e.Outage = e.outage()
	var last time.Time
	for i := range e.Phases {
		p := &e.Phases[i]
		if p.At == nil {
			continue
		}
		if !last.IsZero() {
			p.Since = new(p.At.Sub(last).Seconds())
		}
		last = *p.At
		if o := e.Outage; o != nil && !last.Before(o.From) {
			p.Outage = new(last.Sub(o.From).Seconds())
		}
	}
}

// inOrder sorts phases by time; one that was not seen stays behind the one before it.
func inOrder(phases []phase) {
	var last time.Time
	for i := range phases {
		if at := phases[i].At; at != nil {
			last = *at
		}
		phases[i].order = last
	}
	slices.SortStableFunc(phases, func(a, b phase) int { return a.order.Compare(b.order) })
}

// phasesText writes the time line for people.
func phasesText(w io.Writer, phases []phase) {
	for _, p := range phases {
		at, since := "not seen", ""
		if p.At != nil {
			at = p.At.Format(stampFormat)
		}
		if p.Since != nil {
			since = sinceText(time.Duration(*p.Since * float64(time.Second)))
		}
		row(w, at, since, strings.ReplaceAll(p.Name, "_", " "), p.Text)
	}
}

// sinceText is the time since the line before.
func sinceText(d time.Duration) string {
	if d.Abs() < time.Minute {
		return fmt.Sprintf("%+.3fs", d.Seconds())
	}
	if d < 0 {
		return "-" + policy.FormatDuration(d.Abs().Truncate(time.Second))
	}
	return "+" + policy.FormatDuration(d.Truncate(time.Second))
}
