package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
)

// localFiles is what can be learned from a data directory without asking the server. It is what a stop believes.
type localFiles struct {
	pgdata string
	pg     postgres.Config
}

func (l localFiles) walDir() string { return filepath.Join(l.pgdata, "pg_wal") }

// Control reads pg_control.
func (l localFiles) Control() (wal.Control, error) { return wal.ReadControl(l.pgdata) }

// Alive tells whether a postmaster lives on the directory: there is a lock file, and somebody answers. The process ids
// in the file mean nothing in another container, so it is asked.
func (l localFiles) Alive(ctx context.Context) (bool, error) {
	_, err := postgres.ReadPostmasterPID(l.pgdata)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	state, err := postgres.Probe(ctx, l.pg, l.pgdata)
	switch state {
	case postgres.Refused:
		return false, nil
	case postgres.Unknown:
		return false, fmt.Errorf("asking whether Postgres lives: %w", err)
	default:
		return true, nil
	}
}

// closed tells from the lock file alone that the server takes no sessions now. Each question would be an error in the
// server's log, and a recovery can take hours. What a crashed server left behind may say so too; then there is nobody to
// ask either.
func (l localFiles) closed() (postgres.State, bool) {
	status, err := postgres.PostmasterStatus(l.pgdata)
	if err != nil {
		return postgres.Unknown, false // no file, or not for us: asking is all there is
	}
	switch status {
	case postgres.StatusStarting:
		return postgres.StartingUp, true
	case postgres.StatusStandby:
		return postgres.InRecoveryNoHotStandby, true
	case postgres.StatusStopping:
		return postgres.ShuttingDown, true
	}
	return postgres.Unknown, false
}

// branch is one timeline of the local directory with its ancestry.
type branch struct {
	localFiles
	size     wal.SegmentSize
	sysid    uint64
	timeline wal.Timeline
	history  wal.History
}

// branchOf reads the ancestry of timeline t from pg_wal.
func (l localFiles) branchOf(t wal.Timeline, z wal.SegmentSize, sysid uint64) (branch, error) {
	b := branch{localFiles: l, size: z, sysid: sysid, timeline: t}
	if t == 1 {
		return b, nil
	}
	raw, err := os.ReadFile(filepath.Join(l.walDir(), wal.HistoryName(t)))
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil // removed by hand or by an old pg_upgrade: the timeline is then taken as a first one
	}
	if err != nil {
		return b, fmt.Errorf("reading the history of timeline %d: %w", t, err)
	}
	b.history, err = wal.ParseHistory(t, string(raw))
	return b, err
}

func (b branch) rules() wal.WalkOptions {
	return wal.WalkOptions{PageRules: wal.PageRules{SegmentSize: b.size, MaxTimeline: b.timeline, SystemIdentifier: b.sysid}}
}

// ShutdownEnd implements drain.Local.
func (b branch) ShutdownEnd(c wal.Control) (wal.LSN, error) {
	src := wal.NewDirSource(b.walDir(), b.size, b.timeline, b.history)
	end, err := wal.ShutdownCheckpoint(c, src)
	return end, errors.Join(err, src.Close())
}

// ValidEnd implements drain.Local: the end of the last complete record, at least from. What it returns was synced to
// disk first, so a crash recovery on this disk finds the same bytes.
func (b branch) ValidEnd(from wal.Position) (wal.LSN, error) {
	if from.Timeline != b.timeline {
		return 0, fmt.Errorf("looking for the end of timeline %d in files of timeline %d", from.Timeline, b.timeline)
	}
	src := wal.NewDirSource(b.walDir(), b.size, b.timeline, b.history)
	end, err := validEnd(src, b.size.Floor(from.LSN), b.rules())
	if err = errors.Join(err, src.Close()); err != nil {
		return 0, err
	}
	if end <= from.LSN {
		return from.LSN, nil
	}
	return end, b.sync(from.LSN, end)
}

// validEnd walks from the first record of the segment that begins at `at`; 0 if nothing there is valid.
func validEnd(src wal.Source, at wal.LSN, rules wal.WalkOptions) (wal.LSN, error) {
	var none *wal.EndError
	first, err := wal.FirstRecord(src, at, rules)
	if errors.As(err, &none) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	end, _, err := wal.EndOfValid(src, first, rules)
	if errors.As(err, &none) {
		return 0, nil
	}
	return end, err
}

func (b branch) sync(from, to wal.LSN) error {
	for seg := b.size.SegmentAt(b.timeline, from); seg.Start(b.size) < to; seg = seg.Next() {
		f, err := os.Open(b.path(seg))
		if err != nil {
			return fmt.Errorf("syncing WAL before it is shipped: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("syncing WAL before it is shipped: %w", err)
		}
	}
	return nil
}

// changedSince tells whether the WAL after a position may have been written to since t. Where it cannot be told, yes.
func (b branch) changedSince(at wal.LSN, t time.Time) bool {
	seg := b.size.SegmentAt(b.timeline, at)
	for _, path := range []string{b.path(seg), b.path(seg.Next())} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && path != b.path(seg) {
			continue
		}
		if err != nil || !info.ModTime().Before(t) {
			return true
		}
	}
	return false
}

func (b branch) path(s wal.Segment) string { return filepath.Join(b.walDir(), s.Name(b.size)) }

// has tells whether the file of a segment is there.
func (b branch) has(s wal.Segment) (bool, error) {
	_, err := os.Stat(b.path(s))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// open implements ship.Config.Open.
func (b branch) open(s wal.Segment) (ship.Segment, error) {
	return wal.OpenSegment(b.walDir(), s, b.size, b.sysid)
}
