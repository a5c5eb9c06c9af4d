package restore

import (
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// timelineOf is the timeline whose file the server reads for the segment that begins at start: the newest that reaches
// into it, which begins with a copy of its parent's bytes (XLogFileReadAnyTLI of xlogrecovery.c looks there first).
func timelineOf(legs []archive.Leg, start wal.LSN, z wal.SegmentSize) wal.Timeline {
	for i := len(legs) - 1; i > 0; i-- {
		if z.Floor(legs[i].From) <= start {
			return legs[i].Timeline
		}
	}
	return legs[0].Timeline
}

// cover tells how far the legs can be replayed from LSN from of the first one, the start of a segment: up to the end
// of the returned position. whole is false if that is before the end of a leg that was left later.
func cover(inv *archive.Inventory, legs []archive.Leg, from wal.LSN) (end wal.Position, whole bool) {
	at := from
	for i, g := range legs {
		begin := at
		if i > 0 {
			begin = inv.Size.Floor(g.From)
		}
		reached := begin
		if pieces := inv.Follow(g.Timeline, begin, g.To); len(pieces) > 0 {
			reached = pieces[len(pieces)-1].To
		}
		if i > 0 && reached < g.From {
			// Without the copy in the child's first segment, the child does not count.
			return wal.Position{Timeline: legs[i-1].Timeline, LSN: at}, false
		}
		last := i == len(legs)-1
		if last {
			return wal.Position{Timeline: g.Timeline, LSN: max(at, reached)}, reached >= g.To || g.To == archive.MaxLSN
		}
		// What the parent wrote into the segment of the switch is in the child's first segment too, and archives of
		// other tools have it only there.
		if reached < inv.Size.Floor(g.To) {
			return wal.Position{Timeline: g.Timeline, LSN: max(at, reached)}, false
		}
		at = max(at, reached)
	}
	return end, true
}

// job is one segment that the spool gets.
type job struct {
	segment wal.Segment
	cut     wal.LSN // what follows in the segment is zero
	pieces  []archive.Piece
	owners  archive.Owners // of the timeline
}

// jobs lists the segments of the legs up to end, oldest first, and where their bytes are. Those that end at or before
// from are not needed any more and may be missing; of all others missing WAL is ErrHole.
func jobs(inv *archive.Inventory, legs []archive.Leg, end, from wal.LSN) ([]job, error) {
	var all []job
	for i, g := range legs {
		to, owners := min(g.To, end), inv.Owners(g.Timeline)
		for seg := inv.Size.SegmentAt(g.Timeline, g.From); seg.Start(inv.Size) < to; seg = seg.Next() {
			j := job{segment: seg, cut: min(seg.End(inv.Size), to), owners: owners}
			if seg.End(inv.Size) <= from {
				all = append(all, j)
				continue
			}
			j.pieces = inv.Follow(g.Timeline, seg.Start(inv.Size), j.cut)
			at := seg.Start(inv.Size)
			if n := len(j.pieces); n > 0 {
				at = j.pieces[n-1].To
			}
			switch {
			case at >= j.cut:
				all = append(all, j)
			case i < len(legs)-1 && seg.End(inv.Size) > g.To:
				// The child's first segment has it too, see cover.
			default:
				return nil, fmt.Errorf("%w: timeline %d at %s, in segment %s", ErrHole, g.Timeline, at, seg.Name(inv.Size))
			}
		}
	}
	return all, nil
}

// names are those of all segments that the jobs make.
func names(all []job, z wal.SegmentSize) []string {
	out := make([]string, len(all))
	for i, j := range all {
		out[i] = j.segment.Name(z)
	}
	return out
}
