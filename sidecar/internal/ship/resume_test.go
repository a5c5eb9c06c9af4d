package ship

import (
	"errors"
	"testing"

	"outrider.dev/sidecar/internal/archive"
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
