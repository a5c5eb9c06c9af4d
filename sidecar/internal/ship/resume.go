package ship

import (
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Start is where shipping of a timeline begins or goes on.
type Start struct {
	// Durable is the end of the contiguous WAL in the archive; SealFrom the first segment that is not sealed yet.
	Durable  wal.LSN
	SealFrom wal.Segment
	Chunks   []archive.Chunk
	// Owners of the timeline until now.
	Owners archive.Owners
	// Last is the piece that ends at Durable; nil if the archive holds nothing of the timeline. Local bytes that differ
	// from it prove that the disk is not the one that was archived.
	Last *archive.Piece
	// GapFrom is set when the WAL from there on is gone locally: shipping begins anew at Durable, and nothing is
	// protected before a snapshot was taken that starts at or after it.
	GapFrom wal.LSN
}

// Local is what the server and its pg_wal say.
type Local struct {
	Timeline wal.Timeline
	Fork     wal.LSN // where the timeline left its parent; 0 for one without
	Flushed  wal.LSN
	// Has tells whether the local file of a segment is there.
	Has func(wal.Segment) (bool, error)
}

// Resume finds out from the archive where to go on with the server's timeline. snapshots are all that exist.
// An error that wraps ErrStale says that this server must not be shipped at all.
func Resume(inv *archive.Inventory, snapshots []archive.Backup, l Local) (Start, error) {
	if err := refuseStale(inv, l.Timeline); err != nil {
		return Start{}, err
	}
	base, known := resumeBase(inv, snapshots, l)
	if !known {
		base = inv.Size.Floor(l.Flushed)
	}
	st := Start{Durable: base, Owners: inv.Owners(l.Timeline)}
	if pieces := inv.Follow(l.Timeline, base, archive.MaxLSN); len(pieces) > 0 {
		st.Last = &pieces[len(pieces)-1]
		st.Durable = st.Last.To
	}
	if st.Durable > l.Flushed {
		return st, fmt.Errorf("%w: the archive holds timeline %d up to %s, this server has flushed only up to %s",
			ErrStale, l.Timeline, st.Durable, l.Flushed)
	}
	has, err := l.Has(inv.Size.SegmentAt(l.Timeline, st.Durable))
	if err != nil {
		return st, err
	}
	if !has && st.Durable < l.Flushed {
		st.GapFrom, st.Durable, st.Last = st.Durable, inv.Size.Floor(l.Flushed), nil
	}
	st.seal(inv, l.Timeline, base)
	return st, nil
}

// refuseStale compares the server's timeline with what the archive has seen: it must be the newest branch's own
// timeline, or a new one.
func refuseStale(inv *archive.Inventory, t wal.Timeline) error {
	newest, err := inv.Newest()
	if err != nil {
		return nil //nolint:nilerr // an archive without WAL has no newest branch: everything is new
	}
	if t == newest.Timeline {
		return nil
	}
	if c, claimed := inv.Claims[t]; claimed && inv.Restorable(t) || claimed && c.Epoch < newestEpoch(inv) {
		return fmt.Errorf("%w: this server is on timeline %d, which epoch %d owned; the archive has gone on with timeline %d",
			ErrStale, t, c.Epoch, newest.Timeline)
	}
	for _, known := range inv.Timelines() {
		if t < known && known == newest.Timeline {
			return fmt.Errorf("%w: this server is on timeline %d, the archive has gone on with timeline %d", ErrStale, t, newest.Timeline)
		}
	}
	return nil
}

func newestEpoch(inv *archive.Inventory) uint64 {
	if n := len(inv.Epochs); n > 0 {
		return inv.Epochs[n-1].Number
	}
	return 0
}

// resumeBase is where contiguous WAL has to begin to be of use: at the newest snapshot of the timeline, else where the
// timeline forked off (however much was written while nobody looked), else at the first WAL there is.
func resumeBase(inv *archive.Inventory, snapshots []archive.Backup, l Local) (wal.LSN, bool) {
	t := l.Timeline
	for i := len(snapshots) - 1; i >= 0; i-- {
		// One of a writer that had been superseded says nothing about how far its successor has shipped.
		if b := snapshots[i]; b.Timeline() == t && b.Start() > 0 && !inv.Overtaken(b) {
			return inv.Size.Floor(b.Start()), true
		}
	}
	if c, ok := inv.Claims[t]; ok {
		return inv.Size.Floor(c.Switch), true
	}
	if l.Fork != 0 {
		return inv.Size.Floor(l.Fork), true
	}
	first, found := wal.LSN(0), false
	note := func(s wal.Segment) {
		if at := s.Start(inv.Size); s.Timeline == t && (!found || at < first) {
			first, found = at, true
		}
	}
	for s := range inv.Sealed {
		note(s)
	}
	for s := range inv.Chunks {
		note(s)
	}
	return first, found
}

// seal finds the first segment that is not sealed, at or after base, and the chunks that wait for their segment or have
// been replaced by it. Those of a segment before a gap are neither: it will never be sealed, its file is gone, and they
// are all there is of it.
func (st *Start) seal(inv *archive.Inventory, t wal.Timeline, base wal.LSN) {
	seg := inv.Size.SegmentAt(t, base)
	if st.GapFrom != 0 {
		seg = inv.Size.SegmentAt(t, st.Durable)
	}
	for seg.End(inv.Size) <= st.Durable {
		if !inv.Whole(seg) {
			break
		}
		seg = seg.Next()
	}
	st.SealFrom = seg
	for s, chunks := range inv.Chunks {
		if s.Timeline == t && s.End(inv.Size) > base && (s.Number >= seg.Number || inv.Whole(s)) {
			st.Chunks = append(st.Chunks, chunks...)
		}
	}
}
