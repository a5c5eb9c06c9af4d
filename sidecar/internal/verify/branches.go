package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// checkBranches looks for gaps in every branch and returns the WAL whose content is to be read.
func (v *verifier) checkBranches() []task {
	newest, err := v.inv.Newest()
	if err != nil && !errors.Is(err, archive.ErrNoBranch) {
		v.note(HistoryConflict, "the newest branch", err.Error())
		newest = archive.Branch{}
	}
	if c, lost := v.inv.Forgotten(newest, v.said); err == nil && lost {
		v.notef(WALLost, fmt.Sprintf("timeline %d", c.Timeline), "timeline %d was once stored from %s to %s, and is gone: bring the missing objects back, a restore refuses to leave them out",
			c.Timeline, c.Switch, v.said[c.Timeline])
	}
	seen := map[any]bool{}
	var work []task
	for _, t := range v.branchTimelines(newest.Timeline) {
		b, err := v.inv.Branch(t)
		if t == newest.Timeline {
			b, err = newest, nil
		}
		if err != nil {
			v.notef(HistoryConflict, wal.HistoryName(t), "timeline %d cannot be followed: %v", t, err)
			continue
		}
		from, ok := v.checkBranch(b, t == newest.Timeline)
		if !ok {
			continue
		}
		for _, p := range v.inv.Holdings(b, from) {
			var key any = p.Segment
			if p.Chunk != nil {
				key = *p.Chunk
			}
			if !seen[key] {
				seen[key] = true
				work = append(work, v.walTask(p))
			}
		}
	}
	v.checkUsable()
	return work
}

// branchTimelines are those to follow: each tip, and those that snapshots were taken on, so that none is overlooked.
func (v *verifier) branchTimelines(newest wal.Timeline) []wal.Timeline {
	all := v.inv.Tips()
	if newest != 0 && !slices.Contains(all, newest) {
		all = append(all, newest)
	}
	for _, t := range v.inv.Timelines() {
		if _, err := v.inv.Branch(t); err != nil && !slices.Contains(all, t) {
			all = append(all, t) // to be reported
		}
	}
	slices.Sort(all)
	return all
}

// checkBranch reports a branch and its gaps. ok is false if there is no snapshot to begin with.
func (v *verifier) checkBranch(b archive.Branch, newest bool) (from wal.LSN, ok bool) {
	from = archive.MaxLSN
	for _, s := range v.all {
		if v.inv.On(b, s) {
			start, _ := v.inv.Extent(s)
			from, ok = min(from, start), true
		}
	}
	r := Branch{Timeline: b.Timeline, Newest: newest}
	if windows := v.inv.Windows(b, v.all); len(windows) > 0 {
		r.From = windows[0].From
	} else if newest {
		v.notef(NoSnapshot, fmt.Sprintf("timeline %d", b.Timeline), "the newest branch has no snapshot that a restore could begin with: take one")
	}
	if !ok {
		_, end := v.inv.Gaps(b, 0)
		r.To = end.LSN
		v.checkPromise(b, end)
		v.report.Branches = append(v.report.Branches, r)
		return 0, false
	}
	gaps, end := v.inv.Gaps(b, from)
	r.Gaps, r.To = gaps, end.LSN
	v.checkPromise(b, end)
	for _, g := range gaps {
		seg := v.inv.Size.SegmentAt(g.Timeline, g.From)
		v.notef(WALGap, seg.Name(v.inv.Size), "timeline %d is missing from %s to %s: nothing past it can be restored from a snapshot before it",
			g.Timeline, g.From, g.To)
	}
	v.report.Branches = append(v.report.Branches, r)
	return from, true
}

// checkPromise reports a branch that ends before the end that its writer has promised. Nothing lies behind what was lost
// there, so that it is no gap.
func (v *verifier) checkPromise(b archive.Branch, end wal.Position) {
	from := end.LSN
	if end.Timeline != b.Timeline {
		from = max(from, b.Legs[len(b.Legs)-1].From) // it has no WAL of its own
	}
	if said := v.said[b.Timeline]; said > from {
		v.notef(WALLost, fmt.Sprintf("timeline %d", b.Timeline), "timeline %d ends at %s, but was once stored up to %s: bring the missing objects back, a restore refuses to leave them out",
			b.Timeline, from, said)
	}
}

// checkUsable reports snapshots that could not even become consistent.
func (v *verifier) checkUsable() {
	for _, s := range v.all {
		b, err := v.inv.Branch(s.Timeline())
		if _, whole := archive.Parents(s, v.all); err != nil || !whole {
			continue // reported already
		}
		if v.inv.Overtaken(s) {
			continue // nothing is wrong with the archive: its writer had been superseded, and no restore begins with it
		}
		from, to := v.inv.Extent(s)
		used := slices.ContainsFunc(v.inv.Windows(b, []archive.Backup{alone(s)}), func(archive.Window) bool { return true })
		if !used {
			v.notef(SnapshotUnusable, s.Name, "it needs the WAL of timeline %d from %s to %s, which is not all there: use another snapshot", s.Timeline(), from, to)
		}
	}
}

// alone is a snapshot as if it were full, so that only its WAL is judged.
func alone(b archive.Backup) archive.Backup {
	b.Sentinel.DeltaFrom = nil
	return b
}

// checkReceipts holds what receipts promise against the WAL that is there.
func (v *verifier) checkReceipts(ctx context.Context) error {
	for _, e := range v.inv.Epochs {
		r, err := v.w.Receipt(ctx, e.Number)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil && v.damaged(fmt.Sprintf("outrider/receipts/%010d.json", e.Number), err):
			continue
		case err != nil:
			return err
		}
		if !r.Clean || r.CheckpointEnd == 0 || !v.expected(r) {
			continue
		}
		if len(v.inv.Follow(r.Timeline, r.CheckpointEnd-1, r.CheckpointEnd)) == 0 {
			v.notef(ReceiptUnsupported, fmt.Sprintf("outrider/receipts/%010d.json", e.Number), "epoch %d ended clean with timeline %d up to %s in the archive, which it no longer is",
				e.Number, r.Timeline, r.CheckpointEnd)
		}
	}
	return nil
}

// expected tells whether the WAL that a receipt speaks of cannot have expired: a snapshot of its branch is older.
func (v *verifier) expected(r archive.Receipt) bool {
	b, err := v.inv.Branch(r.Timeline)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(v.all, func(s archive.Backup) bool {
		from, _ := v.inv.Extent(s)
		return v.inv.On(b, s) && from < r.CheckpointEnd
	})
}
