package archive

import "outrider.dev/sidecar/internal/wal"

// Stray is WAL of one timeline that is in the archive, though what comes before it is not.
type Stray struct {
	From, To wal.LSN
	// Parallel says that a writer which was lost can have left it without having lost anything that was durable: a segment
	// which was put beside the one before it, while that one was still on its way. Nothing else goes up before its
	// predecessor was acknowledged, and no more than two segments at a time.
	Parallel bool
}

// Stray finds what lies on timeline t behind the end of its contiguous WAL; ok is false if nothing does. Bytes that no
// epoch owns count for nothing.
func (inv *Inventory) Stray(t wal.Timeline, end wal.LSN) (s Stray, ok bool) {
	note := func(from, to wal.LSN) {
		if !ok || from < s.From {
			s.From = from
		}
		s.To, ok = max(s.To, to), true
	}
	whole := 0
	owners := inv.Owners(t)
	for seg, info := range inv.Sealed {
		if to := owners.End(info, inv.Size); seg.Timeline == t && seg.Start(inv.Size) >= end && to > seg.Start(inv.Size) {
			note(seg.Start(inv.Size), seg.End(inv.Size))
			whole++
		}
	}
	chunks := false
	for seg, all := range inv.Chunks {
		for _, c := range all {
			o := owners.find(c.Epoch)
			if seg.Timeline != t || o == nil {
				continue
			}
			if from, to := max(c.From, o.from), min(c.To, o.to); from > end && from < to {
				note(from, to)
				chunks = true
			}
		}
	}
	missing := inv.Size.SegmentAt(t, end)
	s.Parallel = ok && whole == 1 && !chunks && end == missing.Start(inv.Size) && s.From == missing.End(inv.Size)
	return s, ok
}
