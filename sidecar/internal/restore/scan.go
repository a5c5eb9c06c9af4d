package restore

import (
	"context"
	"errors"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// scanner looks at records in the archive.
type scanner struct {
	w     *archive.WAL
	inv   *archive.Inventory
	sysid uint64
}

func (s scanner) source(ctx context.Context, legs []archive.Leg, end wal.LSN) *source {
	return &source{ctx: ctx, w: s.w, inv: s.inv, legs: legs, end: end}
}

func (s scanner) options(legs []archive.Leg) wal.WalkOptions {
	return wal.WalkOptions{PageRules: wal.PageRules{
		SegmentSize: s.inv.Size, MaxTimeline: legs[len(legs)-1].Timeline, SystemIdentifier: s.sysid,
	}}
}

// tail is what the end of some WAL holds.
type tail struct {
	LastStart wal.LSN // of the last complete record
	LastEnd   wal.LSN // of the same; both 0 if there is none
	// Commit is the latest time of a commit in the last segment with any: recovery stops at the first commit whose time
	// is after its target, and sessions that commit together do not do so in the order of their clocks.
	Commit    time.Time
	HasCommit bool
}

// tail looks at the WAL of the legs before end, going back from segment to segment until it has seen a commit, has
// reached from, or has looked at limit segments (0: no limit).
func (s scanner) tail(ctx context.Context, legs []archive.Leg, from, end wal.LSN, limit int) (t tail, err error) {
	src := s.source(ctx, legs, end)
	defer func() { err = errors.Join(err, src.Close()) }()
	opt := s.options(legs)
	upper := end
	for n := 1; upper > from; n++ {
		lower := max(from, s.inv.Size.Floor(upper-1))
		err := records(src, lower, upper, opt, func(r wal.Record) bool {
			if t.LastEnd <= r.Start {
				t.LastStart, t.LastEnd = r.Start, r.End
			}
			if at, ok := r.CommitTime(); ok && at.After(t.Commit) {
				t.Commit, t.HasCommit = at, true
			}
			return true
		})
		if err != nil || t.HasCommit || n == limit {
			return t, err
		}
		upper = lower
	}
	return t, nil
}

// firstCommit is when the first transaction committed whose record begins in [from, end).
func (s scanner) firstCommit(ctx context.Context, legs []archive.Leg, from, end wal.LSN) (at time.Time, found bool, err error) {
	src := s.source(ctx, legs, end)
	defer func() { err = errors.Join(err, src.Close()) }()
	err = records(src, from, end, s.options(legs), func(r wal.Record) bool {
		at, found = r.CommitTime()
		return !found
	})
	return at, found, err
}

// records calls yield for each record that begins in [from, to), until it returns false or valid WAL ends.
func records(src wal.Source, from, to wal.LSN, opt wal.WalkOptions, yield func(wal.Record) bool) error {
	var end *wal.EndError
	first, err := wal.FirstRecord(src, from, opt)
	if errors.As(err, &end) {
		return nil
	}
	if err != nil {
		return err
	}
	for r, err := range wal.NewWalker(src, first, opt).Records(to) {
		if errors.As(err, &end) {
			return nil
		}
		if err != nil {
			return err
		}
		if !yield(r) {
			return nil
		}
	}
	return nil
}
