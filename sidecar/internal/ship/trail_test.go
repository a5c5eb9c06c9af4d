package ship

import (
	"errors"
	"io/fs"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// What was shipped is told from what another history has in its place, however it was shipped; what was recycled since,
// or what the server wrote after it, is no difference.
func TestCompare(t *testing.T) {
	const at = 5*wal.LSN(size) + 8192
	for name, to := range map[string]wal.LSN{
		"a chunk":                    at + 300,
		"chunks over a border":       6*wal.LSN(size) + 500,
		"up to a border":             6 * wal.LSN(size),
		"whole segments":             9 * wal.LSN(size),
		"whole segments and a chunk": 9*wal.LSN(size) + 100,
		"nothing, after a restart":   at,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDisk(uint64(to))
				w := New(Config{
					Size: size, Epoch: 1, Timeline: 1, Durable: at, SameFrom: at - 4000, Store: claimed(t, archivetest.Memory(), at), Open: d.open,
					Log: slog.New(slog.DiscardHandler),
				})
				if err := w.ShipTo(t.Context(), to); err != nil {
					t.Fatal(err)
				}
				last := size.SegmentBefore(1, to)
				if err := w.Compare(); err != nil {
					t.Fatalf("the disk is what was shipped: %v", err)
				}
				if to < last.End(size) {
					d.segment(last)[size.Offset(to)] ^= 1
				}
				if err := w.Compare(); err != nil {
					t.Errorf("it went on: %v", err)
				}
				d.segment(last)[size.Offset(to-1)] ^= 1
				if err := w.Compare(); !errors.Is(err, ErrStale) {
					t.Errorf("the last byte is another: %v, want ErrStale", err)
				}
				gone := error(nil)
				w.cfg.Open = func(wal.Segment) (Segment, error) { return nil, fs.ErrNotExist }
				if to < last.End(size) {
					gone = ErrGap
				}
				if err := w.Compare(); !errors.Is(err, gone) {
					t.Errorf("the files are gone: %v, want %v", err, gone)
				}
				w.cfg.Open = func(wal.Segment) (Segment, error) { return nil, &fs.PathError{Op: "open", Err: fs.ErrPermission} }
				if err := w.Compare(); err == nil || errors.Is(err, ErrStale) {
					t.Errorf("the files cannot be read: %v, want an error that is not ErrStale", err)
				}
			})
		})
	}
}

// away is a store that fails once, and from then on something else is where the local WAL was.
func away(t *testing.T, from wal.LSN, before, after func(wal.Segment) (Segment, error)) *Shipper {
	t.Helper()
	var failed atomic.Bool
	bucket := archivetest.Memory()
	s := New(Config{
		Size: size, Epoch: 1, Timeline: 1, Durable: from, Store: claimed(t, bucket, from), Log: slog.New(slog.DiscardHandler),
		Open: func(seg wal.Segment) (Segment, error) {
			if failed.Load() {
				return after(seg)
			}
			return before(seg)
		},
	})
	if err := s.ShipTo(t.Context(), from+1000); err != nil {
		t.Fatal(err)
	}
	bucket.Fault(func(string, string) error {
		if failed.CompareAndSwap(false, true) { // after the chunk was read
			return errors.New("the store is away")
		}
		return nil
	})
	return s
}

// The store is away for so long that the slot is given up, and the server removes what follows: a gap, and no other disk.
func TestRemovedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const from = 5 * wal.LSN(size)
		s := away(t, from, newDisk(1).open, func(wal.Segment) (Segment, error) { return nil, fs.ErrNotExist })
		if err := s.ShipTo(t.Context(), from+maxChunk+2000); !errors.Is(err, ErrGap) || errors.Is(err, ErrStale) {
			t.Errorf("shipping ended with %v, want ErrGap alone", err)
		}
	})
}

// The directory is replaced while the store is away: what was to be shipped is not read from the new one.
func TestReplacedWhileTheStoreIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const from = 5 * wal.LSN(size)
		s := away(t, from, newDisk(1).open, newDisk(2).open)
		if err := s.ShipTo(t.Context(), from+maxChunk+2000); !errors.Is(err, ErrStale) {
			t.Errorf("shipping went on: %v, want ErrStale", err)
		}
		if at := s.Durable().LSN; at >= from+2000+maxChunk {
			t.Errorf("it is durable up to %s", at)
		}
	})
}
