package restore

import (
	"context"
	"errors"
	"fmt"
	"io"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// readSome fills p as far as r goes.
func readSome(r io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(r, p)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return n, err
}

// finish finds out where the WAL ends and what is missing, and settles the target.
func (p *planner) finish(ctx context.Context) error {
	legs := p.plan.Legs
	from := legs[0].From
	end, whole := cover(p.inv, legs, from)
	if n := len(legs); legs[n-1].Timeline != end.Timeline {
		for legs[n-1].Timeline != end.Timeline {
			n--
		}
		legs = legs[:n]
	}
	p.plan.Legs, p.plan.Timeline = legs, end.Timeline
	p.plan.End = min(end.LSN, legs[len(legs)-1].To)
	look := 8 // segments; the time of the last commit is only told to people
	if !p.target.Time.IsZero() {
		look = 0
	}
	t, err := p.scan.tail(ctx, legs, from, p.plan.End, look)
	if err != nil {
		return err
	}
	if t.LastEnd < p.plan.Snapshot.Stop {
		return fmt.Errorf("%w: what is stored as timeline %d from %s to %s is no valid WAL", archive.ErrCorrupt,
			p.plan.Timeline, t.LastEnd, p.plan.End)
	}
	p.plan.ReplayEnd = t.LastEnd
	if t.HasCommit {
		p.plan.LastCommit = t.Commit
	}
	if p.settle(t, whole) {
		p.plan.JobsOff = true
		return nil
	}
	return p.missing(end, whole)
}

// settle decides whether the server is told to stop at the target, and tells whether all that was asked for is there.
// A target that lies after all there is must not be told: the server would refuse to come up.
func (p *planner) settle(t tail, whole bool) (reached bool) {
	target, onLast := p.target, p.last == len(p.legs)-1
	switch {
	case target.LSN != 0 && t.LastStart >= target.LSN:
		p.plan.StopLSN = target.LSN
		return true
	case target.LSN != 0 && p.plan.End >= target.LSN:
		return true
	case !target.Time.IsZero() && t.HasCommit && t.Commit.After(target.Time):
		p.plan.StopTime = target.Time
		return true
	case !target.Time.IsZero() && !onLast && whole:
		return true // all of this leg, and nothing of the next one
	case !target.Latest() && onLast:
		p.warn("the target %s lies after all that was committed: everything up to %s is restored", target, p.plan.End)
	}
	return false
}

// missing finds out whether the WAL ends here because it was lost on the way.
func (p *planner) missing(end wal.Position, whole bool) error {
	var lost string
	promised := p.durable[end.Timeline]
	behind, stray := p.inv.Stray(end.Timeline, end.LSN)
	switch {
	case whole && p.plan.End == p.plan.Legs[len(p.plan.Legs)-1].To:
		return nil // what follows on this timeline was left on purpose
	case !whole:
		lost = fmt.Sprintf("timeline %d ends at %s, though a later one follows it: all that was written after that is lost", end.Timeline, end.LSN)
	case promised > end.LSN:
		lost = fmt.Sprintf("timeline %d ends at %s, but was once stored up to %s", end.Timeline, end.LSN, promised)
	case !stray:
		return nil
	case promised != 0 && behind.Parallel && !p.req.AcceptMissing:
		p.warn("WAL from %s to %s was stored, but not the segment before it: both were on their way when the writer was lost, and nobody was told that they were durable",
			behind.From, behind.To)
		return nil
	default:
		lost = fmt.Sprintf("timeline %d has no WAL from %s to %s; behind that lies WAL up to %s", end.Timeline, end.LSN, behind.From, behind.To)
	}
	if !p.req.AcceptMissing {
		at := "the time of the last commit is not known"
		if !p.plan.LastCommit.IsZero() {
			at = "last commit at " + p.plan.LastCommit.Format("2006-01-02T15:04:05.999999Z07:00")
		}
		return fmt.Errorf("%w: %s. What can be restored ends at %s (%s): accept that loss explicitly, or bring the missing objects back",
			ErrHole, lost, end, at)
	}
	p.plan.Missing = append(p.plan.Missing, p.holes(end, lost)...)
	return nil
}

// holes tells exactly what is accepted to be lost where WAL stops at end: each stretch that is not there, and how far what
// lies behind them goes. lost says it if there is nothing behind.
func (p *planner) holes(end wal.Position, lost string) []string {
	gaps, last := p.inv.Gaps(p.branch, end.LSN)
	if len(gaps) == 0 {
		return []string{lost}
	}
	var all []string
	for _, g := range gaps {
		all = append(all, fmt.Sprintf("timeline %d has no WAL from %s to %s", g.Timeline, g.From, g.To))
	}
	all = append(all, fmt.Sprintf("what lies behind that, up to %s on timeline %d, is not restored", last.LSN, last.Timeline))
	if promised := p.durable[last.Timeline]; promised > last.LSN {
		all = append(all, fmt.Sprintf("timeline %d was once stored up to %s", last.Timeline, promised))
	}
	return all
}
