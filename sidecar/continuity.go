package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
)

// continues refuses a server whose WAL does not follow on what the archive holds. One that was refused for that before
// stays refused where nothing is left to compare: as nobody keeps its WAL for us, the segment that told goes after a
// while, and what then looks like a gap is the same other history.
func (g *guard) continues(ctx context.Context, store *archive.WAL, files branch, start ship.Start) error {
	compared, err := compareLast(ctx, store, files, start)
	if err == nil && !compared && g.stale != nil && (start.Last != nil || start.GapFrom != 0) {
		return g.stale
	}
	return err
}

// compareLast holds the last durable bytes against the local ones: equal positions prove nothing, equal bytes do.
// compared is false where there is nothing to compare.
func compareLast(ctx context.Context, store *archive.WAL, files branch, start ship.Start) (compared bool, err error) {
	if start.Last == nil {
		return false, nil
	}
	from, to, want, err := recorded(ctx, store, *start.Last)
	if err != nil || want == "" {
		return false, err
	}
	f, err := files.open(start.Last.Segment)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // recycled: what follows it is there, and is compared when it is sealed
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, io.NewSectionReader(f, files.size.Offset(from), int64(to-from)))
	switch named := f.StillNamed(); {
	case errors.Is(named, wal.ErrRecycled):
		return false, nil // while it was read, as above
	case named != nil:
		return false, named
	case errors.Is(err, wal.ErrPage):
		return true, fmt.Errorf("%w: the local WAL from %s to %s is not what the archive has: %w", ship.ErrStale, from, to, err)
	case err != nil:
		return false, fmt.Errorf("comparing the local WAL from %s to %s with the archive's: %w", from, to, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return true, fmt.Errorf("%w: the local WAL from %s to %s has sha256 %.12s…, in the archive it has %.12s…: this disk is a copy from before, or another history",
			ship.ErrStale, from, to, got, want)
	}
	return true, nil
}

// recorded is what the archive noted of the object that holds a piece, up to the piece's end; "" if it noted nothing.
// Where the object goes on behind that, with what does not count, it has to be read.
func recorded(ctx context.Context, store *archive.WAL, p archive.Piece) (from, to wal.LSN, sum string, err error) {
	if p.Chunk != nil {
		if p.To < p.Chunk.To {
			raw, err := store.ReadChunk(ctx, *p.Chunk)
			if err != nil {
				return p.Chunk.From, p.To, "", err
			}
			h := sha256.Sum256(raw[:p.To-p.Chunk.From])
			return p.Chunk.From, p.To, hex.EncodeToString(h[:]), nil
		}
		info, err := store.StatChunk(ctx, *p.Chunk)
		return p.Chunk.From, p.Chunk.To, info.SHA256, err
	}
	info, err := store.StatSegment(ctx, p.Segment)
	start := p.Segment.Start(store.Size)
	if end := info.End(store.Size); err != nil || !info.Known || p.To >= end {
		return start, start + wal.LSN(info.Valid), info.SHA256, err
	}
	sum, err = hashOf(ctx, store, p.Segment, int64(p.To-start))
	return start, p.To, sum, err
}

// hashOf reads the first n bytes of a sealed segment.
func hashOf(ctx context.Context, store *archive.WAL, seg wal.Segment, n int64) (string, error) {
	r, _, err := store.OpenSegment(ctx, seg)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err = io.CopyN(h, r, n); err == nil {
		_, err = io.Copy(io.Discard, r) // only at its end the object is known to be right
	}
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, r.Close())
}

// readableBackups are all snapshots but the damaged ones, which must not keep WAL from being shipped.
func (g *guard) readableBackups(ctx context.Context) ([]archive.Backup, error) {
	all, err := g.arch.AllBackups(ctx)
	return slices.DeleteFunc(all, func(b archive.Backup) bool {
		if b.Damage != nil {
			g.log.Error("a snapshot is damaged and counts for nothing", "snapshot", b.Name, "error", b.Damage)
		}
		return b.Damage != nil
	}), err
}

// usable are the snapshots from which the present can be reached: those of this branch of history whose WAL is in the
// archive up to where this timeline began, none from before a gap, none of a writer that was superseded, and none that is
// built on one that all has no more. The WAL of this timeline is being shipped.
func (g *guard) usable(inv *archive.Inventory, all []archive.Backup, files branch, gap wal.LSN) []archive.Backup {
	m, err := restore.ReadMarker(g.dir.pgdata)
	forked := err == nil && m.Fork // what the archive holds of the parent is another history than this disk's
	var out []archive.Backup
	for _, b := range all {
		_, whole := archive.Parents(b, all)
		switch {
		case !whole, files.history.TimelineAt(files.timeline, b.Stop()) != b.Timeline(), inv.Overtaken(b):
		case b.Timeline() == files.timeline && b.Start() >= gap,
			b.Timeline() != files.timeline && gap == 0 && !forked && reaches(inv, b, files):
			out = append(out, b)
		}
	}
	return out
}

// reaches tells whether the archive holds the WAL from a snapshot on an ancestor up to the segment in which this
// timeline begins; that one is the first of this timeline too.
func reaches(inv *archive.Inventory, b archive.Backup, files branch) bool {
	ancestry := files.ancestry()
	ancestry.Legs = slices.DeleteFunc(ancestry.Legs, func(g archive.Leg) bool { return g.Timeline < b.Timeline() })
	end, _ := inv.Reach(ancestry, inv.Size.Floor(b.Start()))
	return end.LSN >= inv.Size.Floor(files.history.Begin())
}

// ancestry is the branch of the timeline's parent, up to where it was left.
func (b branch) ancestry() archive.Branch {
	var a archive.Branch
	from := wal.LSN(0)
	for _, s := range b.history {
		a.Legs = append(a.Legs, archive.Leg{Timeline: s.Parent, From: from, To: s.LSN})
		a.Timeline, from = s.Parent, s.LSN
	}
	return a
}
