package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// pickBranch decides which line of history to follow.
func (p *planner) pickBranch() error {
	newest, err := p.inv.Newest()
	if errors.Is(err, archive.ErrNoBranch) {
		return fmt.Errorf("%w: there is no WAL in the archive", ErrNoSnapshot)
	}
	if err != nil && p.target.Timeline == 0 {
		return err
	}
	p.branch = newest
	if err == nil {
		p.newest = newest.Timeline
		p.plan.ArchiveEnd = archiveEnd(p.inv, newest, p.backups)
	}
	switch {
	case err == nil && p.fulfilled(newest):
	case p.target.Timeline != 0:
		if p.branch, err = p.branchOf(p.target.Timeline); err != nil {
			return err
		}
	default:
		if err := p.notForgotten(newest); err != nil {
			return err
		}
	}
	p.legs = p.branch.Legs
	p.last = len(p.legs) - 1
	return nil
}

// fulfilled tells whether an earlier restore to the very same target led to a timeline of the branch. What was written
// since then is to be kept.
func (p *planner) fulfilled(newest archive.Branch) bool {
	asked := p.target.String()
	if p.req.Repeat || asked == (Target{}).String() {
		return false
	}
	for _, g := range newest.Legs {
		if p.inv.Claims[g.Timeline].Target == asked {
			p.warn("the target %s was restored before, as timeline %d, which is continued", asked, g.Timeline)
			p.target = Target{}
			return true
		}
	}
	return false
}

func (p *planner) branchOf(t wal.Timeline) (archive.Branch, error) {
	if !slices.Contains(p.inv.Timelines(), t) {
		return archive.Branch{}, fmt.Errorf("%w: the archive knows the timelines %v, not %d", ErrNoTimeline, p.inv.Timelines(), t)
	}
	b, err := p.inv.Branch(t)
	if err == nil && !p.inv.Restorable(t) {
		last := b.Legs[len(b.Legs)-1]
		return b, fmt.Errorf("%w: the WAL of timeline %d was never stored up to %s, where it begins; the timeline before it is %d",
			ErrNoTimeline, t, last.From, b.Legs[len(b.Legs)-2].Timeline)
	}
	return b, err
}

// notForgotten refuses a branch that leaves out what the newest writer has promised.
func (p *planner) notForgotten(newest archive.Branch) error {
	c, ok := p.inv.Forgotten(newest, p.durable)
	if !ok {
		return nil
	}
	lost := fmt.Sprintf("timeline %d was once stored from %s to %s, and is gone", c.Timeline, c.Switch, p.durable[c.Timeline])
	if !p.req.AcceptMissing {
		return fmt.Errorf("%w: %s: accept that loss explicitly, or bring the missing objects back", ErrHole, lost)
	}
	p.plan.Missing = append(p.plan.Missing, lost)
	return nil
}

// archiveEnd is where the WAL of a branch ends in the archive.
func archiveEnd(inv *archive.Inventory, b archive.Branch, backups []archive.Backup) wal.Position {
	g := b.Legs[len(b.Legs)-1]
	from := inv.Size.Floor(g.From)
	if len(b.Legs) == 1 {
		from = archive.MaxLSN
		for s := range inv.Sealed {
			if s.Timeline == g.Timeline {
				from = min(from, s.Start(inv.Size))
			}
		}
		for s := range inv.Chunks {
			if s.Timeline == g.Timeline {
				from = min(from, s.Start(inv.Size))
			}
		}
	}
	for _, k := range backups {
		if k.Timeline() == g.Timeline && k.Start() != 0 {
			from = max(from, inv.Size.Floor(k.Start()))
		}
	}
	if from == archive.MaxLSN {
		return wal.Position{Timeline: g.Timeline}
	}
	return wal.Position{Timeline: g.Timeline, LSN: min(g.To, max(g.From, inv.End(g.Timeline, from)))}
}

// pickLeg finds the leg on which the target lies. Recovery must follow that timeline and not a later one: the server
// would otherwise promote to a timeline whose .history claims that the later one was left before it began.
func (p *planner) pickLeg(ctx context.Context) error {
	switch {
	case p.target.LSN != 0:
		return p.pickLegByLSN()
	case !p.target.Time.IsZero():
		return p.pickLegByTime(ctx)
	}
	return nil
}

