package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
)

// afterEvents are those of a successor that tell how the database came up again.
func afterEvents() []string {
	return []string{eventRestored, eventRestoredShort, eventRestoreFailed, eventShipping, eventFirstWrite}
}

// afterPhases are those of the epochs that came after, up to the first that had a server: a restore that was given up
// leaves an epoch, too.
func (e ending) afterPhases() (phases []phase) {
	for _, claim := range e.later {
		own := slices.DeleteFunc(slices.Clone(e.After), func(x archive.Entry) bool { return x.Epoch != claim.Number })
		phases = append(phases, timed(stepClaimed, claim.Number, claim.ClaimedAt, nil, fmt.Sprintf("epoch %d, by %s", claim.Number, epoch.Describe(claim.Writer))))
		for _, x := range own {
			phases = append(phases, afterPhase(x, own)...)
		}
	}
	return phases
}

func afterPhase(x archive.Entry, own []archive.Entry) []phase {
	at := x.Time
	switch x.Event {
	case eventRestored:
		return restorePhases(x)
	case eventRestoredShort:
		return []phase{timed(stepRestoredShort, x.Epoch, at, x.Attrs, word(x.Attrs, "error"))}
	case eventRestoreFailed:
		return []phase{timed(stepRestoreFailed, x.Epoch, at, x.Attrs, word(x.Attrs, "error"))}
	case eventShipping:
		// A commit proves that writes were accepted before the sidecar met the server.
		for _, y := range own {
			if written := firstWriteAt(y); y.Event == eventFirstWrite && written.Before(at) {
				at = written
			}
		}
		return []phase{timed(stepAcceptsWrites, x.Epoch, at, x.Attrs, prefixed("the server writes timeline ", word(x.Attrs, "timeline")), prefixed("shipped from ", word(x.Attrs, "from")))}
	}
	return []phase{timed(stepFirstWrite, x.Epoch, firstWriteAt(x), x.Attrs, "the first commit is in the archive", prefixed("it ends at ", word(x.Attrs, "end")))}
}

func firstWriteAt(x archive.Entry) time.Time {
	if at, ok := moment(x.Attrs, "committed_at"); ok {
		return at
	}
	return x.Time
}

// restorePhases are those that the end of a restore tells of. Older versions have not told all of them.
func restorePhases(x archive.Entry) (phases []phase) {
	begun, ok := moment(x.Attrs, "started_at")
	if !ok {
		begun = x.Time
	}
	target := word(x.Attrs, "target")
	from := "with no snapshot: a disk was put on a timeline of its own"
	if s := word(x.Attrs, "snapshot"); s != "" {
		from = "from snapshot " + s
	}
	missing := "nothing missing"
	if list, ok := x.Attrs["missing"].([]any); ok && len(list) > 0 {
		missing = "missing: " + strings.Trim(fmt.Sprint(list), "[]")
	}
	end := prefixed("up to ", word(x.Attrs, "end"))
	if target != "" && target != "latest" {
		end += " at most, for the target " + target
	}
	phases = append(phases, timed(stepRestore, x.Epoch, begun, x.Attrs, "begun "+from, end, missing))
	if at, ok := moment(x.Attrs, "unpacked_at"); ok {
		phases = append(phases, timed(stepUnpacked, x.Epoch, at, nil, "the snapshot is on the disk"))
	}
	if at, ok := moment(x.Attrs, "ready_at"); ok {
		phases = append(phases, timed(stepReplayBegins, x.Epoch, at, nil, "Postgres may start and replay its WAL"))
	}
	return phases
}

// lastCommit is the last one that was restored of an epoch that had no clean end, if the restore went as far as it could.
func (e ending) lastCommit() (phase, bool) {
	for _, x := range e.After {
		at, ok := moment(x.Attrs, "last_commit")
		if ok && x.Event == eventRestored && word(x.Attrs, "target") == "latest" && e.Verdict.Outcome != outcomeClean {
			return timed(stepLastCommit, e.Epoch, at, nil, "the last one that was restored, by the clock of its server"), true
		}
	}
	return phase{}, false
}
