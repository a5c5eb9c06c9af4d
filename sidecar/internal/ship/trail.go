package ship

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"outrider.dev/sidecar/internal/wal"
)

// trail is the WAL right before the durable position, as it was shipped. A directory that was put in the place of the
// one that was being shipped has other bytes there, or none: positions alone say nothing about that.
type trail struct {
	mu  sync.Mutex
	to  wal.LSN
	raw []byte // ends at to
}

// maxTrail is enough to hold records that no other history has, and little to remember.
const maxTrail = 64 << 10

// add remembers raw, which begins at from. What does not follow on what is known begins anew.
func (t *trail) add(from wal.LSN, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if from != t.to {
		t.raw = t.raw[:0]
	}
	t.to = from + wal.LSN(len(raw))
	if over := len(t.raw) + len(raw) - maxTrail; over > 0 {
		cut := min(over, len(t.raw))
		t.raw = t.raw[:copy(t.raw, t.raw[cut:])]
		raw = raw[over-cut:]
	}
	t.raw = append(t.raw, raw...)
}

func (t *trail) get() (from wal.LSN, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.to - wal.LSN(len(t.raw)), bytes.Clone(t.raw)
}

// SameFrom is where Last begins: from there on the local WAL is what the archive holds, if it was compared.
func (st Start) SameFrom() wal.LSN {
	if st.Last == nil {
		return 0
	}
	return st.Last.From
}

// remember reads the end of what is local from `from` to `to`, as far as it lies in one segment. Where that cannot be
// read nothing is known: the WAL is durable and may be recycled.
func (s *Shipper) remember(from, to wal.LSN) {
	seg := s.cfg.Size.SegmentBefore(s.cfg.Timeline, to)
	from = max(from, seg.Start(s.cfg.Size), to-min(to, maxTrail))
	if raw, err := s.local(seg, from, int(to-from)); err == nil {
		s.trail.add(from, raw)
	}
}

// Compare finds out whether the local WAL before the durable position is still what was shipped. ErrStale says that it
// is not: the directory is another one now. What was recycled since is no difference where a segment ends there. Where
// the segment goes on, what follows in it has gone too: ErrGap. That proves no other directory: a server whose slot was
// given up in an outage removes just that.
func (s *Shipper) Compare() error {
	from, raw := s.trail.get()
	for len(raw) > 0 {
		seg := s.cfg.Size.SegmentAt(s.cfg.Timeline, from)
		n := min(int64(len(raw)), int64(seg.End(s.cfg.Size)-from))
		if err := s.compare(seg, from, raw[:n]); err != nil {
			return err
		}
		from, raw = from+wal.LSN(n), raw[n:]
	}
	return nil
}

func (s *Shipper) compare(seg wal.Segment, from wal.LSN, want []byte) error {
	to := from + wal.LSN(len(want))
	got, err := s.local(seg, from, len(want))
	var io *fs.PathError
	switch {
	case to == seg.End(s.cfg.Size) && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, wal.ErrRecycled)):
		return nil
	case errors.As(err, &io) && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("comparing the local WAL with what was shipped: %w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, wal.ErrRecycled):
		return fmt.Errorf("%w: the file with the local WAL from %s to %s, which was shipped, is not there any more: %w", ErrGap, from, to, err)
	case err != nil:
		return fmt.Errorf("%w: the local WAL from %s to %s, which was shipped, is no WAL any more: %w", ErrStale, from, to, err)
	case !bytes.Equal(got, want):
		return fmt.Errorf("%w: the local WAL from %s to %s is not what was shipped: the directory was replaced by a copy from before, or by another history",
			ErrStale, from, to)
	}
	return nil
}

// local reads n bytes of seg.
func (s *Shipper) local(seg wal.Segment, from wal.LSN, n int) ([]byte, error) {
	f, err := s.cfg.Open(seg)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw := make([]byte, n)
	_, err = f.ReadAt(raw, s.cfg.Size.Offset(from))
	if named := f.StillNamed(); named != nil {
		return nil, named // what is read of a file that is being used again says nothing
	}
	return raw, err
}
