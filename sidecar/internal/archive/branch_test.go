package archive_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// at is a position in segment n of 1 MiB.
func at(n, offset int) wal.LSN { return wal.LSN(n)*mib + wal.LSN(offset) }

// world is what a bucket holds, in a notation that fits a table.
type world struct {
	sealed map[wal.Timeline][]uint64
	// chunks are "timeline epoch from to".
	chunks    []archive.Chunk
	claims    []archive.TimelineClaim
	epochs    []archive.Epoch
	histories map[wal.Timeline]wal.History
	padded    map[wal.Segment]int64
	sealedBy  map[wal.Segment]uint64 // an epoch
}

func (w world) inventory() *archive.Inventory {
	inv := inventory(w.sealed, w.claims...)
	inv.Epochs = w.epochs
	for t, h := range w.histories {
		inv.Histories[t] = h
	}
	for _, c := range w.chunks {
		inv.Chunks[c.Segment] = append(inv.Chunks[c.Segment], c)
	}
	for s, valid := range w.padded {
		inv.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: valid, Known: true, Padded: true}
	}
	for s, epoch := range w.sealedBy {
		info, padded := inv.Sealed[s]
		if !padded {
			info = archive.SegmentInfo{Segment: s, Valid: mib, Known: true}
		}
		info.Epoch = epoch
		inv.Sealed[s] = info
	}
	return inv
}

func piece(t wal.Timeline, epoch uint64, from, to wal.LSN) archive.Chunk {
	return archive.Chunk{Segment: wal.SegmentSize(mib).SegmentAt(t, from), Epoch: epoch, From: from, To: to}
}

func owner(n uint64, t wal.Timeline, since wal.LSN) archive.Epoch {
	return archive.Epoch{Number: n, Timeline: t, Since: since}
}

// replacing is an owner that replaces what others have sealed past its start.
func replacing(n uint64, t wal.Timeline, since wal.LSN) archive.Epoch {
	e := owner(n, t, since)
	e.Replaces = true
	return e
}

func left(parents ...wal.Switch) wal.History { return parents }

// legs writes a branch as text.
func legs(b archive.Branch) string {
	var all []string
	for _, g := range b.Legs {
		to := g.To.String()
		if g.To == archive.MaxLSN {
			to = "…"
		}
		all = append(all, fmt.Sprintf("%d: %s to %s", g.Timeline, g.From, to))
	}
	return strings.Join(all, "; ")
}

