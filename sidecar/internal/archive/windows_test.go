package archive_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

const mib = wal.MinSegmentSize

// inventory is a root with segments of 1 MiB. sealed maps a timeline to the numbers of its segments.
func inventory(sealed map[wal.Timeline][]uint64, forks ...archive.TimelineClaim) *archive.Inventory {
	inv := &archive.Inventory{
		Size: mib, Claims: map[wal.Timeline]archive.TimelineClaim{}, Histories: map[wal.Timeline]wal.History{},
		Sealed: map[wal.Segment]archive.SegmentInfo{}, Chunks: map[wal.Segment][]archive.Chunk{},
	}
	for t, numbers := range sealed {
		for _, n := range numbers {
			s := wal.Segment{Timeline: t, Number: n}
			inv.Sealed[s] = archive.SegmentInfo{Segment: s, Valid: mib}
		}
	}
	for _, c := range forks {
		inv.Claims[c.Timeline] = c
	}
	return inv
}

func fork(t, parent wal.Timeline, at wal.LSN, epoch uint64) archive.TimelineClaim {
	return archive.TimelineClaim{Timeline: t, Parent: parent, Switch: at, Epoch: epoch}
}

func snapshot(t wal.Timeline, start, stop wal.LSN) archive.Backup {
	name := wal.SegmentSize(mib).SegmentAt(t, start).Name(mib)
	from, to := uint64(start), uint64(stop)
	return archive.Backup{
		Name: "base_" + name, StartSegment: name, Sentinel: archive.Sentinel{LSN: &from, FinishLSN: &to},
	}
}

func span(from, to uint64) []uint64 {
	var all []uint64
	for n := from; n <= to; n++ {
		all = append(all, n)
	}
	return all
}

type window struct {
	From, To wal.LSN
	N        int
}

func windows(t *testing.T, inv *archive.Inventory, tli wal.Timeline, all ...archive.Backup) []window {
	t.Helper()
	b, err := inv.Branch(tli)
	if err != nil {
		t.Fatal(err)
	}
	var got []window
	for _, w := range inv.Windows(b, all) {
		got = append(got, window{w.From, w.To, len(w.Snapshots)})
	}
	return got
}

