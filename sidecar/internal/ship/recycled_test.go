package ship

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// What was read of a file that has become another segment meanwhile is not stored under the name of the first.
func TestRecycledSegmentIsNotSealed(t *testing.T) {
	bucket := archivetest.Memory()
	s := newShipper(t, newDisk(1), claimed(t, bucket, wal.LSN(size)), wal.LSN(size))
	s.cfg.Open = func(seg wal.Segment) (Segment, error) {
		return file{Reader: bytes.NewReader(newDisk(2).segment(seg)), gone: fmt.Errorf("%s: %w", seg.Name(size), wal.ErrRecycled)}, nil
	}
	if err := s.ShipTo(t.Context(), wal.LSN(3*size)); !errors.Is(err, ErrGap) {
		t.Errorf("got %v, want a gap", err)
	}
	for _, k := range bucket.Keys() {
		if strings.HasPrefix(k, "wal_005/") {
			t.Errorf("sealed all the same: %s", k)
		}
	}
}

// That it cannot be told whether a file is still the same is no gap: it is asked again.
func TestUnknownNameIsNoGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk(1)
		s := newShipper(t, d, claimed(t, archivetest.Memory(), wal.LSN(size)), wal.LSN(size))
		stale := errors.New("stale file handle")
		asked := 0
		s.cfg.Open = func(seg wal.Segment) (Segment, error) {
			return file{Reader: bytes.NewReader(d.segment(seg)), gone: stale}, nil
		}
		if err := s.ShipTo(t.Context(), wal.LSN(size)+100); !errors.Is(err, stale) || errors.Is(err, ErrGap) {
			t.Errorf("a chunk: got %v, want %v", err, stale)
		}
		s.cfg.Open = func(seg wal.Segment) (Segment, error) {
			return flaky{file{Reader: bytes.NewReader(d.segment(seg))}, func() error {
				if asked++; asked < 3 {
					return stale
				}
				return nil
			}}, nil
		}
		if err := s.ShipTo(t.Context(), wal.LSN(2*size)); err != nil || asked < 3 {
			t.Errorf("a segment: asked %d times, %v", asked, err)
		}
	})
}

// flaky is a file of which it cannot always be told whether it is still the same.
type flaky struct {
	file
	named func() error
}

func (f flaky) StillNamed() error { return f.named() }
