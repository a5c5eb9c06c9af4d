package archive

import (
	"errors"
	"fmt"
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// MaxLSN is past every position: the open end of a branch.
const MaxLSN = ^wal.LSN(0)

// ErrNoBranch says that the root holds no WAL history that could be followed.
var ErrNoBranch = errors.New("the archive holds no timeline that can be followed")

// Leg is the part of a branch that one timeline wrote: [From, To). To is MaxLSN on the last one.
type Leg struct {
	Timeline wal.Timeline
	From, To wal.LSN
}

// Branch is one line of history: a timeline and its ancestors up to where each was left, oldest first.
type Branch struct {
	Timeline wal.Timeline
	Legs     []Leg
}

// Leg returns the leg of the branch that wrote the byte at l.
func (b Branch) Leg(l wal.LSN) (Leg, bool) {
	for _, g := range b.Legs {
		if l >= g.From && l < g.To {
			return g, true
		}
	}
	return Leg{}, false
}

// Branch follows timeline t to its root. Where t has no .history yet, its claim tells the last step: a promotion
// claims its timeline before anything else of it is stored.
func (inv *Inventory) Branch(t wal.Timeline) (Branch, error) {
	b := Branch{Timeline: t}
	to := MaxLSN
	seen := map[wal.Timeline]bool{}
	var told wal.History // what the nearest descendant with a .history says of its ancestors
	for t != 0 {
		if seen[t] {
			return b, fmt.Errorf("following timeline %d: %w: its ancestry runs in a circle", b.Timeline, ErrCorrupt)
		}
		seen[t] = true
		parent, from, err := inv.parent(t)
		if err != nil {
			return b, err
		}
		if h, ok := inv.Histories[t]; ok {
			told = h
		} else if told, err = cutHistory(told, t, parent, from); err != nil {
			return b, fmt.Errorf("following timeline %d: %w", b.Timeline, err)
		} else if parent == 0 && len(told) > 0 {
			parent, from = told[len(told)-1].Parent, told[len(told)-1].LSN
		}
		if from > to {
			return b, fmt.Errorf("following timeline %d: %w: timeline %d begins at %s, after it was left at %s", b.Timeline, ErrCorrupt, t, from, to)
		}
		b.Legs = append(b.Legs, Leg{Timeline: t, From: from, To: to})
		t, to = parent, from
	}
	slices.Reverse(b.Legs)
	return b, nil
}

// cutHistory leaves of what a descendant tells the part that came before t, and refuses a claim of t that contradicts it.
func cutHistory(told wal.History, t, parent wal.Timeline, from wal.LSN) (wal.History, error) {
	n := slices.IndexFunc(told, func(s wal.Switch) bool { return s.Parent == t })
	if n < 0 {
		return nil, nil
	}
	told = told[:n]
	if n > 0 && parent != 0 && (told[n-1].Parent != parent || told[n-1].LSN != from) {
		return nil, fmt.Errorf("%w: the claim of timeline %d says parent %d at %s, the history of a descendant %d at %s",
			ErrConflict, t, parent, from, told[n-1].Parent, told[n-1].LSN)
	}
	return told, nil
}

func (inv *Inventory) parent(t wal.Timeline) (parent wal.Timeline, from wal.LSN, err error) {
	h, hasHistory := inv.Histories[t]
	c, hasClaim := inv.Claims[t]
	if hasHistory {
		last := h[len(h)-1]
		if hasClaim && c.Parent != 0 && (c.Parent != last.Parent || c.Switch != last.LSN) {
			return 0, 0, fmt.Errorf("following timeline %d: %w: its claim says parent %d at %s, its history %d at %s", t, ErrConflict, c.Parent, c.Switch, last.Parent, last.LSN)
		}
		return last.Parent, last.LSN, nil
	}
	if hasClaim && c.Parent != 0 {
		return c.Parent, c.Switch, nil
	}
	return 0, 0, nil // a first timeline; what lies before the archive's first segment is simply not there
}

// Piece is a stretch of WAL inside one segment and where it is: in the sealed object, or in a chunk.
type Piece struct {
	Segment  wal.Segment
	From, To wal.LSN
	Chunk    *Chunk // nil: in the sealed object
}

// Follow lists the pieces that cover timeline t from `from` on without a hole, up to limit, in order. Where it stops,
// the next byte is not in the archive (or is beyond limit).
func (inv *Inventory) Follow(t wal.Timeline, from, limit wal.LSN) []Piece {
	var pieces []Piece
	owners := inv.Owners(t)
	for at := from; at < limit; {
		p, ok := inv.pieceAt(t, at, owners)
		if !ok {
			break
		}
		p.To = min(p.To, limit)
		pieces = append(pieces, p)
		at = p.To
	}
	return pieces
}

func (inv *Inventory) pieceAt(t wal.Timeline, at wal.LSN, owners Owners) (Piece, bool) {
	seg := inv.Size.SegmentAt(t, at)
	if s, ok := inv.Sealed[seg]; ok && at < owners.End(s, inv.Size) {
		return Piece{Segment: seg, From: at, To: owners.End(s, inv.Size)}, true
	}
	best := Piece{Segment: seg, From: at, To: at}
	for _, c := range inv.Chunks[seg] {
		o := owners.find(c.Epoch)
		if o == nil {
			continue
		}
		// A superseded epoch's bytes past its successor's start belong to nobody.
		to := min(c.To, o.to)
		if c.From <= at && at < to && at >= o.from && to > best.To {
			best.To, best.Chunk = to, &c
		}
	}
	return best, best.Chunk != nil
}

// End is the first position at or after from that is not in the archive on timeline t.
func (inv *Inventory) End(t wal.Timeline, from wal.LSN) wal.LSN {
	pieces := inv.Follow(t, from, MaxLSN)
	if len(pieces) == 0 {
		return from
	}
	return pieces[len(pieces)-1].To
}

// Reach tells how far a branch can be replayed from `from`: the contiguous WAL over all its legs. whole is false if
// it ends inside a leg that was left later, that is, if something is missing in the middle.
func (inv *Inventory) Reach(b Branch, from wal.LSN) (end wal.Position, whole bool) {
	at := from
	end = wal.Position{LSN: from}
	for i, g := range b.Legs {
		if at >= g.To {
			continue
		}
		end.Timeline = g.Timeline
		start := at
		if i > 0 && at == g.From {
			// The child's first segment begins with a copy of its parent's bytes: it counts only if it is there whole.
			start = inv.Size.Floor(g.From)
		}
		pieces := inv.Follow(g.Timeline, start, g.To)
		if len(pieces) > 0 {
			at = max(at, pieces[len(pieces)-1].To)
		}
		end.LSN = at
		if at < g.To {
			return end, g.To == MaxLSN
		}
	}
	return end, true
}

// Restorable tells whether timeline t has its own WAL up to at least its fork: otherwise only its parent up to the
// fork is restorable. WAL past the first segment proves as much, since it is written in order: the first one has then
// expired, and taking the timeline for one that never began would undo everything written since.
func (inv *Inventory) Restorable(t wal.Timeline) bool {
	parent, from, err := inv.parent(t)
	if err != nil {
		return false
	}
	if parent == 0 {
		return true
	}
	return inv.End(t, inv.Size.Floor(from)) >= from || inv.past(t, inv.Size.SegmentAt(t, from).End(inv.Size))
}

// Newest picks the branch of the newest valid epoch: the highest epoch that owns a timeline. If that timeline never
// got its own WAL, it is the parent's branch up to the fork, so that a restore to an earlier point is not undone.
// Without epochs (an archive of WAL-G's) it is the highest timeline.
func (inv *Inventory) Newest() (Branch, error) {
	t := inv.newestTimeline()
	if t == 0 {
		return Branch{}, ErrNoBranch
	}
	b, err := inv.Branch(t)
	if err != nil {
		return b, err
	}
	for len(b.Legs) > 1 && !inv.Restorable(b.Timeline) {
		b.Legs = b.Legs[:len(b.Legs)-1]
		b.Timeline = b.Legs[len(b.Legs)-1].Timeline
	}
	return b, nil
}

func (inv *Inventory) newestTimeline() wal.Timeline {
	var newest wal.Timeline
	var epoch uint64
	for _, c := range inv.Claims {
		if c.Epoch > epoch || c.Epoch == epoch && c.Timeline > newest {
			newest, epoch = c.Timeline, c.Epoch
		}
	}
	for _, e := range inv.Epochs {
		if e.Timeline != 0 && e.Number > epoch {
			newest, epoch = e.Timeline, e.Number
		}
	}
	if newest != 0 {
		return newest
	}
	if all := inv.Timelines(); len(all) > 0 {
		return all[len(all)-1]
	}
	return 0
}
