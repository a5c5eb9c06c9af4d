package retention_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/internal/wal"
)

// hourly is a database that takes a snapshot each hour, in the hour before `hours`.
func hourly(hours int, change func(n int, w *world)) *world {
	w := newWorld(fixed())
	for n := range hours {
		w.write()
		w.snapshot(false, true)
		if change != nil {
			change(n, w)
		}
	}
	w.state.Now = w.time(w.now)
	return w
}

// backdate sets the clock of whoever made the last claims back by hours. The store's goes right.
func backdate(w *world, hours int) {
	e := &w.state.Inventory.Epochs[len(w.state.Inventory.Epochs)-1]
	e.ClaimedAt, e.ModTime = w.time(w.now-hours), w.time(w.now)
	c := w.state.Inventory.Claims[w.current.id]
	c.ClaimedAt, c.ModTime = e.ClaimedAt, e.ModTime
	w.state.Inventory.Claims[w.current.id] = c
}

func plan(t *testing.T, w *world, window time.Duration, minimum int) retention.Plan {
	t.Helper()
	p, err := retention.Make(w.state, retention.Rules{Window: window, MinBackups: minimum})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reasons counts why snapshots stay.
func reasons(p retention.Plan) map[string]int {
	n := map[string]int{}
	for _, why := range p.Kept {
		n[why]++
	}
	return n
}

func TestWhatStaysAndWhy(t *testing.T) {
	last := func(w *world) *archive.Backup { return &w.state.Backups[len(w.state.Backups)-1] }
	cases := []struct {
		name string
		w    *world
		min  int
		want map[string]int
		gone int // snapshots
	}{
		{"hourly, window of 3 hours", hourly(20, nil), 2, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1}, 16},
		{"the minimum reaches past the window", hourly(20, nil), 6, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptMinimum: 2}, 14},
		{"nothing was archived for a long time", func() *world {
			w := hourly(10, nil)
			w.state.Now = w.time(1000)
			return w
		}(), 2, map[string]int{retention.KeptAnchor: 1, retention.KeptMinimum: 1}, 8},
		{"bad pages since hour 10", hourly(20, func(n int, w *world) {
			if n >= 10 {
				last(w).Manifest.Checksums.Bad = []string{"base/1/2:3"}
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptSound: 1}, 15},
		{"too few sound ones", hourly(20, func(n int, w *world) {
			if n > 0 {
				last(w).Manifest.Checksums.Bad = []string{"base/1/2:3"}
			}
		}), 2, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptSound: 1, retention.KeptTooFew: 15}, 0},
		{
			"those of WAL-G prove nothing", hourly(20, func(_ int, w *world) { last(w).Manifest = nil }), 1,
			map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptTooFew: 16},
			0,
		},
		{"one that does not say when it was taken", hourly(20, func(n int, w *world) {
			if n == 5 {
				last(w).Manifest.StopTime, last(w).Sentinel.FinishTime = time.Time{}, time.Time{}
			}
		}), 1, map[string]int{retention.KeptInWindow: 4, retention.KeptAnchor: 1}, 15},
		{"a writer whose clock was behind by days", hourly(20, func(n int, w *world) {
			last(w).ModTime = w.time(w.now)
			if n > 16 {
				last(w).Manifest.StopTime = w.time(w.now - 100)
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1}, 16},
		{"a writer whose clock was ahead by hours", hourly(20, func(n int, w *world) {
			last(w).ModTime = w.time(w.now)
			if n == 15 {
				last(w).Manifest.StopTime = w.time(w.now + 2)
			}
		}), 1, map[string]int{retention.KeptInWindow: 4, retention.KeptAnchor: 1}, 15},
		{"deltas keep their parents", hourly(20, func(n int, w *world) {
			if n == 16 {
				last(w).Sentinel.DeltaFrom = &w.state.Backups[7].Name
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptParent: 1}, 15},
		{"a permanent one", hourly(20, func(n int, w *world) {
			if n == 4 {
				w.state.Permanent[last(w).Name] = true
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1, retention.KeptPermanent: 1}, 15},
		{"a branch that was left before the window goes", hourly(20, func(n int, w *world) {
			if n == 10 {
				w.begin(w.timelines[0], w.timelines[0].ticks[4].end, true)
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1}, 16},
		{"a branch that was left in the window stays", hourly(20, func(n int, w *world) {
			if n == 17 {
				w.begin(w.timelines[0], w.timelines[0].ticks[4].end, true)
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 2}, 15},
		{"a branch that was left in the window, by a clock that was behind", hourly(20, func(n int, w *world) {
			if n >= 14 && n <= 17 { // nothing but the claim tells that it lived in the window
				w.state.Backups = w.state.Backups[:len(w.state.Backups)-1]
			}
			if n == 17 {
				w.begin(w.timelines[0], w.timelines[0].ticks[4].end, true)
				backdate(w, 100)
			}
		}), 1, map[string]int{retention.KeptInWindow: 2, retention.KeptAnchor: 2}, 12},
		{"a promotion under one epoch ends the old timeline too", hourly(20, func(n int, w *world) {
			if n == 10 {
				w.begin(w.current, w.current.end, false)
			}
		}), 1, map[string]int{retention.KeptInWindow: 3, retention.KeptAnchor: 1}, 16},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			p := plan(t, c.w, 3*hour, c.min)
			if diff := cmp.Diff(c.want, reasons(p)); diff != "" {
				t.Errorf("kept (-want +got):\n%s%v", diff, slices.Sorted(maps.Keys(p.Kept)))
			}
			if len(p.Backups) != c.gone {
				t.Errorf("%d snapshots go, want %d", len(p.Backups), c.gone)
			}
		})
	}
}

func TestWALGoesUpToTheOldestSnapshotThatStays(t *testing.T) {
	w := hourly(20, func(n int, w *world) {
		if n == 10 {
			// WAL that was never sealed, such as that of a timeline that was given up.
			w.state.Inventory.Chunks[wal.Segment{Timeline: 1, Number: 3}] = []archive.Chunk{{Segment: wal.Segment{Timeline: 1, Number: 3}, Epoch: 1, From: 3 * mib, To: 3*mib + 8192}}
		}
	})
	w.state.Permanent[w.state.Backups[2].Name] = true
	p := plan(t, w, 3*hour, 1)
	anchor := w.state.Backups[16]
	if p.Kept[anchor.Name] != retention.KeptAnchor {
		t.Fatalf("the anchor is another one: %v", p.Kept)
	}
	z := wal.SegmentSize(mib)
	first := z.SegmentAt(1, anchor.Start())
	permanent := w.state.Backups[2]
	for seg := range w.state.Inventory.Sealed {
		own := seg.Number >= z.SegmentAt(1, permanent.Start()).Number && seg.Number <= z.SegmentAt(1, permanent.Stop()-1).Number
		goes := slices.ContainsFunc(p.Segments, func(s archive.SegmentInfo) bool { return s.Segment == seg })
		if want := seg.Number < first.Number && !own; goes != want {
			t.Errorf("segment %d goes = %t, want %t: the oldest snapshot that stays begins in segment %d", seg.Number, goes, want, first.Number)
		}
	}
	if !slices.ContainsFunc(p.Chunks, func(c archive.Chunk) bool { return c.Segment.Number == 3 }) {
		t.Errorf("chunks of expired segments stay: %v", p.Chunks)
	}
}

func TestWithoutSnapshotsNothingGoes(t *testing.T) {
	w := newWorld(fixed())
	for range 100 {
		w.write()
	}
	w.state.Now = w.time(10_000)
	if p := plan(t, w, hour, 1); len(p.Segments)+len(p.Chunks) > 0 {
		t.Errorf("%d segments and %d chunks go although the first snapshot is not there yet", len(p.Segments), len(p.Chunks))
	}
}

func TestNothingGoesWhenItCannotBeTold(t *testing.T) {
	rules := retention.Rules{Window: hour, MinBackups: 1}
	w := hourly(20, nil)
	w.state.Inventory.Epochs = append(w.state.Inventory.Epochs, archive.Epoch{Number: 9, ClaimedAt: w.time(19)})
	if _, err := retention.Make(w.state, rules); !errors.Is(err, retention.ErrBusy) {
		t.Errorf("while a restore is under way: error = %v, want ErrBusy", err)
	}
	w = hourly(20, nil)
	w.begin(w.current, w.current.end, true)
	w.state.Inventory.Histories[2] = wal.History{{Parent: 1, LSN: 7 * mib}}
	if _, err := retention.Make(w.state, rules); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("with a claim and a history that contradict each other: error = %v, want ErrConflict", err)
	}
	for _, r := range []retention.Rules{{}, {Window: hour}, {MinBackups: 1}, {Window: -hour, MinBackups: 1}} {
		if _, err := retention.Make(hourly(20, nil).state, r); err == nil {
			t.Errorf("rules %+v are taken", r)
		}
	}
}

func TestDebris(t *testing.T) {
	w := hourly(10, func(n int, w *world) {
		if n == 4 {
			w.begin(w.current, w.current.end, true) // epoch 2 from here on
		}
	})
	newest := w.state.Backups[len(w.state.Backups)-1]
	name := func(t wal.Timeline, n uint64) string {
		return "base_" + wal.Segment{Timeline: t, Number: n}.Name(mib)
	}
	claim := func(epoch uint64) *archive.BackupClaim { return &archive.BackupClaim{Epoch: epoch} }
	old, late := name(2, 11), name(2, 500)
	cases := []struct {
		why  string
		dir  archive.BackupDir
		mark bool
		goes bool
	}{
		{"it is a snapshot", archive.BackupDir{Name: newest.Name, Sentinel: true, Claim: claim(1)}, true, false},
		{"an attempt of an earlier epoch, overtaken", archive.BackupDir{Name: old, Claim: claim(1)}, false, true},
		{"an attempt of this epoch, overtaken by this epoch", archive.BackupDir{Name: old, Claim: claim(2)}, false, true},
		{"an attempt of this epoch, perhaps under way", archive.BackupDir{Name: late, Claim: claim(2)}, false, false},
		{"an attempt of an earlier epoch, younger than all", archive.BackupDir{Name: late, Claim: claim(1)}, false, false},
		{"an attempt of an epoch that is not known yet", archive.BackupDir{Name: old, Claim: claim(3)}, false, false},
		{"nobody's, quiet", archive.BackupDir{Name: old, Newest: w.state.Now.Add(-25 * hour)}, false, true},
		{"nobody's, lively", archive.BackupDir{Name: old, Newest: w.state.Now.Add(-23 * hour)}, false, false},
		{"half deleted by a run that was cut short", archive.BackupDir{Name: late, Claim: claim(2)}, true, true},
	}
	for _, c := range cases {
		w.state.Dirs, w.state.Marks = []archive.BackupDir{c.dir}, nil
		if c.mark {
			w.state.Marks = []archive.Expiry{{Backups: []string{c.dir.Name}}}
		}
		if p := plan(t, w, hour, 1); len(p.Debris) == 1 != c.goes {
			t.Errorf("%s: goes = %t, want %t", c.why, !c.goes, c.goes)
		}
	}
}
