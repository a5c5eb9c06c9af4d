package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func TestResume(t *testing.T) {
	all := func(wal.Segment) (bool, error) { return true, nil }
	none := func(wal.Segment) (bool, error) { return false, nil }
	lsn := func(segment, offset int) wal.LSN { return wal.LSN(segment)*wal.LSN(size) + wal.LSN(offset) }
	for _, c := range []struct {
		name    string
		inv     func(*archive.Inventory)
		local   Local
		durable wal.LSN
		seal    uint64
		gap     wal.LSN
		err     error
	}{
		{
			name: "empty archive begins with the segment being written", inv: func(*archive.Inventory) {},
			local: Local{Timeline: 1, Flushed: lsn(5, 77), Has: all}, durable: lsn(5, 0), seal: 5,
		},
		{
			name: "goes on after the last chunk", local: Local{Timeline: 1, Flushed: lsn(3, 900), Has: all},
			inv:     func(inv *archive.Inventory) { sealed(inv, 1, 1, 2); chunk(inv, 1, 1, lsn(3, 0), lsn(3, 500)) },
			durable: lsn(3, 500), seal: 3,
		},
		{
			name: "a hole is where it goes on", local: Local{Timeline: 1, Flushed: lsn(6, 0), Has: all},
			inv: func(inv *archive.Inventory) { sealed(inv, 1, 1, 2, 4, 5) }, durable: lsn(3, 0), seal: 3,
		},
		{
			name: "a segment in chunks alone is sealed later", local: Local{Timeline: 1, Flushed: lsn(3, 10), Has: all},
			inv: func(inv *archive.Inventory) {
				sealed(inv, 1, 1)
				chunk(inv, 1, 1, lsn(2, 0), lsn(3, 0))
				chunk(inv, 1, 1, lsn(3, 0), lsn(3, 10))
			},
			durable: lsn(3, 10), seal: 2,
		},
		{
			name: "gone WAL is a gap", local: Local{Timeline: 1, Flushed: lsn(9, 10), Has: none},
			inv: func(inv *archive.Inventory) { sealed(inv, 1, 1, 2) }, durable: lsn(9, 0), seal: 9, gap: lsn(3, 0),
		},
		{
			name: "a disk behind the archive is refused", local: Local{Timeline: 1, Flushed: lsn(2, 10), Has: all},
			inv: func(inv *archive.Inventory) { sealed(inv, 1, 1, 2) }, err: ErrStale,
		},
		{
			name: "an older timeline is refused", local: Local{Timeline: 1, Flushed: lsn(9, 10), Has: all},
			inv: func(inv *archive.Inventory) {
				sealed(inv, 1, 1, 2)
				sealed(inv, 2, 2, 3)
				inv.Claims[2] = archive.TimelineClaim{Timeline: 2, Epoch: 2, Parent: 1, Switch: lsn(2, 50)}
				inv.Epochs = append(inv.Epochs, archive.Epoch{Number: 2})
			},
			err: ErrStale,
		},
		{
			name: "a new timeline begins with its fork segment", local: Local{Timeline: 2, Flushed: lsn(2, 900), Has: all},
			inv: func(inv *archive.Inventory) {
				sealed(inv, 1, 1, 2)
				inv.Claims[2] = archive.TimelineClaim{Timeline: 2, Epoch: 1, Parent: 1, Switch: lsn(2, 50)}
			},
			durable: lsn(2, 0), seal: 2,
		},
		{
			name:  "a new timeline that was written for long begins with its fork segment too",
			local: Local{Timeline: 2, Fork: lsn(2, 50), Flushed: lsn(7, 900), Has: all},
			inv:   func(inv *archive.Inventory) { sealed(inv, 1, 1, 2) }, durable: lsn(2, 0), seal: 2,
		},
		{
			name:  "a new timeline whose beginning is gone has a gap",
			local: Local{Timeline: 2, Fork: lsn(2, 50), Flushed: lsn(7, 900), Has: none},
			inv:   func(inv *archive.Inventory) { sealed(inv, 1, 1, 2) }, durable: lsn(7, 0), seal: 7, gap: lsn(2, 0),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inv := &archive.Inventory{
				Size: size, Claims: map[wal.Timeline]archive.TimelineClaim{}, Sealed: map[wal.Segment]archive.SegmentInfo{},
				Histories: map[wal.Timeline]wal.History{}, Chunks: map[wal.Segment][]archive.Chunk{},
				Epochs: []archive.Epoch{{Number: 1, Timeline: 1}},
			}
			c.inv(inv)
			got, err := Resume(inv, nil, c.local)
			if !errors.Is(err, c.err) || (err != nil) != (c.err != nil) {
				t.Fatalf("error %v, want %v", err, c.err)
			}
			if err != nil {
				return
			}
			if got.Durable != c.durable || got.SealFrom.Number != c.seal || got.GapFrom != c.gap {
				t.Errorf("durable %s seal from %d gap %s; want %s, %d, %s", got.Durable, got.SealFrom.Number, got.GapFrom, c.durable, c.seal, c.gap)
			}
		})
	}
}

func sealed(inv *archive.Inventory, t wal.Timeline, numbers ...uint64) {
	for _, n := range numbers {
		s := wal.Segment{Timeline: t, Number: n}
		inv.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: int64(inv.Size)}
	}
}

func chunk(inv *archive.Inventory, t wal.Timeline, epoch uint64, from, to wal.LSN) {
	s := inv.Size.SegmentAt(t, from)
	inv.Chunks[s] = append(inv.Chunks[s], archive.Chunk{Segment: s, Epoch: epoch, From: from, To: to})
}

