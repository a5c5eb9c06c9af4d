package archive

import (
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// Gap is a stretch of a branch, [From, To), that its timeline should have written and that is not in the archive
// although something behind it is.
type Gap struct {
	Timeline wal.Timeline `json:"timeline"`
	From     wal.LSN      `json:"from"`
	To       wal.LSN      `json:"to"`
	// at is where a replay stops: From, except in the first segment of a timeline, whose copy of the parent's bytes is
	// needed only once the replay has come to the switch.
	at wal.LSN
}

// Window is a stretch of a branch in which every position from From up to To can be restored.
type Window struct {
	Snapshots []Backup // that a restore in the window can begin with, oldest first
	From      wal.LSN  // where the first snapshot is consistent
	To        wal.LSN  // end of the WAL that follows without a gap
}

// Extent is the WAL that a snapshot needs to become consistent, [from, to). Where the sentinel does not say, as those
// of hand-made archives, it is the segment in its name.
func (inv *Inventory) Extent(k Backup) (from, to wal.LSN) {
	from, to = k.Start(), k.Stop()
	seg, err := wal.ParseSegment(k.StartSegment, inv.Size)
	if err != nil {
		return from, to
	}
	if from == 0 {
		from = seg.Start(inv.Size)
	}
	if to == 0 {
		to = max(from, seg.End(inv.Size))
	}
	return from, to
}

// On tells whether a snapshot was taken on the branch: on one of its timelines, before that was left.
func (inv *Inventory) On(b Branch, k Backup) bool {
	_, to := inv.Extent(k)
	for _, g := range b.Legs {
		if g.Timeline == k.Timeline() {
			return to <= g.To
		}
	}
	return false
}

// Parents returns the snapshots that k is built on, the nearest first. ok is false if one of them is not among all.
func Parents(k Backup, all []Backup) (parents []Backup, ok bool) {
	for k.Delta() {
		i := slices.IndexFunc(all, func(p Backup) bool { return p.Name == *k.Sentinel.DeltaFrom })
		if i < 0 || len(parents) > len(all) {
			return parents, false
		}
		k = all[i]
		parents = append(parents, k)
	}
	return parents, true
}

// Gaps lists what is missing of branch b from position from on, and where its WAL ends. A stretch after which nothing
// follows is no gap but the end, unless the branch goes on with another timeline.
func (inv *Inventory) Gaps(b Branch, from wal.LSN) (gaps []Gap, end wal.Position) {
	end = wal.Position{Timeline: b.Timeline, LSN: from}
	for i, g := range b.Legs {
		if from >= g.To {
			continue
		}
		at := max(from, g.From)
		if i > 0 && at == g.From {
			at = inv.Size.Floor(at)
		}
		for at < g.To {
			if pieces := inv.Follow(g.Timeline, at, g.To); len(pieces) > 0 {
				at = pieces[len(pieces)-1].To
				if at > end.LSN {
					end = wal.Position{Timeline: g.Timeline, LSN: at}
				}
				continue
			}
			next, ok := inv.next(g.Timeline, at, g.To)
			if !ok {
				if g.To == MaxLSN {
					return gaps, end
				}
				next = g.To
			}
			gaps = append(gaps, Gap{Timeline: g.Timeline, From: at, To: next, at: max(at, g.From)})
			at = next
		}
	}
	return gaps, end
}

// next is the first position of timeline t after `after` and below limit that is in the archive.
func (inv *Inventory) next(t wal.Timeline, after, limit wal.LSN) (wal.LSN, bool) {
	owners := inv.Owners(t)
	first := limit
	try := func(at wal.LSN) {
		if at > after && at < first {
			if _, ok := inv.pieceAt(t, at, owners); ok {
				first = at
			}
		}
	}
	for s := range inv.Sealed {
		if s.Timeline == t {
			try(s.Start(inv.Size))
		}
	}
	for s, chunks := range inv.Chunks {
		if s.Timeline != t {
			continue
		}
		for _, c := range chunks {
			try(c.From)
			if o := owners.find(c.Epoch); o != nil && o.from > c.From {
				try(o.from)
			}
		}
	}
	return first, first < limit
}

// Windows lists the stretches of branch b that can be restored with the snapshots in all, oldest first. What cannot be
// restored with (no snapshot, WAL missing before it is consistent, a delta without its parents, one of a writer that had
// been superseded) is in none.
func (inv *Inventory) Windows(b Branch, all []Backup) []Window {
	on := inv.usableOn(b, all)
	if len(on) == 0 {
		return nil
	}
	first, _ := inv.Extent(on[0])
	gaps, end := inv.Gaps(b, first)
	var windows []Window
	last := -1 // the gap that ends the newest window
	for _, k := range on {
		from, to := inv.Extent(k)
		// The first gap that a replay from here would meet.
		i := slices.IndexFunc(gaps, func(g Gap) bool { return g.To > from })
		reach := end.LSN
		if i >= 0 {
			reach = gaps[i].at
		} else {
			i = len(gaps)
		}
		if reach < to || reach < from {
			continue
		}
		if n := len(windows); n > 0 && i == last {
			windows[n-1].Snapshots = append(windows[n-1].Snapshots, k)
			windows[n-1].From = min(windows[n-1].From, to)
			continue
		}
		windows, last = append(windows, Window{Snapshots: []Backup{k}, From: to, To: reach}), i
	}
	return windows
}

func (inv *Inventory) usableOn(b Branch, all []Backup) []Backup {
	var on []Backup
	for _, k := range all {
		if _, whole := Parents(k, all); whole && inv.On(b, k) && !inv.Overtaken(k) {
			on = append(on, k)
		}
	}
	slices.SortStableFunc(on, func(x, y Backup) int {
		xf, _ := inv.Extent(x)
		yf, _ := inv.Extent(y)
		return compare(xf, yf)
	})
	return on
}

// Tips lists the timelines whose branches hold something that no other branch does: those with WAL of their own past
// the point where a later timeline left them. The newest branch's is always among them. Lowest first.
func (inv *Inventory) Tips() []wal.Timeline {
	newest, _ := inv.Newest()
	var tips []wal.Timeline
	for _, t := range inv.Timelines() {
		if t == newest.Timeline || inv.past(t, inv.left(t)) {
			tips = append(tips, t)
		}
	}
	return tips
}

// left is the furthest position at which another timeline that has WAL left t; 0 if none did.
func (inv *Inventory) left(t wal.Timeline) wal.LSN {
	var furthest wal.LSN
	for _, child := range inv.Timelines() {
		if parent, at, err := inv.parent(child); err == nil && parent == t && inv.Restorable(child) && inv.past(child, 0) {
			furthest = max(furthest, at)
		}
	}
	return furthest
}

// past tells whether timeline t has WAL past position at.
func (inv *Inventory) past(t wal.Timeline, at wal.LSN) bool {
	if _, ok := inv.pieceAt(t, at, inv.Owners(t)); ok {
		return true
	}
	_, ok := inv.next(t, at, MaxLSN)
	return ok
}

// Holdings lists the pieces of WAL that there are of branch b from position from on, in order, passing over gaps.
func (inv *Inventory) Holdings(b Branch, from wal.LSN) []Piece {
	var all []Piece
	for i, g := range b.Legs {
		if from >= g.To {
			continue
		}
		at := max(from, g.From)
		if i > 0 && at == g.From {
			at = inv.Size.Floor(at)
		}
		for at < g.To {
			pieces := inv.Follow(g.Timeline, at, g.To)
			all = append(all, pieces...)
			if n := len(pieces); n > 0 {
				at = pieces[n-1].To
			}
			next, ok := inv.next(g.Timeline, at, g.To)
			if !ok {
				break
			}
			at = next
		}
	}
	return all
}
