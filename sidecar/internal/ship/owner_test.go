package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// copyOf is a copy of a disk as it was at a position, on which something else is written from there on.
func copyOf(d *disk, at wal.LSN, seed uint64) *disk {
	c := newDisk(seed)
	for s := range d.content {
		if s.End(size) <= at {
			c.content[s] = bytes.Clone(d.segment(s))
		} else if s.Start(size) < at {
			copy(c.segment(s), d.segment(s)[:size.Offset(at)])
		}
	}
	return c
}

// successor makes a writer of epoch 2 that goes on with timeline 1 where the archive ends, as a sidecar does.
func successor(t *testing.T, w *archive.WAL, d *disk) *Shipper {
	t.Helper()
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := func(wal.Segment) (bool, error) { return true, nil }
	start, err := Resume(inv, nil, Local{Timeline: 1, Flushed: wal.LSN(100 * size), Has: all})
	if err != nil {
		t.Fatal(err)
	}
	e := archive.Epoch{Number: 2, Writer: archive.Identity{Instance: "j"}, Timeline: 1, Since: start.Durable, Replaces: true}
	if n := len(inv.Epochs); inv.Epochs[n-1].Number == 2 {
		e = inv.Epochs[n-1] // it goes on with its own
	} else if err := w.ClaimEpoch(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	s := newShipper(t, d, w, start.Durable)
	cfg := s.cfg
	cfg.Epoch, cfg.SealFrom, cfg.Chunks, cfg.Owners = 2, start.SealFrom, start.Chunks, start.Owners.With(e)
	return New(cfg)
}

// Two copies of one disk live, and the one that was superseded does not know it yet: what it seals must not come between
// what its successor has written and will write, and must not stop that one.
func TestSupersededWriterSealsOn(t *testing.T) {
	from := wal.LSN(size)
	for name, c := range map[string]struct{ since, theirs, ours wal.LSN }{
		"before anything of the successor": {since: 2*wal.LSN(size) + 5000, theirs: 6 * wal.LSN(size)},
		"while it writes a segment":        {since: 2*wal.LSN(size) + 5000, theirs: 6 * wal.LSN(size), ours: 3*wal.LSN(size) - 100},
		"from a whole segment on":          {since: 2 * wal.LSN(size), theirs: 6 * wal.LSN(size)},
	} {
		t.Run(name, func(t *testing.T) {
			d, bucket := newDisk(1), archivetest.Memory()
			w := claimed(t, bucket, from)
			first := newShipper(t, d, w, from)
			if err := first.ShipTo(t.Context(), c.since); err != nil {
				t.Fatal(err)
			}
			d.bytes(1, from, c.theirs)
			mine := copyOf(d, c.since, 2)
			second := successor(t, w, mine)
			if err := second.ShipTo(t.Context(), max(c.ours, c.since)); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(first.ShipTo(t.Context(), c.theirs), first.SealRest(t.Context(), false)); err != nil {
				t.Fatal(err)
			}
			holds := func(to wal.LSN) {
				t.Helper()
				if got, want := readBack(t, w, from), mine.bytes(1, from, to); !bytes.Equal(got, want) {
					t.Errorf("the archive holds %d bytes that are not the %d up to %s of the one that owns the timeline", len(got), len(want), to)
				}
			}
			holds(max(c.ours, c.since))
			// The successor is started again, and goes on where it was.
			second = successor(t, w, mine)
			if got := second.Durable().LSN; got != max(c.ours, c.since) {
				t.Errorf("it goes on at %s", got)
			}
			end := 8*wal.LSN(size) + 300
			if err := errors.Join(second.ShipTo(t.Context(), end), second.SealRest(t.Context(), true), second.Sweep(t.Context())); err != nil {
				t.Fatal(err)
			}
			holds(end)
			if err := first.ShipTo(t.Context(), 8*wal.LSN(size)); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("the superseded writer goes on: %v", err)
			}
		})
	}
}

// A predecessor that read the same disk has sealed past the start of its successor. That is no conflict, and the chunks
// of the successor go only when a reader no longer needs them.
func TestSameDiskSealedByBoth(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	from, since, end := wal.LSN(size), wal.LSN(2*size)+5000, wal.LSN(6*size)+300
	w := claimed(t, bucket, from)
	first := newShipper(t, d, w, from)
	if err := first.ShipTo(t.Context(), since); err != nil {
		t.Fatal(err)
	}
	second := successor(t, w, d)
	if err := errors.Join(first.ShipTo(t.Context(), wal.LSN(5*size)), first.SealRest(t.Context(), false)); err != nil {
		t.Fatal(err)
	}
	for at := since; at < end; at += maxStep {
		if err := second.ShipTo(t.Context(), min(at+maxStep, end)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(second.SealRest(t.Context(), false), second.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got, want := readBack(t, w, from), d.bytes(1, from, wal.LSN(6*size)); !bytes.HasPrefix(got, want) {
		t.Errorf("of %d bytes of the disk the archive holds %d", len(want), len(got))
	}
}

// Only the owner replaces what a superseded writer has sealed.
func TestSupersededSuccessorReplacesNothing(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	from := wal.LSN(size)
	w := claimed(t, bucket, from)
	first := newShipper(t, d, w, from)
	if err := first.ShipTo(t.Context(), wal.LSN(2*size)); err != nil {
		t.Fatal(err)
	}
	d.bytes(1, from, wal.LSN(4*size))
	second := successor(t, w, copyOf(d, wal.LSN(2*size), 2))
	if err := first.ShipTo(t.Context(), wal.LSN(4*size)); err != nil {
		t.Fatal(err)
	}
	second.cfg.Owner = func(context.Context) error { return fmt.Errorf("epoch 2: %w", ErrNotOwner) }
	if err := second.ShipTo(t.Context(), wal.LSN(4*size)); !errors.Is(err, ErrNotOwner) {
		t.Fatalf("a superseded writer replaced a segment: %v", err)
	}
}
