package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// ErrNotClean is matched by ShutdownCheckpoint's proof that the server did not end with a shutdown checkpoint.
var ErrNotClean = errors.New("not a clean shutdown")

// FirstRecord is the start of the first record that begins at or after a position, which may be inside of another, or
// behind a switch. At least that record is valid; the rest of the one it skips is not checked. Without such a record
// it is an *EndError.
func FirstRecord(src Source, at LSN, opt WalkOptions) (LSN, error) {
	w := NewWalker(src, 0, opt)
	pageAt := at - at%PageSize
	for w.next == 0 {
		h, _, err := w.window.page(pageAt)
		if errors.Is(err, ErrZeroPage) && opt.SegmentSize.Offset(pageAt) != 0 {
			pageAt = opt.SegmentSize.Ceil(pageAt) // as after a switch; if not, the next segment will not be right either
			continue
		}
		if errors.Is(err, ErrPage) || endsHere(err) {
			return 0, &EndError{At: pageAt, Err: err}
		}
		if err != nil {
			return 0, err
		}
		if skip := uint64(h.Size()) + align8(uint64(h.Remaining)); skip < PageSize {
			w.next = pageAt + LSN(skip)
		} else {
			pageAt += PageSize
		}
	}
	for {
		r, err := w.Next()
		if err != nil {
			return 0, err
		}
		if r.Start >= at {
			return r.Start, nil
		}
	}
}

// EndOfValid is the end of the last complete valid record, and that record, walking from a position where one begins.
// If not even that one is valid it is an *EndError.
func EndOfValid(src Source, from LSN, opt WalkOptions) (LSN, Record, error) {
	w := NewWalker(src, from, opt)
	var last Record
	for {
		r, err := w.Next()
		if err == nil {
			last = r
			continue
		}
		if end := (*EndError)(nil); !errors.As(err, &end) || last.End == 0 {
			return 0, Record{}, fmt.Errorf("looking for the end of the WAL from %s on: %w", from, err)
		}
		last.Data = nil // gone over by the look for the next one
		return last.End, last, nil
	}
}

// ShutdownCheckpoint is the end of the shutdown checkpoint that an orderly stop wrote last. It proves such a stop:
// pg_control says so, and what it points to is a valid record of a shutdown checkpoint that agrees with it. It is for a
// server that is known not to run. The proof of the opposite matches ErrNotClean; with other errors, from src, it could
// not be told.
func ShutdownCheckpoint(c Control, src Source) (LSN, error) {
	if c.State != StateShutDown {
		return 0, fmt.Errorf("%w: the control file says %q", ErrNotClean, c.State)
	}
	w := NewWalker(src, c.CheckPoint, WalkOptions{PageRules: PageRules{
		SegmentSize: c.SegmentSize, MaxTimeline: c.CheckPointTimeline, SystemIdentifier: c.SystemIdentifier,
	}})
	r, err := w.Next()
	if end := (*EndError)(nil); errors.As(err, &end) {
		return 0, fmt.Errorf("%w: no checkpoint at %s: %w", ErrNotClean, c.CheckPoint, end.Err)
	}
	if err != nil {
		return 0, fmt.Errorf("reading the shutdown checkpoint: %w", err)
	}
	// The data is struct CheckPoint of src/include/catalog/pg_control.h.
	data, ok := mainData(r.Data)
	if !r.IsShutdownCheckpoint() || !ok || len(data) < 16 {
		return 0, fmt.Errorf("%w: the record at %s is no shutdown checkpoint", ErrNotClean, c.CheckPoint)
	}
	redo, timeline := LSN(binary.LittleEndian.Uint64(data)), Timeline(binary.LittleEndian.Uint32(data[8:]))
	if redo != c.Redo || redo != r.Start || timeline != c.CheckPointTimeline {
		return 0, fmt.Errorf("%w: the checkpoint at %s (redo %s, timeline %d) is not the control file's (%s, %d)",
			ErrNotClean, r.Start, redo, timeline, c.Redo, c.CheckPointTimeline)
	}
	return r.End, nil
}

// Bookkeeping tells of WAL that goes on growing whether it changes anything. What was looked at once is not read again:
// the server may have recycled it meanwhile. It is for one goroutine at a time.
type Bookkeeping struct {
	at      LSN
	changed bool
}

// BookkeepingSince looks at WAL from a position where a record begins.
func BookkeepingSince(from LSN) *Bookkeeping { return &Bookkeeping{at: from} }

// Only tells whether no record since the beginning that begins before to changes a page: checkpoints and the like only.
// If valid WAL ends before to it is an *EndError, and the next call looks on from there.
func (b *Bookkeeping) Only(src Source, to LSN, opt WalkOptions) (bool, error) {
	if b.changed {
		return false, nil
	}
	for r, err := range NewWalker(src, b.at, opt).Records(to) {
		if err != nil {
			return false, fmt.Errorf("looking for changes from %s to %s: %w", b.at, to, err)
		}
		if !r.IsBookkeeping() {
			b.changed = true
			return false, nil
		}
		b.at = r.End
	}
	return true, nil
}

// LastCommit is the end of the last commit record that begins in [from, to), and when it happened by the server's
// clock, which need not be the latest time: clocks of sessions differ. Both are zero if there is none. A record begins
// at from. If valid WAL ends before to it is an *EndError.
func LastCommit(src Source, from, to LSN, opt WalkOptions) (LSN, time.Time, error) {
	var end LSN
	var at time.Time
	for r, err := range NewWalker(src, from, opt).Records(to) {
		if err != nil {
			return 0, time.Time{}, fmt.Errorf("looking for commits from %s to %s: %w", from, to, err)
		}
		if t, ok := r.CommitTime(); ok {
			end, at = r.End, t
		}
	}
	return end, at, nil
}
