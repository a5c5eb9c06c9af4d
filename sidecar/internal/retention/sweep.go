package retention

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Read collects what the decision needs. It changes nothing.
func Read(ctx context.Context, w *archive.WAL) (State, error) {
	s := State{Permanent: map[string]bool{}}
	var err error
	// Snapshots before WAL: one that is completed in between is then simply not known yet, and its WAL is the newest.
	if s.Dirs, s.Now, err = w.BackupDirs(ctx); err != nil {
		return s, err
	}
	if s.Now.IsZero() {
		// Without a single snapshot nothing expires, so no store's clock is needed.
		s.Now = time.Now()
	}
	if s.Backups, err = w.Backups(ctx); err != nil {
		return s, err
	}
	for _, b := range s.Backups {
		if s.Permanent[b.Name], err = w.Permanent(ctx, b); err != nil {
			return s, err
		}
	}
	if s.Marks, err = w.Expiries(ctx); err != nil {
		return s, err
	}
	s.Inventory, err = w.Inventory(ctx)
	return s, err
}

// Propose reads the archive and decides, and changes nothing.
func Propose(ctx context.Context, w *archive.WAL, r Rules) (Plan, error) {
	s, err := Read(ctx, w)
	if err != nil {
		return Plan{}, err
	}
	return Make(s, r)
}

// Run deletes what has expired and returns what that was. It may be called at any time, by several at once, and again
// after it was cut short. An error that wraps fs.ErrPermission says which right is missing; what was not deleted stays
// as it was.
func Run(ctx context.Context, w *archive.WAL, r Rules, log *slog.Logger) (Plan, error) {
	s, err := Read(ctx, w)
	if err != nil {
		return Plan{}, err
	}
	return Apply(ctx, w, s, r, log)
}

// Apply is Run for those who have read the archive a moment ago.
func Apply(ctx context.Context, w *archive.WAL, s State, r Rules, log *slog.Logger) (Plan, error) {
	p, err := Make(s, r)
	if err != nil {
		return Plan{}, err
	}
	marks := make([]string, len(s.Marks))
	for i, m := range s.Marks {
		marks[i] = m.Key
	}
	if p.Empty() {
		return p, explain(w.UnmarkExpiry(ctx, marks...))
	}
	mark, err := w.MarkExpiry(ctx, p.mark(s))
	if err != nil {
		return Plan{}, explain(err)
	}
	// A snapshot that was completed in the meantime, or a restore that began, may need what the first decision gave up.
	again, err := Propose(ctx, w, r)
	if err != nil {
		return Plan{}, err
	}
	p = p.and(again)
	log.Info("expired objects are being deleted", "snapshots", len(p.Backups), "debris", len(p.Debris),
		"segments", len(p.Segments), "chunks", len(p.Chunks)+len(p.Sealed), "mark", mark)
	if err := p.sweep(ctx, w); err != nil {
		return p, explain(err)
	}
	return p, explain(w.UnmarkExpiry(ctx, append(marks, mark)...))
}

// mark is what is written down before anything is deleted.
func (p Plan) mark(s State) archive.Expiry {
	e := archive.Expiry{Time: s.Now, Cutoff: p.Cutoff, Chunks: len(p.Chunks) + len(p.Sealed)}
	for _, b := range p.Backups {
		e.Backups = append(e.Backups, b.Name)
	}
	for _, d := range p.Debris {
		e.Debris = append(e.Debris, d.Name)
	}
	e.Segments = Ranges(p.Segments, s.Inventory.Size)
	return e
}

// Ranges sums up segments, which are in order, by timeline.
func Ranges(segments []archive.SegmentInfo, z wal.SegmentSize) []archive.ExpiredWAL {
	var all []archive.ExpiredWAL
	for _, g := range segments {
		t, name := g.Segment.Timeline, g.Segment.Name(z)
		if n := len(all); n == 0 || all[n-1].Timeline != t {
			all = append(all, archive.ExpiredWAL{Timeline: t, First: name})
		}
		last := &all[len(all)-1]
		last.Last, last.Count = name, last.Count+1
	}
	return all
}

// and is what both plans give up.
func (p Plan) and(q Plan) Plan {
	p.Kept = q.Kept
	p.Backups = common(p.Backups, q.Backups, func(b archive.Backup) string { return b.Name })
	p.Debris = common(p.Debris, q.Debris, func(d archive.BackupDir) string { return d.Name })
	p.Segments = common(p.Segments, q.Segments, func(s archive.SegmentInfo) string { return s.Key })
	p.Chunks = common(p.Chunks, q.Chunks, func(c archive.Chunk) archive.Chunk { return c })
	p.Sealed = common(p.Sealed, q.Sealed, func(c archive.Chunk) archive.Chunk { return c })
	return p
}

func common[T any, K comparable](some, others []T, key func(T) K) []T {
	also := make(map[K]bool, len(others))
	for _, x := range others {
		also[key(x)] = true
	}
	return slices.DeleteFunc(slices.Clone(some), func(x T) bool { return !also[key(x)] })
}

// sweep deletes snapshots before the WAL that they need, so that none is ever left without.
func (p Plan) sweep(ctx context.Context, w *archive.WAL) error {
	for _, b := range p.Backups {
		if err := w.RemoveBackup(ctx, b.Name); err != nil {
			return err
		}
	}
	for _, d := range p.Debris {
		// A sentinel that came after the decision makes it a snapshot.
		switch _, err := w.Backup(ctx, d.Name); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return err
		default:
			continue
		}
		if err := w.RemoveBackup(ctx, d.Name); err != nil {
			return err
		}
	}
	if err := w.RemoveSegments(ctx, p.Segments); err != nil {
		return err
	}
	if err := w.RemoveChunks(ctx, p.Chunks); err != nil {
		return err
	}
	return p.sweepSealed(ctx, w)
}

// sweepSealed deletes the chunks of segments that are sealed whole. A padded segment holds less than its chunks may: it
// is asked for once more, because a listing does not show the padding.
func (p Plan) sweepSealed(ctx context.Context, w *archive.WAL) error {
	var gone []archive.Chunk
	whole := map[wal.Segment]bool{}
	for _, c := range p.Sealed {
		ok, asked := whole[c.Segment]
		if !asked {
			info, err := w.StatSegment(ctx, c.Segment)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			ok = err == nil && info.Known && !info.Padded && info.Valid == int64(w.Size)
			whole[c.Segment] = ok
		}
		if ok {
			gone = append(gone, c)
		}
	}
	return w.RemoveChunks(ctx, gone)
}

// explain adds which rights a retention needs.
func explain(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; expiring needs the right to delete below basebackups_005/, wal_005/ and outrider/, and to write below outrider/expire/: "+
			"give it to these credentials, or run outrider expire as a job with others", err)
	}
	return err
}
