package main

import (
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/wal"
)

// heir is who went on with what an epoch had written. Epochs in between that wrote nothing, such as restores that were
// given up, are none.
type heir struct {
	disk *archive.Epoch         // it went on with the same disk, on the same timeline
	fork *archive.TimelineClaim // or it left the timeline for this one
}

// heir of the timeline that a receipt speaks of; the zero heir if nobody has gone on yet.
func (e ending) heir(r archive.Receipt) heir {
	for i, next := range e.inventory.Epochs {
		if next.Number <= e.Epoch {
			continue
		}
		for _, t := range e.inventory.Timelines() {
			if c, ok := e.inventory.Claims[t]; ok && c.Epoch == next.Number && c.Parent == r.Timeline {
				return heir{fork: &c}
			}
		}
		if next.Timeline == r.Timeline {
			return heir{disk: &e.inventory.Epochs[i]}
		}
	}
	return heir{}
}

// leaves tells whether the heir went on from before the end of what was written, and nobody had asked for that: from what
// it found, while the writer before still wrote somewhere. A receipt that names no end of whole records proves none.
func (h heir) leaves(r archive.Receipt) bool {
	return h.fork != nil && h.fork.Target == "" && h.fork.Switch < min(writtenTo(r), r.Durable)
}

// writtenTo is the end of the last whole record that was on the disk; 0 if it is not known.
func writtenTo(r archive.Receipt) wal.LSN { return max(r.CheckpointEnd, r.LocalEnd) }

// leftBehind is the end of a writer whose last WAL is in the archive and not in the database: who took over did not know
// of it. The files of the writer prove nothing about that, clean or not.
func (e ending) leftBehind(r archive.Receipt) verdict {
	f, end := e.heir(r).fork, writtenTo(r)
	n := int64(end - f.Switch)
	return verdict{
		Outcome: outcomeInterrupted, Bytes: &n, Durable: &f.Switch,
		Text: fmt.Sprintf("at %s: %s; but epoch %d had gone on from %s, for timeline %d", timeText(r.FinishedAt), r.Reason, f.Epoch, f.Switch, f.Timeline),
		Lost: fmt.Sprintf("%d bytes of WAL, from %s to %s, without which epoch %d went on; what of it was shipped the archive has on timeline %d alone",
			n, f.Switch, end, f.Epoch, r.Timeline),
	}
}

// handedOver is the end of a writer that knew by then that it had been superseded, and whose last WAL did not come too
// late, as far as that can be told.
func (e ending) handedOver(r archive.Receipt) verdict {
	v := e.interrupted(r)
	switch h := e.heir(r); {
	case r.LocalEnd > r.Durable: // it says what is missing
	case h.disk != nil:
		v.Lost = fmt.Sprintf("nothing: epoch %d went on with the same disk from %s", h.disk.Number, h.disk.Since)
	case h.fork != nil && h.fork.Switch >= r.LocalEnd:
		v.Lost = fmt.Sprintf("nothing: epoch %d went on from its end, %s", h.fork.Epoch, h.fork.Switch)
	case h.fork != nil:
		v.Lost = fmt.Sprintf("nothing by accident; epoch %d went on from %s, because it was asked to restore %q", h.fork.Epoch, h.fork.Switch, h.fork.Target)
	default:
		v.Lost = fmt.Sprintf("it is not known yet: who took over has not gone on from anywhere; it may not have seen all up to %s", r.LocalEnd)
	}
	return v
}

// diskStays tells whether the disk of an epoch is known to outlive a stop: it is that of a machine, or had been an earlier
// epoch's. That of a pod which made it, or restored it, goes with the pod as a rule.
func (e ending) diskStays(claim archive.Epoch) bool {
	if e.Writer.Pod == "" {
		return true
	}
	c, ok := e.inventory.Claims[claim.Timeline]
	return ok && c.Epoch < claim.Number
}

// startedAgain is the verdict on a clean stop after which a server was let start on the same disk, of which nobody has
// heard since.
func startedAgain(v verdict, s archive.StartedAgain) verdict {
	v.Outcome, v.Bytes = outcomeVanished, nil
	v.Text += fmt.Sprintf("; but at %s %s let a server start on the same disk again, and nothing of that came into the archive", timeText(s.At), epoch.Describe(s.Writer))
	v.Lost += fmt.Sprintf("; and what was committed after %s, when the same disk was started again, if anything: the archive cannot know", timeText(s.At))
	return v
}