func TestWindows(t *testing.T) {
	a, b := snapshot(1, 2*mib+100, 2*mib+500), snapshot(1, 5*mib+100, 5*mib+500)
	cases := []struct {
		name   string
		inv    *archive.Inventory
		branch wal.Timeline
		all    []archive.Backup
		want   []window
	}{
		{"one stretch", inventory(map[wal.Timeline][]uint64{1: span(1, 9)}), 1, []archive.Backup{b, a}, []window{{2*mib + 500, 10 * mib, 2}}},
		{
			"a hole ends the first window", inventory(map[wal.Timeline][]uint64{1: append(span(1, 3), span(5, 9)...)}), 1,
			[]archive.Backup{a, b},
			[]window{{2*mib + 500, 4 * mib, 1}, {5*mib + 500, 10 * mib, 1}},
		},
		{"a hole inside a snapshot makes it useless", inventory(map[wal.Timeline][]uint64{1: span(6, 9)}), 1, []archive.Backup{a, b}, nil},
		{"no snapshot, no window", inventory(map[wal.Timeline][]uint64{1: span(1, 9)}), 1, nil, nil},
		{
			"through a fork", inventory(map[wal.Timeline][]uint64{1: span(1, 6), 2: span(6, 8)}, fork(2, 1, 6*mib+50, 2)), 2,
			[]archive.Backup{a, b},
			[]window{{2*mib + 500, 9 * mib, 2}},
		},
		{
			"the parent's future is no part of the child", inventory(map[wal.Timeline][]uint64{1: span(1, 9), 2: span(4, 4)}, fork(2, 1, 4*mib+50, 2)), 2,
			[]archive.Backup{a, b},
			[]window{{2*mib + 500, 5 * mib, 1}},
		},
		{
			"but of the parent", inventory(map[wal.Timeline][]uint64{1: span(1, 9), 2: span(4, 4)}, fork(2, 1, 4*mib+50, 2)), 1,
			[]archive.Backup{a, b},
			[]window{{2*mib + 500, 10 * mib, 2}},
		},
		{
			"a child without the copy of its first segment ends at the fork", inventory(map[wal.Timeline][]uint64{1: span(1, 6), 2: span(7, 8)}, fork(2, 1, 6*mib+50, 2)), 2,
			[]archive.Backup{a},
			[]window{{2*mib + 500, 6*mib + 50, 1}},
		},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, windows(t, c.inv, c.branch, c.all...)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestWindowsDemandTheParentsOfADelta(t *testing.T) {
	full, delta := snapshot(1, 2*mib+100, 2*mib+500), snapshot(1, 5*mib+100, 5*mib+500)
	delta.Sentinel.DeltaFrom = &full.Name
	inv := inventory(map[wal.Timeline][]uint64{1: span(4, 9)})
	if got := windows(t, inv, 1, full, delta); len(got) != 1 || got[0].From != 5*mib+500 {
		t.Errorf("windows with the parent there = %v, want one from the delta", got)
	}
	if got := windows(t, inv, 1, delta); got != nil {
		t.Errorf("windows without the parent = %v, want none", got)
	}
}

func TestGaps(t *testing.T) {
	inv := inventory(map[wal.Timeline][]uint64{1: {1, 2, 5}, 2: {6, 8}}, fork(2, 1, 6*mib+50, 2))
	b, err := inv.Branch(2)
	if err != nil {
		t.Fatal(err)
	}
	gaps, end := inv.Gaps(b, mib)
	want := []archive.Gap{{Timeline: 1, From: 3 * mib, To: 5 * mib}, {Timeline: 1, From: 6 * mib, To: 6*mib + 50}, {Timeline: 2, From: 7 * mib, To: 8 * mib}}
	ignore := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".at" }, cmp.Ignore())
	if diff := cmp.Diff(want, gaps, ignore); diff != "" {
		t.Errorf("gaps (-want +got):\n%s", diff)
	}
	if end != (wal.Position{Timeline: 2, LSN: 9 * mib}) {
		t.Errorf("end = %s, want 2@0/900000", end)
	}
}

func TestTips(t *testing.T) {
	cases := []struct {
		name string
		inv  *archive.Inventory
		want []wal.Timeline
	}{
		{"a failover leaves one branch", inventory(map[wal.Timeline][]uint64{1: span(1, 5), 2: span(6, 8)}, fork(1, 0, 0, 1), fork(2, 1, 6*mib, 2)), []wal.Timeline{2}},
		{"a point-in-time restore leaves two", inventory(map[wal.Timeline][]uint64{1: span(1, 9), 2: span(4, 8)}, fork(1, 0, 0, 1), fork(2, 1, 4*mib+50, 2)), []wal.Timeline{1, 2}},
		{"a child that shipped nothing hides nobody", inventory(map[wal.Timeline][]uint64{1: span(1, 5), 3: span(4, 4)},
			fork(1, 0, 0, 1), fork(2, 1, 6*mib, 2), fork(3, 1, 4*mib+50, 3)), []wal.Timeline{1, 3}},
	}
	for _, c := range cases {
		if diff := cmp.Diff(c.want, c.inv.Tips()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestATimelineWhoseFirstSegmentsExpiredIsStillTheNewest(t *testing.T) {
	inv := inventory(map[wal.Timeline][]uint64{1: {}, 2: span(9, 12)}, fork(1, 0, 0, 1), fork(2, 1, 4*mib+50, 2))
	b, err := inv.Newest()
	if err != nil || b.Timeline != 2 {
		t.Errorf("newest branch = %d, %v; want timeline 2, which has WAL long past its fork", b.Timeline, err)
	}
	inv = inventory(map[wal.Timeline][]uint64{1: span(1, 9)}, fork(1, 0, 0, 1), fork(2, 1, 4*mib+50, 2))
	b, err = inv.Newest()
	if err != nil || b.Timeline != 1 || b.Legs[0].To != 4*mib+50 {
		t.Errorf("newest branch = %+v, %v; want timeline 1 up to where timeline 2 left it, since that has nothing yet", b, err)
	}
}