func TestNewest(t *testing.T) {
	fork5 := at(5, 0x108) // where timeline 1 was left
	for _, c := range []struct {
		name  string
		world world
		want  string
	}{
		{"nothing but one timeline", world{sealed: map[wal.Timeline][]uint64{1: span(1, 9)}}, "1: 0/0 to …"},
		{
			// A restore to an earlier point published its .history and died before it shipped any WAL of its own.
			"a point-in-time restore that died right after its promotion",
			world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, histories: map[wal.Timeline]wal.History{2: left(wal.Switch{Parent: 1, LSN: fork5})},
				claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)}, epochs: []archive.Epoch{owner(1, 1, 0), owner(2, 0, 0)},
			},
			"1: 0/0 to 0/500108",
		},
		{
			"the same without its .history", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)},
			}, "1: 0/0 to 0/500108",
		},
		{
			"a part of the copied segment is not enough", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)},
				chunks: []archive.Chunk{piece(2, 2, at(5, 0), at(5, 0x107))},
			}, "1: 0/0 to 0/500108",
		},
		{
			"the segment with the fork up to the fork is", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)},
				chunks: []archive.Chunk{piece(2, 2, at(5, 0), at(5, 0x108))},
			}, "1: 0/0 to 0/500108; 2: 0/500108 to …",
		},
		{
			"but not from somebody who does not own the timeline", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)},
				chunks: []archive.Chunk{piece(2, 3, at(5, 0), at(6, 0))},
			}, "1: 0/0 to 0/500108",
		},
		{
			// Timeline 3 comes from a second restore of timeline 1: 2 is not among its ancestors.
			"two restores to the past", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9), 2: span(5, 8), 3: span(4, 6)},
				histories: map[wal.Timeline]wal.History{
					2: left(wal.Switch{Parent: 1, LSN: fork5}), 3: left(wal.Switch{Parent: 1, LSN: at(4, 80)}),
				},
				claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2), fork(3, 1, at(4, 80), 3)},
			}, "1: 0/0 to 0/400050; 3: 0/400050 to …",
		},
		{
			"the newest epoch counts, not the highest timeline", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9), 2: span(5, 8)},
				claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)}, epochs: []archive.Epoch{owner(1, 1, 0), owner(2, 0, 0), owner(3, 1, at(10, 0))},
			}, "1: 0/0 to …",
		},
		{
			"a restart on the newest timeline", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 5), 2: span(5, 8)},
				claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 2)}, epochs: []archive.Epoch{owner(1, 1, 0), owner(2, 0, 0), owner(3, 2, at(9, 0))},
			}, "1: 0/0 to 0/500108; 2: 0/500108 to …",
		},
		{
			"a standby that was promoted", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 5), 2: span(5, 8)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, fork5, 3)},
				epochs: []archive.Epoch{owner(1, 1, 0), owner(3, 1, at(3, 0))},
			}, "1: 0/0 to 0/500108; 2: 0/500108 to …",
		},
		{
			"a restore that has not promoted yet changes nothing", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 5)}, claims: []archive.TimelineClaim{fork(1, 0, 0, 1)},
				epochs: []archive.Epoch{owner(1, 1, 0), owner(2, 0, 0)},
			}, "1: 0/0 to …",
		},
		{
			"two promotions in a row that both died", world{
				sealed: map[wal.Timeline][]uint64{1: span(1, 9)},
				claims: []archive.TimelineClaim{fork(1, 0, 0, 1), fork(2, 1, at(8, 40), 2), fork(3, 2, at(8, 40), 3)},
			}, "1: 0/0 to 0/800028",
		},
		{
			"WAL-G's archive: the highest timeline", world{
				sealed:    map[wal.Timeline][]uint64{1: span(1, 5), 2: span(5, 8)},
				histories: map[wal.Timeline]wal.History{2: left(wal.Switch{Parent: 1, LSN: fork5})},
			}, "1: 0/0 to 0/500108; 2: 0/500108 to …",
		},
		{
			// The numbers before 7 belong to another root, from which this one was restored.
			"a clone", world{
				sealed: map[wal.Timeline][]uint64{7: span(5, 8)}, claims: []archive.TimelineClaim{fork(7, 3, fork5, 1)},
				histories: map[wal.Timeline]wal.History{7: left(wal.Switch{Parent: 1, LSN: at(2, 0)}, wal.Switch{Parent: 3, LSN: fork5})},
			}, "1: 0/0 to 0/200000; 3: 0/200000 to 0/500108; 7: 0/500108 to …",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.world.inventory().Newest()
			if err != nil {
				t.Fatal(err)
			}
			if got := legs(b); got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
			if last := b.Legs[len(b.Legs)-1].Timeline; last != b.Timeline {
				t.Errorf("branch of timeline %d ends on %d", b.Timeline, last)
			}
		})
	}
	if _, err := (world{}).inventory().Newest(); !errors.Is(err, archive.ErrNoBranch) {
		t.Errorf("nothing at all: %v, want %v", err, archive.ErrNoBranch)
	}
	inv := world{epochs: []archive.Epoch{owner(1, 0, 0)}}.inventory()
	if _, err := inv.Newest(); !errors.Is(err, archive.ErrNoBranch) {
		t.Errorf("only a restore that has not promoted: %v, want %v", err, archive.ErrNoBranch)
	}
}

func TestBranchRefusesContradictions(t *testing.T) {
	for name, c := range map[string]struct {
		world world
		of    wal.Timeline
		want  error
	}{
		"claim and history differ": {world{
			claims: []archive.TimelineClaim{fork(2, 1, at(5, 0), 1)}, histories: map[wal.Timeline]wal.History{2: left(wal.Switch{Parent: 1, LSN: at(5, 8)})},
		}, 2, archive.ErrConflict},
		"a claim and a descendant's history differ": {world{
			claims:    []archive.TimelineClaim{fork(2, 1, at(5, 0), 1)},
			histories: map[wal.Timeline]wal.History{3: left(wal.Switch{Parent: 1, LSN: at(5, 8)}, wal.Switch{Parent: 2, LSN: at(6, 0)})},
		}, 3, archive.ErrConflict},
		"a circle":                        {world{claims: []archive.TimelineClaim{fork(2, 3, at(5, 0), 1), fork(3, 2, at(5, 0), 2)}}, 3, archive.ErrCorrupt},
		"a child that began before":       {world{claims: []archive.TimelineClaim{fork(2, 1, at(5, 0), 1), fork(3, 2, at(4, 0), 2)}}, 3, archive.ErrCorrupt},
		"a descendant that began earlier": {world{claims: []archive.TimelineClaim{fork(2, 1, at(9, 0), 1)}, histories: map[wal.Timeline]wal.History{3: left(wal.Switch{Parent: 2, LSN: at(8, 0)})}}, 3, archive.ErrCorrupt},
	} {
		if b, err := c.world.inventory().Branch(c.of); !errors.Is(err, c.want) {
			t.Errorf("%s: %s, %v; want %v", name, legs(b), err, c.want)
		}
	}
}

