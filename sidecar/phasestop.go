package main

import (
	"fmt"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// stopEvents are those that tell of a stop, and those that end or follow an earlier one.
func stopEvents() []string {
	return []string{
		eventNotice, eventNoticeWithdrawn, eventPrepared, eventEvacuationAsked, eventEvacuationAnswered, eventEvacuationFailed,
		eventPostgresStopping, eventPostgresDown, eventFinished, eventSuperseded, eventFencedReadOnly, eventShipping,
	}
}

// lastStop are the entries of the last stop, of those of a whole epoch: a sidecar may have been stopped in it before, and
// notices withdrawn.
func lastStop(entries []archive.Entry) (stop []archive.Entry) {
	noticed, leaving, told := false, false, false
	for _, x := range entries {
		goesOn := x.Event == eventFinished || x.Event == eventPostgresDown
		if told && !goesOn {
			stop, noticed, leaving, told = nil, false, false, false // a sidecar was started after it
		}
		switch x.Event {
		case eventShipping: // the server lives; its end may still be announced
			if !noticed {
				stop = nil
			}
			continue
		case eventNotice:
			noticed = true
		case eventEvacuationAnswered:
			leaving = leaving || moved(word(x.Attrs, "outcome"))
		case eventPostgresStopping:
			leaving = true
		case eventNoticeWithdrawn:
			if noticed = false; !leaving {
				stop = nil
				continue
			}
		case eventFinished:
			told = true
		}
		stop = append(stop, x)
	}
	return stop
}

// moved tells whether a pod is being stopped after an answer.
func moved(outcome string) bool {
	return outcome == "evicted" || outcome == "deleted" || outcome == "terminating"
}

// stopPhases are those that the epoch itself has told, but for the receipt.
func (e ending) stopPhases(stop []archive.Entry) (phases []phase) {
	if h := e.Heartbeat; h != nil && e.Verdict.Outcome == outcomeVanished {
		phases = append(phases, timed(stepLastBeat, e.Epoch, h.At, nil, "the last sign of life, by the store's clock",
			fmt.Sprintf("timeline %d was durable up to %s", h.Timeline, h.Durable)))
	}
	down := shutDownAt(stop)
	var prepared []string
	for _, x := range stop {
		plain := func(name string, words ...string) {
			phases = append(phases, timed(name, x.Epoch, x.Time, x.Attrs, words...))
		}
		switch x.Event {
		case eventNotice:
			plain(stepNotice, prefixed("the machine is released at ", clock(x.Attrs, "release_at")), word(x.Attrs, "instance"))
		case eventNoticeWithdrawn:
			plain(stepNoticeWithdrawn, "the machine stays, after all")
		case eventPrepared:
			// Two hooks that come at once share one run, and once each noted it.
			if run := word(x.Attrs, "started_at"); run == "" || !slices.Contains(prepared, run) {
				prepared = append(prepared, run)
				phases = append(phases, preparePhases(x)...)
			}
		case eventEvacuationAsked, eventEvacuationFailed, eventEvacuationAnswered:
			phases = append(phases, evacuationPhases(x)...)
		case eventPostgresStopping:
			at := x.Time // it is looked for twice a second only
			if !down.IsZero() && down.Before(at) {
				at = down
			}
			phases = append(phases, timed(stepPostgresStopping, x.Epoch, at, x.Attrs, "Postgres lets nobody in any more"))
		case eventPostgresDown:
			phases = append(phases, downPhase(x))
		case eventSuperseded:
			plain(stepSuperseded, "this writer has stopped for good", word(x.Attrs, "reason"))
		case eventFencedReadOnly:
			plain(stepFencedReadOnly, "the database was made read-only")
		}
	}
	return phases
}

// shutDownAt is when the server had written its shutdown checkpoint; zero if it did not, or nobody has seen it.
func shutDownAt(stop []archive.Entry) time.Time {
	for _, x := range slices.Backward(stop) {
		if x.Event == eventPostgresDown && word(x.Attrs, "control_state") == wal.StateShutDown.String() {
			at, _ := moment(x.Attrs, "control_written_at")
			return at
		}
	}
	return time.Time{}
}

func downPhase(x archive.Entry) phase {
	text := fmt.Sprintf("pg_control says %q", word(x.Attrs, "control_state"))
	if at := shutDownAt([]archive.Entry{x}); !at.IsZero() {
		return timed(stepPostgresDown, x.Epoch, at, x.Attrs, text)
	}
	return timed(stepPostgresDown, x.Epoch, x.Time, x.Attrs, "no server was there any more", text)
}

// receiptPhase is the receipt, or that there is none that counts.
func (e ending) receiptPhase(stop []archive.Entry) (phase, bool) {
	r := e.receipt()
	var told *archive.Entry
	for i := range stop {
		if stop[i].Event == eventFinished {
			told = &stop[i]
		}
	}
	switch {
	case r != nil:
		how := "not clean: "
		if r.Clean {
			how = "clean: "
		}
		p := timed(stepReceipt, e.Epoch, r.FinishedAt, nil, how+r.Reason, fmt.Sprintf("timeline %d was durable up to %s", r.Timeline, r.Durable))
		if told != nil {
			p.Detail = told.Attrs
		}
		return p, true
	case e.Verdict.Outcome != outcomeVanished:
		return phase{}, false
	case e.Receipt != nil && e.Receipt.Running:
		return phase{Name: stepReceipt, Epoch: e.Epoch, Text: "nothing proves a clean end: the writer had come back after a stop, at " + timeText(e.Receipt.FinishedAt)}, true
	case e.Receipt != nil:
		return phase{Name: stepReceipt, Epoch: e.Epoch, Text: "nothing proves a clean end: the receipt that is there is of an earlier stop, at " + timeText(e.Receipt.FinishedAt)}, true
	case told != nil:
		return phase{Name: stepReceipt, Epoch: e.Epoch, Text: "nothing proves a clean end: the journal tells of a receipt, and it is not in the archive"}, true
	}
	return phase{Name: stepReceipt, Epoch: e.Epoch, Text: "nothing proves a clean end: no receipt was left"}, true
}