// A gap makes shipping go on at a later segment. What came before it is in the archive as chunks alone, and its files are
// gone: no restore to the last moments before the gap could do without them, so neither a batch nor a stop deletes them.
func TestChunksBeforeAGapStay(t *testing.T) {
	for name, c := range map[string]struct{ before, end wal.LSN }{
		"the segment was being written": {before: wal.LSN(size), end: wal.LSN(size) + 4000},
		"it was complete, not sealed":   {before: wal.LSN(size), end: wal.LSN(2*size) + 100},
	} {
		t.Run(name, func(t *testing.T) {
			d, bucket := newDisk(1), archivetest.Memory()
			w := claimed(t, bucket, c.before)
			first := newShipper(t, d, w, c.before)
			for at := c.before; at < c.end; at = min(at+maxStep, c.end) {
				if err := first.ShipTo(t.Context(), min(at+maxStep, c.end)); err != nil {
					t.Fatal(err)
				}
			}
			want := d.bytes(1, c.before, c.end)

			inv, err := w.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			flushed := wal.LSN(9*size) + 50
			start, err := Resume(inv, nil, Local{Timeline: 1, Flushed: flushed, Has: func(wal.Segment) (bool, error) { return false, nil }})
			if err != nil || start.GapFrom != c.end {
				t.Fatalf("the gap begins at %s (%v), want %s", start.GapFrom, err, c.end)
			}
			second := New(Config{
				Size: size, Epoch: 1, Timeline: 1, Durable: start.Durable, SealFrom: start.SealFrom, Chunks: start.Chunks, Store: w,
				Open: d.open, Owner: func(context.Context) error { return nil }, Log: first.cfg.Log,
			})
			if err := errors.Join(second.ShipTo(t.Context(), flushed), second.SealRest(t.Context(), true), second.Sweep(t.Context())); err != nil {
				t.Fatal(err)
			}
			if got := readBack(t, w, c.before); !bytes.Equal(got, want) {
				t.Errorf("of %d bytes that were durable before the gap %d are left", len(want), len(got))
			}
		})
	}
}

// maxStep makes a segment go up in several chunks.
const maxStep = wal.LSN(size) / 3

// A segment that could not be sealed lies in chunks, and goes on doing so when the next life begins with a gap.
func TestChunksOfWhatCannotBeSealedStay(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	w := claimed(t, bucket, wal.LSN(size))
	s := newShipper(t, d, w, wal.LSN(size))
	end := wal.LSN(2*size) + 100
	if err := errors.Join(s.ShipTo(t.Context(), wal.LSN(size)+100), s.ShipTo(t.Context(), end)); err != nil {
		t.Fatal(err)
	}
	s.seal.drafts = map[wal.Segment]*archive.Draft{}
	s.cfg.Open = func(seg wal.Segment) (Segment, error) {
		return nil, fmt.Errorf("open %s: %w", seg.Name(size), fs.ErrNotExist)
	}
	if err := errors.Join(s.SealRest(t.Context(), false), s.Sweep(t.Context())); err != nil {
		t.Fatal(err)
	}
	if got, want := readBack(t, w, wal.LSN(size)), d.bytes(1, wal.LSN(size), end); !bytes.Equal(got, want) {
		t.Errorf("of %d bytes that were durable %d are left", len(want), len(got))
	}
}

// A superseded writer may have completed a snapshot before it noticed. It is no place for its successor to go on from:
// what lies between its own end and that snapshot was never shipped.
func TestSnapshotOfASupersededWriterIsNoBase(t *testing.T) {
	inv := &archive.Inventory{
		Size: size, Claims: map[wal.Timeline]archive.TimelineClaim{1: {Timeline: 1, Epoch: 1}}, Sealed: map[wal.Segment]archive.SegmentInfo{},
		Histories: map[wal.Timeline]wal.History{}, Chunks: map[wal.Segment][]archive.Chunk{},
		Epochs: []archive.Epoch{{Number: 1, Timeline: 1}, {Number: 2, Timeline: 1, Since: wal.LSN(3*size) + 100, Replaces: true}},
	}
	sealed(inv, 1, 1, 2)
	chunk(inv, 1, 1, wal.LSN(3*size), wal.LSN(3*size)+100)
	chunk(inv, 1, 2, wal.LSN(3*size)+100, wal.LSN(3*size)+500)
	at := func(l wal.LSN) *uint64 { n := uint64(l); return &n }
	snapshot := func(epoch uint64, start, stop wal.LSN) archive.Backup {
		b := archive.Backup{StartSegment: size.SegmentAt(1, start).Name(size), Manifest: &archive.Manifest{Epoch: epoch}}
		b.Sentinel.LSN, b.Sentinel.FinishLSN = at(start), at(stop)
		return b
	}
	snapshots := []archive.Backup{
		snapshot(1, wal.LSN(2*size)+40, wal.LSN(2*size)+200), snapshot(1, wal.LSN(5*size)+40, wal.LSN(5*size)+200),
	}
	start, err := Resume(inv, snapshots, Local{
		Timeline: 1, Flushed: wal.LSN(7 * size), Has: func(wal.Segment) (bool, error) { return true, nil },
	})
	if want := wal.LSN(3*size) + 500; err != nil || start.Durable != want || start.GapFrom != 0 {
		t.Errorf("it goes on at %s, gap %s (%v), want %s", start.Durable, start.GapFrom, err, want)
	}
}