func TestBranchTakesAncestorsFromADescendant(t *testing.T) {
	told := left(wal.Switch{Parent: 1, LSN: at(3, 0)}, wal.Switch{Parent: 2, LSN: at(5, 0)}, wal.Switch{Parent: 4, LSN: at(7, 0)})
	inv := world{histories: map[wal.Timeline]wal.History{5: told}}.inventory()
	for of, want := range map[wal.Timeline]string{
		5: "1: 0/0 to 0/300000; 2: 0/300000 to 0/500000; 4: 0/500000 to 0/700000; 5: 0/700000 to …",
		2: "2: 0/0 to …", // of itself nothing is known
	} {
		b, err := inv.Branch(of)
		if err != nil || legs(b) != want {
			t.Errorf("timeline %d: %s, %v\nwant %s", of, legs(b), err, want)
		}
	}
	b, err := inv.Branch(5)
	if err != nil {
		t.Fatal(err)
	}
	for lsn, want := range map[wal.LSN]wal.Timeline{0: 1, at(3, 0) - 1: 1, at(3, 0): 2, at(6, 0): 4, at(7, 0): 5, archive.MaxLSN - 1: 5} {
		if g, ok := b.Leg(lsn); !ok || g.Timeline != want {
			t.Errorf("the byte at %s was written by %d, want %d", lsn, g.Timeline, want)
		}
	}
}

func TestTimelinesReserveNumbers(t *testing.T) {
	inv := world{
		sealed: map[wal.Timeline][]uint64{1: {1}}, chunks: []archive.Chunk{piece(3, 1, at(1, 0), at(1, 5))}, claims: []archive.TimelineClaim{fork(5, 1, 5, 2)},
		epochs: []archive.Epoch{owner(9, 9, 5), owner(10, 0, 0)}, histories: map[wal.Timeline]wal.History{7: left(wal.Switch{Parent: 1, LSN: 5})},
	}.inventory()
	if diff := cmp.Diff([]wal.Timeline{1, 3, 5, 7, 9}, inv.Timelines()); diff != "" {
		t.Errorf("numbers that are taken (-want +got):\n%s", diff)
	}
}

