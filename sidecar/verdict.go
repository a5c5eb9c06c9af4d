package main

import (
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// outcome says how an epoch ended.
type outcome string

// The outcomes. The words are stable.
const (
	outcomeClean       outcome = "clean"       // proven: everything is in the archive
	outcomeInterrupted outcome = "interrupted" // the sidecar said goodbye, Postgres had not been shut down
	outcomeVanished    outcome = "vanished"    // nobody said goodbye
	outcomeRunning     outcome = "running"     // it has not ended
	outcomeNothing     outcome = "nothing"     // it never wrote anything, such as a restore that was given up
)

// verdict is what can be concluded about an epoch.
type verdict struct {
	Outcome outcome  `json:"outcome"`
	Text    string   `json:"text"`
	Lost    string   `json:"lost"`
	Bytes   *int64   `json:"lost_bytes,omitempty"`  // of WAL that was seen and not shipped; absent if it is not known
	Durable *wal.LSN `json:"durable_lsn,omitempty"` // what of its timeline the archive holds
}

// beatsMissed is how many heartbeats in a row must be missing before a writer counts as gone.
const beatsMissed = 3

// judge concludes from receipt, heartbeat and WAL how the epoch ended.
func (e ending) judge(claim archive.Epoch) verdict {
	r, h := e.receipt(), e.Heartbeat
	switch {
	case r != nil && e.inventory.LostPast(e.Epoch, r.Timeline) < r.Durable:
		return overtaken(*r, e.inventory.LostPast(e.Epoch, r.Timeline))
	case r != nil && e.heir(*r).leaves(*r):
		return e.leftBehind(*r)
	case r != nil && r.Clean:
		return e.clean(*r, claim)
	case r != nil && r.Superseded && r.LocalEnd != 0:
		return e.handedOver(*r)
	case r != nil:
		return e.interrupted(*r)
	case e.Successor == nil && h != nil && h.Age <= beatsMissed*h.Interval:
		return verdict{
			Outcome: outcomeRunning, Lost: "nothing so far", Durable: &h.Durable,
			Text: fmt.Sprintf("it was alive %.0f s ago, and had timeline %d durable up to %s", h.Age, h.Timeline, h.Durable),
		}
	case claim.Timeline == 0 && len(e.claims) == 0:
		return verdict{
			Outcome: outcomeNothing, Lost: "nothing, it never wrote",
			Text: "it was claimed for a restore, and no server has written under it",
		}
	}
	return e.vanished(claim)
}

// receipt is the one that counts; nil if there is none.
func (e ending) receipt() *archive.Receipt {
	if e.Receipt != nil && e.outlived(*e.Receipt) {
		return nil
	}
	return e.Receipt
}

// outlived tells whether a receipt is of an earlier stop: a sidecar that is restarted in the same pod goes on with its
// epoch. It says so, but may be lost before it can, and a heartbeat comes once a minute. WAL of the epoch behind what the
// receipt speaks of is proof enough.
func (e ending) outlived(r archive.Receipt) bool {
	h := e.Heartbeat
	if r.Running || h != nil && (h.Timeline > r.Timeline || h.Timeline == r.Timeline && h.Durable > r.Durable) {
		return true
	}
	for _, c := range e.claims {
		if c.Timeline > r.Timeline {
			return true
		}
	}
	return e.inventory.WroteAfter(e.Epoch, r.Timeline, r.Durable)
}

// overtaken is the end of a writer that had been superseded and did not know it yet when it stopped. How much is lost is
// not known: who went on with the same disk has shipped the same WAL again.
func overtaken(r archive.Receipt, at wal.LSN) verdict {
	return verdict{
		Outcome: outcomeInterrupted, Durable: &at,
		Text: fmt.Sprintf("at %s: %s; but by then another epoch had taken over timeline %d from %s on", timeText(r.FinishedAt), r.Reason, r.Timeline, at),
		Lost: fmt.Sprintf("at most %d bytes of WAL, from %s to %s, which were stored when the timeline was another writer's: nothing, if that one went on with the same disk",
			int64(r.Durable-at), at, r.Durable),
	}
}

func (e ending) clean(r archive.Receipt, claim archive.Epoch) verdict {
	zero := int64(0)
	v := verdict{
		Outcome: outcomeClean, Lost: "nothing", Bytes: &zero, Durable: &r.Durable,
		Text: fmt.Sprintf("at %s pg_control said %q, its shutdown checkpoint is the record from %s to %s, and timeline %d was durable up to %s",
			timeText(r.FinishedAt), r.State, r.Checkpoint, r.CheckpointEnd, r.Timeline, r.Durable),
	}
	if r.Durable < r.CheckpointEnd {
		// No writer of ours says so; then the receipt proves nothing.
		v.Outcome, v.Bytes = outcomeInterrupted, nil
		v.Lost = fmt.Sprintf("what lies between %s and %s: the receipt contradicts itself", r.Durable, r.CheckpointEnd)
		return v
	}
	h := e.heir(r)
	if h.disk != nil {
		return v // what came after the stop is that epoch's to say
	}
	v.Lost = "nothing up to this stop"
	f := h.fork
	switch {
	case r.StartedAgain != nil:
		return startedAgain(v, *r.StartedAgain)
	case f != nil && f.Switch < r.CheckpointEnd:
		v.Lost += fmt.Sprintf("; epoch %d went on from %s, before the end, because it was asked to restore %q", f.Epoch, f.Switch, f.Target)
	case e.Successor == nil && e.diskStays(claim):
		v.Lost += "; whether the same disk was started again while the archive was away, it cannot know"
	}
	return v
}

func (e ending) interrupted(r archive.Receipt) verdict {
	v := verdict{
		Outcome: outcomeInterrupted, Durable: &r.Durable,
		Text: fmt.Sprintf("at %s: %s; timeline %d was durable up to %s", timeText(r.FinishedAt), r.Reason, r.Timeline, r.Durable),
	}
	switch {
	case r.LocalEnd > r.Durable:
		n := int64(r.LocalEnd - r.Durable)
		v.Bytes = &n
		v.Lost = fmt.Sprintf("%d bytes of WAL, from %s to %s, were on the disk and not in the archive, unless that disk was used again", n, r.Durable, r.LocalEnd)
	case r.LocalEnd != 0:
		v.Lost = fmt.Sprintf("nothing that was on the disk when it was looked at: its WAL ended at %s", r.LocalEnd)
	default:
		from := r.Durable
		if f := e.heir(r).fork; f != nil && f.Target == "" {
			from = min(from, f.Switch)
		}
		v.Lost = fmt.Sprintf("what was committed after %s, if anything: Postgres may have gone on after the sidecar had to go", from)
	}
	return v
}

// vanished is the end of a writer that had no time to say anything: its node was lost.
func (e ending) vanished(claim archive.Epoch) verdict {
	t, from := claim.Timeline, claim.Since
	for _, c := range e.claims {
		if c.Timeline >= t {
			t, from = c.Timeline, c.Switch
		}
	}
	if h := e.Heartbeat; h != nil && h.Timeline == t {
		from = max(from, h.Durable)
	}
	limit := archive.MaxLSN
	if s := e.Successor; s != nil && s.Timeline == t {
		limit = s.Since
	}
	end := from
	if pieces := e.inventory.Follow(t, from, limit); len(pieces) > 0 {
		end = pieces[len(pieces)-1].To
	}
	v := verdict{
		Outcome: outcomeVanished, Durable: &end,
		Text: fmt.Sprintf("it left no receipt, so it had no time to: its node, or its sidecar, was gone at once. The archive holds timeline %d up to %s", t, end),
		Lost: fmt.Sprintf("what was committed after %s, if anything: by the policy at most the last moments, and the archive cannot know more", end),
	}
	if h := e.Heartbeat; h != nil {
		v.Text += fmt.Sprintf("; its last sign of life was at %s", timeText(h.At))
	}
	if e.Successor != nil && limit == end && limit != archive.MaxLSN {
		v.Lost = fmt.Sprintf("nothing: epoch %d went on with the same disk from %s", e.Successor.Number, e.Successor.Since)
	}
	return v
}
