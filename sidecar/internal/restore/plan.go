package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Request says what to restore.
type Request struct {
	Target Target
	// Backup names the snapshot to start from; "" for the newest usable one before the target.
	Backup string
	// AcceptMissing restores up to where WAL is missing, instead of ErrHole. The plan says what is lost.
	AcceptMissing bool
	// Repeat restores to the target again although an earlier restore to the same target has been fulfilled, which
	// undoes what was written since. Without it the timeline of that restore is continued.
	Repeat bool
	// Clone says that the result is another database: its background jobs stay off, see Settings.
	Clone bool
}

// Plan is everything that a restore will do. It is a value that can be printed, see String, and that the marker keeps.
type Plan struct {
	ID               string          `json:"id"` // of this one restore
	CreatedAt        time.Time       `json:"created_at"`
	SystemIdentifier uint64          `json:"system_identifier,string"`
	SegmentSize      wal.SegmentSize `json:"wal_segment_size"`
	Target           Target          `json:"target"` // as asked for
	Snapshot         Snapshot        `json:"snapshot"`
	// Timeline is the one that recovery follows, the last of Legs.
	Timeline wal.Timeline `json:"timeline"`
	// Legs is the WAL to be laid down: of each timeline of the branch the part that belongs to it, from the start of
	// the snapshot's first segment on. End is where the WAL ends, on the last leg.
	Legs []archive.Leg `json:"legs"`
	End  wal.LSN       `json:"end"`
	// StopTime and StopLSN are where recovery stops before End; both zero if it goes to the end.
	StopTime time.Time `json:"stop_time,omitzero"`
	StopLSN  wal.LSN   `json:"stop_lsn,omitempty"`
	// ReplayEnd is the end of the last complete record before End: where recovery must arrive if it does not stop
	// before. 0 if it was not found out.
	ReplayEnd wal.LSN `json:"replay_end,omitempty"`
	// LastCommit is when the last transaction before End committed; zero if it was not found nearby.
	LastCommit time.Time `json:"last_commit,omitzero"`
	// ArchiveEnd is where the newest branch of the archive ended when the plan was made.
	ArchiveEnd wal.Position `json:"archive_end"`
	// Stored bytes of WAL to be fetched, roughly, and the segments that are laid down.
	WALStored int64 `json:"wal_stored"`
	Segments  int   `json:"wal_segments"`
	// JobsOff keeps TimescaleDB's background jobs from running: the target is in the past, or this is a clone.
	JobsOff bool `json:"jobs_off,omitempty"`
	// Missing says what is known to be lost, Warnings what else a person should know.
	Missing  []string `json:"missing,omitempty"`
	Warnings []string `json:"warnings,omitempty"`

	inv *archive.Inventory // as read for the plan; nil in a plan from a marker
}

type planner struct {
	src     *archive.Archive
	req     Request
	w       *archive.WAL
	inv     *archive.Inventory
	backups []archive.Backup
	scan    scanner
	durable archive.Promises // before the inventory was read

	target Target       // that is left to be settled
	newest wal.Timeline // of the newest branch, 0 if that cannot be told
	branch archive.Branch
	legs   []archive.Leg // of the branch
	last   int           // index of the leg on which recovery ends
	plan   *Plan
}

func (p *planner) warn(format string, args ...any) {
	p.plan.Warnings = append(p.plan.Warnings, fmt.Sprintf(format, args...))
}

// NewPlan reads the archive src and decides how to restore it. The errors of this package say why there is nothing to
// be done; any other error means that it could not be told. It changes nothing anywhere.
func NewPlan(ctx context.Context, src *archive.Archive, req Request) (Plan, error) {
	p, err := plan(ctx, src, req)
	if errors.Is(err, ErrHole) {
		// Where a writer is at work, chunks are listed before the segments that come after them: what looked like a hole
		// may have been written between the two.
		p, err = plan(ctx, src, req)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("planning a restore to %s: %w", req.Target, err)
	}
	return *p, nil
}

func plan(ctx context.Context, src *archive.Archive, req Request) (*Plan, error) {
	p := &planner{src: src, req: req, target: req.Target, plan: &Plan{ID: rand.Text(), CreatedAt: time.Now().UTC(), Target: req.Target}}
	err := p.run(ctx)
	return p.plan, err
}