func (p *planner) pickLegByLSN() error {
	at := p.target.LSN - 1 // the last byte that is wanted
	for i, g := range p.legs {
		if at >= g.From && at < g.To {
			p.last = i
		}
	}
	if p.target.Timeline != 0 {
		return nil
	}
	own := p.legs[p.last].Timeline
	if p.holds(own, at) && (len(p.inv.Epochs) > 0 || len(p.inv.Claims) > 0) {
		return nil // the branch of the newest epoch is meant
	}
	for _, t := range p.inv.Timelines() {
		b, err := p.inv.Branch(t)
		if t == own || err != nil {
			continue
		}
		if at >= b.Legs[len(b.Legs)-1].From && p.holds(t, at) {
			return fmt.Errorf("%w: timeline %d has WAL at %s that timeline %d does not share: say which is meant, %s@%d or %s@%d",
				ErrAmbiguous, t, p.target, own, p.target, own, p.target, t)
		}
	}
	return nil
}

func (p *planner) holds(t wal.Timeline, at wal.LSN) bool { return len(p.inv.Follow(t, at, at+1)) > 0 }

// pickLegByTime goes back from leg to leg until one has committed something by the time that is asked for. A time
// between the last commit before a switch and the first one after it is ambiguous if the parent went on meanwhile: the
// branch has nothing of that time, and what was left behind has.
func (p *planner) pickLegByTime(ctx context.Context) error {
	for ; p.last > 0; p.last-- {
		g := p.legs[p.last]
		end := min(g.To, p.inv.End(g.Timeline, p.inv.Size.Floor(g.From)))
		first, found, err := p.scan.firstCommit(ctx, p.legs[:p.last+1], g.From, end)
		if err != nil {
			return err
		}
		if found && !first.After(p.target.Time) {
			return nil
		}
		if err := p.leftBehind(ctx, p.legs[p.last-1].Timeline, g); err != nil {
			return err
		}
		if found {
			continue
		}
		before, err := p.scan.tail(ctx, p.legs[:p.last], p.legs[p.last-1].From, g.From, 0)
		if err != nil && !errors.Is(err, ErrHole) {
			return err
		}
		if before.HasCommit && !before.Commit.After(p.target.Time) {
			return nil
		}
	}
	return nil
}

// leftBehind tells whether the parent of leg g committed something after the switch and before the target.
func (p *planner) leftBehind(ctx context.Context, parent wal.Timeline, g archive.Leg) error {
	if p.target.Timeline != 0 {
		return nil
	}
	end := p.inv.End(parent, g.From)
	if end == g.From {
		return nil
	}
	legs := []archive.Leg{{Timeline: parent, To: archive.MaxLSN}}
	first, found, err := p.scan.firstCommit(ctx, legs, g.From, end)
	if err != nil || !found || first.After(p.target.Time) {
		return err
	}
	return fmt.Errorf("%w: timeline %d was left at %s for timeline %d, which has no commit as old as %s; those that timeline %d went on to make, from %s on, are on it alone: say which is meant, %s@%d or %s@%d",
		ErrAmbiguous, parent, g.From, g.Timeline, p.target, parent, first.Format(time.RFC3339Nano), p.target, parent,
		p.target, g.Timeline)
}

// seams finds out whether the WAL of each leg follows on that of the one before. It does not where a disk that had
// diverged was put on a new timeline: its .history names a parent that is another one in the archive. The server would
// take the seam for the end of the WAL.
func (p *planner) seams(ctx context.Context, legs []archive.Leg, end wal.LSN) (why, err error) {
	for _, g := range legs[1:] {
		seam := p.inv.Size.Floor(g.From) // from here on the server reads the child's segments
		if seam <= legs[0].From || seam >= end {
			continue
		}
		from := max(legs[0].From, seam-wal.LSN(p.inv.Size))
		src := p.scan.source(ctx, legs, end)
		var passed wal.LSN // the end of the last record before or across the seam, 0 if none was found
		err := records(src, from, end, p.scan.options(legs), func(r wal.Record) bool {
			passed = r.End
			return passed <= seam
		})
		broken := err == nil && passed != 0 && passed < seam
		if err == nil && passed == seam {
			// Either the child holds no whole record yet, or it has one that does not follow.
			err = records(src, seam, end, p.scan.options(legs), func(wal.Record) bool {
				broken = true
				return false
			})
		}
		err = errors.Join(err, src.Close())
		if err != nil && !errors.Is(err, ErrHole) {
			return nil, err
		}
		if broken || err != nil {
			return fmt.Errorf("%w: the WAL of timeline %d at %s does not follow on what the archive holds before it", ErrHole, g.Timeline, seam), nil
		}
	}
	return nil, nil
}
