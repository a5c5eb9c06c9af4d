package basebackup

import (
	"fmt"
	"time"

	"github.com/adhocore/gronx"
)

// Schedule is when snapshots are due by the clock: a cron expression of five fields, in UTC.
type Schedule struct{ cron string }

// ParseSchedule reads a cron expression such as "0 * * * *".
func ParseSchedule(cron string) (Schedule, error) {
	_, err := gronx.NextTickAfter(cron, time.Unix(0, 0).UTC(), false)
	if err != nil || !gronx.IsValid(cron) {
		return Schedule{}, fmt.Errorf("%q is no schedule that ever comes: expected five fields of cron in UTC, such as \"0 * * * *\"", cron)
	}
	return Schedule{cron: cron}, nil
}

// Next is the first time of the schedule after t; the zero time if there is none.
func (s Schedule) Next(t time.Time) time.Time {
	next, err := gronx.NextTickAfter(s.cron, t.UTC(), false)
	if err != nil {
		return time.Time{}
	}
	return next
}

// Situation is all that the decision about the next snapshot rests on.
type Situation struct {
	Now time.Time
	// Last is when the last snapshot began, or when one was last left out by a decision; zero if there is none.
	Last time.Time
	// Taken tells whether there is a snapshot on this branch of history from which a restore could start now.
	Taken bool
	// Gap tells that WAL since the last snapshot is missing: nothing after it can be restored before there is another.
	Gap bool
	// Unchanged tells that the WAL since the end of the last snapshot changes no page (wal.Bookkeeping). Where that
	// cannot be told it is false.
	Unchanged bool
	// Failed is when an attempt last failed; zero if the last one succeeded.
	Failed time.Time
	// Took is how long the last snapshot took.
	Took time.Duration
	// RTO is the target; 0 is none. Load and Rates predict what a restore would take now.
	RTO   time.Duration
	Load  Load
	Rates Rates
}

// Action is what to do now.
type Action int

// The actions.
const (
	Wait  Action = iota // until Decision.At, then ask again
	Skip                // the schedule's time has come, and there is nothing to save: remember Now as Situation.Last
	Begin               // a snapshot
)

// Decision is what to do, and why. At is when to ask again, if nothing else happens, after a Wait.
type Decision struct {
	Action Action
	Reason string
	At     time.Time
}

const (
	// askAgain is how often the prediction is looked at between the times of the schedule.
	askAgain = 30 * time.Second
	// After a failure the next attempt waits as long as the last snapshot took, within these limits.
	retryAfter    = time.Minute
	maxRetryAfter = 15 * time.Minute
)

// Decide tells whether a snapshot is due. The first one is at once; after a gap too. Then the schedule decides, unless
// nothing has changed since the last one; and a snapshot is brought forward when a restore would take longer than the
// target and a new snapshot would shorten it (Load.Predict). It is a pure function.
func (s Schedule) Decide(in Situation) Decision {
	if pause := min(max(in.Took, retryAfter), maxRetryAfter); !in.Failed.IsZero() && in.Now.Before(in.Failed.Add(pause)) {
		return Decision{Wait, "the last attempt has failed", in.Failed.Add(pause)}
	}
	switch {
	case !in.Taken:
		return Decision{Action: Begin, Reason: "there is no snapshot yet"}
	case in.Gap:
		return Decision{Action: Begin, Reason: "WAL since the last snapshot is missing"}
	}
	next := s.Next(in.Last)
	due := !next.IsZero() && !next.After(in.Now)
	switch {
	case due && in.Unchanged:
		return Decision{Action: Skip, Reason: "nothing has changed since the last snapshot"}
	case due:
		return Decision{Action: Begin, Reason: "the schedule says so"}
	case in.forward():
		return Decision{Action: Begin, Reason: fmt.Sprintf("a restore would take %v, the target is %v",
			in.Load.Predict(in.Rates).Round(time.Second), in.RTO)}
	}
	at := in.Now.Add(askAgain)
	if !next.IsZero() && next.Before(at) {
		at = next
	}
	return Decision{Action: Wait, Reason: "the schedule's next time has not come", At: at}
}

// forward tells whether to bring a snapshot forward. Only replay gets shorter by one. Where the snapshot alone takes so
// long that the target cannot be met, a quarter of the target is left for replay, and between two snapshots there is
// at least three times what one takes: a database too large for its target is not copied without end.
func (in Situation) forward() bool {
	if in.RTO <= 0 || in.Unchanged || in.Now.Sub(in.Last) < 4*in.Took {
		return false
	}
	fresh := in.Load
	fresh.WAL = 0
	budget := max(in.RTO-fresh.Predict(in.Rates), in.RTO/4)
	return in.Load.Predict(in.Rates)-fresh.Predict(in.Rates) > budget
}