func (p *planner) run(ctx context.Context) error {
	if err := p.read(ctx); err != nil {
		return err
	}
	if err := p.pickBranch(); err != nil {
		return err
	}
	if err := p.pickLeg(ctx); err != nil {
		return err
	}
	if err := p.choose(ctx); err != nil {
		return err
	}
	if err := p.finish(ctx); err != nil {
		return err
	}
	if p.req.Clone || p.branch.Timeline != p.newest {
		p.plan.JobsOff = true
	}
	all, err := jobs(p.inv, p.plan.Legs, p.plan.End, 0)
	if err != nil {
		return err
	}
	p.plan.Segments = len(all)
	for _, j := range all {
		p.plan.WALStored += stored(p.inv, j)
	}
	p.plan.inv = p.inv
	return nil
}

// stored estimates the bytes to be fetched for a segment: nothing tells the size of a compressed chunk.
func stored(inv *archive.Inventory, j job) (n int64) {
	for _, piece := range j.pieces {
		if piece.Chunk != nil {
			n += int64(piece.To-piece.From) / 4
		} else {
			n += inv.Sealed[j.segment].Stored
		}
	}
	return n
}

// read reads what the archive holds. What was promised is read before what is there, so that a writer that goes on
// meanwhile makes no promise look broken.
func (p *planner) read(ctx context.Context) error {
	var err error
	if p.w, p.plan.SystemIdentifier, p.backups, err = open(ctx, p.src); err != nil {
		return err
	}
	p.plan.SegmentSize = p.w.Size
	if p.durable, err = p.src.Promises(ctx); err != nil {
		return err
	}
	if p.inv, err = p.w.Inventory(ctx); err != nil {
		return err
	}
	p.scan = scanner{w: p.w, inv: p.inv, sysid: p.plan.SystemIdentifier}
	return nil
}

// open finds out the segment size and the system identifier of an archive and lists its snapshots. The identifier is
// 0 if nothing tells it.
func open(ctx context.Context, src *archive.Archive) (*archive.WAL, uint64, []archive.Backup, error) {
	c, err := src.Cluster(ctx)
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil, err
	}
	if !known {
		empty, err := src.Empty(ctx)
		if err != nil {
			return nil, 0, nil, err
		}
		if empty {
			return nil, 0, nil, ErrNothing
		}
		if err := unfounded(ctx, src); err != nil {
			return nil, 0, nil, err
		}
	}
	backups, err := src.AllBackups(ctx)
	if err != nil {
		return nil, 0, nil, err
	}
	if known {
		if !c.SegmentSize.Valid() {
			return nil, 0, nil, fmt.Errorf("%w: the cluster document says that segments have %d bytes", archive.ErrCorrupt, c.SegmentSize)
		}
		return src.WAL(c.SegmentSize), c.SystemIdentifier, backups, nil
	}
	z, sysid, err := guess(ctx, src, backups)
	if err != nil {
		return nil, 0, nil, err
	}
	return src.WAL(z), sysid, backups, nil
}

// unfounded complains about an archive of ours without the document that is stored before anything else. One of
// another tool has no epochs.
func unfounded(ctx context.Context, src *archive.Archive) error {
	epochs, err := src.Epochs(ctx)
	if err != nil || len(epochs) == 0 {
		return err
	}
	return fmt.Errorf("%w: the document outrider/cluster.json is missing, though epochs are there: bring it back; in a replica it may not have come through yet",
		archive.ErrCorrupt)
}

// guess finds the segment size in an archive of WAL-G's, which records it nowhere but in the WAL itself.
func guess(ctx context.Context, src *archive.Archive, backups []archive.Backup) (wal.SegmentSize, uint64, error) {
	// With the smallest segments every name that is valid for some size can be parsed and comes out as it went in.
	w := src.WAL(wal.MinSegmentSize)
	for i := len(backups) - 1; i >= 0; i-- {
		seg, err := wal.ParseSegment(backups[i].StartSegment, w.Size)
		if err != nil {
			continue
		}
		h, err := firstHeader(ctx, w, seg)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, 0, err
		}
		if h.SegmentSize.Valid() && h.Major() != 0 {
			return h.SegmentSize, h.SystemIdentifier, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: no snapshot has the WAL segment that it begins in", ErrNoSnapshot)
}

func firstHeader(ctx context.Context, w *archive.WAL, seg wal.Segment) (wal.PageHeader, error) {
	r, _, err := w.OpenSegment(ctx, seg)
	if err != nil {
		return wal.PageHeader{}, err
	}
	page := make([]byte, 40)
	n, err := readSome(r, page)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return wal.PageHeader{}, err
	}
	h, err := wal.ParsePageHeader(page[:n])
	if err != nil {
		return wal.PageHeader{}, nil //nolint:nilerr // no header of WAL: the next snapshot may have one
	}
	return h, nil
}