// TestInventory reads a bucket instead of being made by hand.
func TestInventory(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	w := a.WAL(mib)
	raw := walBytes(1, mib)
	for n := uint64(1); n <= 6; n++ {
		r := sealOf(segmentOf(1, n), 1, raw)
		if n == 3 {
			r = sealOf(segmentOf(1, n), 1, raw[:5000]) // epoch 1 stopped cleanly here; the next one has not replaced it yet
		}
		if _, err := w.Seal(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []archive.Chunk{piece(1, 2, at(7, 0), at(7, 100)), piece(1, 2, at(7, 100), at(7, 300)), piece(1, 1, at(7, 0), at(7, 200))} {
		if _, err := w.PutChunk(t.Context(), c, raw[:c.To-c.From]); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []archive.Epoch{owner(1, 1, at(1, 0)), owner(2, 1, at(3, 5000))} {
		if err := a.ClaimEpoch(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.ClaimTimeline(t.Context(), fork(1, 0, at(1, 0), 1)); err != nil {
		t.Fatal(err)
	}
	const history = "1\t0/500108\tno recovery target specified\n"
	if err := a.PutHistory(t.Context(), 2, []byte(history)); err != nil {
		t.Fatal(err)
	}
	for _, beside := range []string{"wal_005/x", "wal_005/" + segmentOf(1, 9).Name(mib) + ".partial.zst", "outrider/tail/x", "outrider/epochs/x.json", "outrider/timelines/1"} {
		bucket.SetBytes(beside, []byte("x"))
	}
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(inv.Sealed) != 6 || len(inv.Chunks) != 1 || len(inv.Chunks[segmentOf(1, 7)]) != 3 || len(inv.Epochs) != 2 || len(inv.Claims) != 1 {
		t.Errorf("%d sealed, %d with chunks, %d epochs, %d claims", len(inv.Sealed), len(inv.Chunks), len(inv.Epochs), len(inv.Claims))
	}
	if s := inv.Sealed[segmentOf(1, 3)]; !s.Padded || s.Valid != 5000 {
		t.Errorf("the padded segment in the middle is %+v", s)
	}
	if end := inv.End(1, at(1, 0)); end != at(3, 5000) {
		t.Errorf("the WAL ends at %s, want at the padding", end)
	}
	if string(inv.RawHistories[2]) != history || inv.Histories[2].Begin() != at(5, 0x108) {
		t.Errorf("history %q, %v", inv.RawHistories[2], inv.Histories[2])
	}
	for _, broken := range []string{"list", "open", "stat"} {
		bucket.Fault(func(op, _ string) error {
			if op == broken {
				return errOutage
			}
			return nil
		})
		if _, err := w.Inventory(t.Context()); !errors.Is(err, errOutage) {
			t.Errorf("%s fails: %v, want %v", broken, err, errOutage)
		}
	}
	bucket.Fault(nil)
	bucket.SetBytes("wal_005/00000003.history.zst", compressed(t, ".zst", []byte("no history")))
	if _, err := w.Inventory(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("a history that is none: %v, want %v", err, archive.ErrCorrupt)
	}
}

// A writer that continues its own epoch after a clean stop leaves no new claim behind. Until it has replaced the padded
// segment, whole ones may follow it: what tells is that the segment still has chunks.
func TestInventoryKnowsThePaddingOfAContinuedEpoch(t *testing.T) {
	a := archive.New(archivetest.Memory())
	w := a.WAL(mib)
	raw := walBytes(1, mib)
	if err := errors.Join(a.ClaimEpoch(t.Context(), owner(1, 1, at(1, 0))), a.ClaimTimeline(t.Context(), fork(1, 0, at(1, 0), 1))); err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 6; n++ {
		r := sealOf(segmentOf(1, n), 1, raw)
		if n == 3 {
			r = sealOf(segmentOf(1, n), 1, raw[:5000])
		}
		if _, err := w.Seal(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []archive.Chunk{piece(1, 1, at(3, 0), at(3, 5000)), piece(1, 1, at(3, 5000), at(4, 0))} {
		if _, err := w.PutChunk(t.Context(), c, raw[c.From-at(3, 0):c.To-at(3, 0)]); err != nil {
			t.Fatal(err)
		}
	}
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := "S 0/100000-0/200000, S 0/200000-0/300000, S 0/300000-0/301388, e1 0/301388-0/400000, S 0/400000-0/500000, S 0/500000-0/600000, S 0/600000-0/700000"
	if got := pieces(inv.Follow(1, at(1, 0), archive.MaxLSN)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if inv.Whole(segmentOf(1, 3)) {
		t.Error("zeros count as WAL")
	}
}

// A superseded writer has sealed on; the owner has replaced a part of that, from its own beginning on.
func TestInventoryKnowsWhoSealed(t *testing.T) {
	for name, foreign := range map[string]struct{ from, to int }{"in the middle": {4, 9}, "up to the end": {10, 20}, "all": {3, 20}} {
		t.Run(name, func(t *testing.T) {
			a := archive.New(archivetest.Memory())
			w := a.WAL(mib)
			err := errors.Join(a.ClaimTimeline(t.Context(), fork(1, 0, at(1, 0), 1)), a.ClaimEpoch(t.Context(), owner(1, 1, at(1, 0))),
				a.ClaimEpoch(t.Context(), replacing(2, 1, at(3, 0))))
			isForeign := func(n uint64) bool { return int(n) >= foreign.from && int(n) <= foreign.to }
			for n := uint64(1); n <= 20; n++ {
				epoch := uint64(2)
				if n < 3 || isForeign(n) {
					epoch = 1
				}
				_, serr := w.Seal(t.Context(), sealOf(segmentOf(1, n), epoch, walBytes(epoch, mib)))
				err = errors.Join(err, serr)
			}
			if err != nil {
				t.Fatal(err)
			}
			inv, err := w.Inventory(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if end, want := inv.End(1, at(1, 0)), at(foreign.from, 0); end != want {
				t.Errorf("the WAL ends at %s, want %s", end, want)
			}
			for n := uint64(1); n <= 20; n++ {
				if got, want := inv.Whole(segmentOf(1, n)), !isForeign(n); got != want {
					t.Errorf("segment %d counts as whole: %t, want %t", n, got, want)
				}
			}
		})
	}
}

func TestOvertaken(t *testing.T) {
	inv := archive.Inventory{
		Size: wal.DefaultSegmentSize, Claims: map[wal.Timeline]archive.TimelineClaim{1: {Timeline: 1, Epoch: 1}},
		Epochs: []archive.Epoch{owner(1, 1, 0), owner(3, 1, 0x5000000), owner(4, 2, 0x7000000)},
	}
	for _, c := range []struct {
		epoch uint64
		stop  uint64
		want  bool
	}{{1, 0x4000000, false}, {1, 0x5000000, false}, {1, 0x5000001, true}, {3, 0x9000000, false}, {2, 0x9000000, false}} {
		k := archive.Backup{StartSegment: "000000010000000000000004", Manifest: &archive.Manifest{Epoch: c.epoch}}
		k.Sentinel.FinishLSN = &c.stop
		if got := inv.Overtaken(k); got != c.want {
			t.Errorf("a snapshot of epoch %d that ends at %x: %v, want %v", c.epoch, c.stop, got, c.want)
		}
		if k.Manifest = nil; inv.Overtaken(k) {
			t.Error("of a snapshot without a manifest nobody knows whose it is")
		}
	}
}
