package evacuation

import (
	"context"
	"strings"
	"time"
)

// Kind is what a Report is about.
type Kind string

// The kinds, as the webhook knows them.
const (
	Protected       Kind = "protected"
	NotProtected    Kind = "not_protected" // Since is required
	Notice          Kind = "notice"        // ReleaseAt is required
	NoticeWithdrawn Kind = "notice_withdrawn"
	Superseded      Kind = "superseded"
	Restored        Kind = "restored" // End and Timeline are required
	RestoreWaiting  Kind = "restore_waiting"
)

// settles tells whether a kind is a state, of which only the last counts, and only once it has lasted a moment.
func (k Kind) settles() bool { return k == Protected || k == NotProtected }

// Whom a restore waits for.
const (
	WaitsForArchive     = "archive"
	WaitsForCredentials = "credentials"
	WaitsForPredecessor = "predecessor"
)

// Report is what people are to be told, in the JSON of the webhook.
type Report struct {
	Kind      Kind       `json:"kind"`
	Since     *time.Time `json:"since,omitempty"`
	ReleaseAt *time.Time `json:"release_at,omitempty"`
	WaitsFor  string     `json:"waits_for,omitempty"`
	End       string     `json:"end,omitempty"` // an LSN
	Timeline  uint32     `json:"timeline,omitempty"`
	Before    string     `json:"before,omitempty"`     // how the writer before had ended: clean, interrupted, vanished
	LostBytes *int64     `json:"lost_bytes,omitempty"` // of WAL that is known to be lost; nil if it is not known
	Detail    string     `json:"detail,omitempty"`     // for people
	// Complete, unless nil, fills in what takes time to find out, such as what was lost. It is called once, by Run, and its
	// context ends when the report has waited long enough for it.
	Complete func(context.Context, *Report) `json:"-"`
}

// What a report may say is bounded here too, so that none is refused for its length.
const (
	longestDetail = 600
	mostQueued    = 16
)

// pending is a report that was not taken yet.
type pending struct {
	report Report
	due    time.Time
	until  time.Time // when it is no news any more
}

// same tells whether two reports say the same state.
func (r Report) same(o Report) bool { return r.Kind == o.Kind && r.Detail == o.Detail }

// Add takes a report and returns at once. What comes too often displaces the oldest; of states only the last is kept.
// A nil Reporter takes everything and says nothing.
func (r *Reporter) Add(report Report) {
	if r == nil {
		return
	}
	if len(report.Detail) > longestDetail {
		report.Detail = strings.ToValidUTF8(report.Detail[:longestDetail], "") + "…"
	}
	now := time.Now()
	p := pending{report: report, due: now, until: now.Add(r.news)}
	r.mu.Lock()
	if report.Kind.settles() {
		p.due = now.Add(r.settle)
		for i, q := range r.queue {
			if q.report.Kind.settles() {
				r.queue = append(r.queue[:i], r.queue[i+1:]...)
				break
			}
		}
	}
	if len(r.queue) == mostQueued {
		r.queue = r.queue[1:]
		r.metrics.reports.WithLabelValues("dropped").Inc()
	}
	r.queue = append(r.queue, p)
	r.mu.Unlock()
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// next is the oldest report that is due, taken out of the queue, or when one will be; zero if there is none.
func (r *Reporter) next(now time.Time) (p pending, ok bool, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, q := range r.queue {
		if !q.due.After(now) {
			r.queue = append(r.queue[:i], r.queue[i+1:]...)
			return q, true, time.Time{}
		}
		if at.IsZero() || q.due.Before(at) {
			at = q.due
		}
	}
	return pending{}, false, at
}

// again puts a report back that could not be sent, before all others, unless it is no news any more or a later state has
// come.
func (r *Reporter) again(p pending, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	drop := now.After(p.until) || len(r.queue) >= mostQueued
	for _, q := range r.queue {
		drop = drop || p.report.Kind.settles() && q.report.Kind.settles()
	}
	if drop {
		r.metrics.reports.WithLabelValues("dropped").Inc()
		return
	}
	r.queue = append([]pending{p}, r.queue...)
}
