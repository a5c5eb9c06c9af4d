package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/page"
)

const (
	// drillInterval is how often the archive is asked for results of drills: one request each time, and one for each new
	// result. A drill is held by another pod, so nothing else tells.
	drillInterval = 15 * time.Minute
	// drillsRead is how many results are read at most to find the last one that was passed.
	drillsRead = 20
)

// drillStatus is what the archive says of restore drills. It is never changed once it is there.
type drillStatus struct {
	Last   *archive.Drill `json:"last,omitempty"`        // whatever came of it
	Passed *archive.Drill `json:"last_passed,omitempty"` // the last one that was
	Due    time.Time      `json:"due"`                   // when one has to have been passed at the latest

	asked time.Time // since when anybody wants to know
}

// drillBook remembers what was read. Only watchDrills touches it.
type drillBook struct {
	since  time.Time // when drills became expected; zero until it is known
	key    string    // of the newest result that was read
	status drillStatus
}

// watchDrills reads the results of restore drills, if the policy asks for drills, until ctx ends.
func (v *voyage) watchDrills(ctx context.Context) error {
	if v.policy.DrillMaxAge == 0 {
		return nil
	}
	tick := time.NewTicker(drillInterval)
	defer tick.Stop()
	for {
		if err := v.readDrills(ctx); err != nil && ctx.Err() == nil {
			v.log.Warn("the results of restore drills could not be read, it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// readDrills looks for results that are newer than the last one.
func (v *voyage) readDrills(ctx context.Context) (err error) {
	if v.drills.since.IsZero() {
		if v.drills.since, err = v.arch.DrillsExpected(ctx, v.writer); err != nil {
			return err
		}
	}
	keys, err := v.arch.DrillKeys(ctx, v.drills.key)
	if err != nil {
		return err
	}
	next := v.drills.status
	newest, err := v.readNew(ctx, keys, &next)
	if err != nil {
		return err
	}
	// Whoever begins to ask for drills has as long for the first one as for each of the others.
	next.Due = v.drills.since.Add(v.policy.DrillMaxAge)
	if p := next.Passed; p != nil && p.VerifiedAt.After(v.drills.since) {
		next.Due = p.VerifiedAt.Add(v.policy.DrillMaxAge)
	}
	next.asked = v.drills.since
	if n := len(keys); n > 0 {
		v.drills.key = keys[n-1]
	}
	if newest != "" && !next.Last.Passed {
		v.log.Error("the last restore drill was not passed", "object", newest, "failure", next.Last.Failure)
	}
	v.drills.status = next
	v.board.update(func(r *statusReport) { r.Drills = &next })
	return nil
}

// readNew reads results, the newest first, until one that was passed is found. It returns the key of the newest that
// can be read, "" if there is none.
func (v *voyage) readNew(ctx context.Context, keys []string, into *drillStatus) (newest string, err error) {
	for i, key := range slices.Backward(keys) {
		d, err := v.arch.Drill(ctx, key)
		if errors.Is(err, archive.ErrCorrupt) {
			v.log.Warn("the result of a restore drill cannot be read and is passed over", "object", key, "error", err)
			continue
		}
		if err != nil {
			return "", err
		}
		if newest == "" {
			newest, into.Last = key, &d
		}
		if d.Passed {
			into.Passed = &d
		}
		if d.Passed || len(keys)-i >= drillsRead {
			break
		}
	}
	return newest, nil
}

func (d *drillStatus) text(w io.Writer) {
	if d == nil {
		return
	}
	if l := d.Last; l != nil && !l.Passed {
		row(w, "RESTORE DRILL NOT PASSED", timeText(l.VerifiedAt)+": "+l.Failure)
	}
	verified := "none was passed yet"
	if p := d.Passed; p != nil {
		verified = fmt.Sprintf("%s, up to %s, it answered after %.0f s", timeText(p.VerifiedAt), p.LSN, p.ReadySeconds)
	}
	row(w, "last restore drill passed", verified)
	due := timeText(d.Due)
	if d.overdue(time.Now()) {
		due += ", OVERDUE"
	}
	row(w, "restore drill due", due)
}

func (d *drillStatus) overdue(now time.Time) bool { return now.After(d.Due) }

// onPage adds what is to be said of drills.
func (d *drillStatus) onPage(s *page.Status) {
	if d == nil {
		return
	}
	if l := d.Last; l != nil && !l.Passed {
		s.Troubles = append(s.Troubles, page.Trouble{What: "The last restore drill was not passed", Why: l.Failure, Since: l.VerifiedAt})
	}
	if d.overdue(s.Now) {
		s.Troubles = append(s.Troubles, page.Trouble{
			What: "A restore drill is overdue", Why: "None was passed for as long as the policy's drill-max-age: is its CronJob there, and how did its last pod end?", Since: d.Due,
		})
	}
	s.Drill = &page.Drill{}
	if p := d.Passed; p != nil {
		s.Drill = &page.Drill{Passed: &p.VerifiedAt, LSN: p.LSN.String(), Answered: *secondsOf(&p.ReadySeconds)}
	}
}

// drills are the metrics of restore drills.
func (s scrape) drills(d *drillStatus) {
	if d == nil {
		return
	}
	s.time("outrider_drill_due_timestamp_seconds", &d.Due)
	// A verdict from before anybody asked for drills wakes nobody. It stands in the status.
	if l := d.Last; l != nil && l.VerifiedAt.After(d.asked) {
		s.time("outrider_drill_last_timestamp_seconds", &l.VerifiedAt)
		passed := 0.0
		if l.Passed {
			passed = 1
		}
		s.gauge("outrider_drill_last_passed", passed)
	}
	if p := d.Passed; p != nil {
		s.time("outrider_drill_last_success_timestamp_seconds", &p.VerifiedAt)
		s.gauge("outrider_drill_last_verified_lsn_bytes", float64(p.LSN))
		s.gauge("outrider_drill_last_restore_duration_seconds", p.ReadySeconds)
	}
}
