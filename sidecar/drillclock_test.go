package main

import (
	"context"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

// Whoever begins to ask for drills of an old archive has time for the first one, whatever was passed long ago. Restarts
// do not give more of it.
func TestFirstDrillHasTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		due := func() time.Time {
			t.Helper()
			v := idleVoyage(t, b)
			v.policy.DrillMaxAge = 24 * time.Hour
			if err := v.readDrills(t.Context()); err != nil {
				t.Fatal(err)
			}
			return v.board.snapshot().Drills.Due
		}
		v := idleVoyage(t, b)
		if _, err := v.arch.RecordDrill(t.Context(), archive.Drill{Passed: true, VerifiedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(365 * 24 * time.Hour)
		want := time.Now().Add(24 * time.Hour)
		for range 3 {
			if got := due(); !got.Equal(want) {
				t.Errorf("the first drill is due at %s, want %s", got, want)
			}
			time.Sleep(10 * time.Hour)
		}
		if _, err := v.arch.RecordDrill(t.Context(), archive.Drill{Passed: true, VerifiedAt: time.Now()}); err != nil {
			t.Fatal(err)
		}
		if got, want := due(), time.Now().Add(24*time.Hour); !got.Equal(want) {
			t.Errorf("after a drill that was passed the next is due at %s, want %s", got, want)
		}
	})
}

// A verdict from before anybody asked for drills is told to who looks, and wakes nobody.
func TestOldVerdictWakesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := idleVoyage(t, archivetest.Memory())
		v.policy.DrillMaxAge = 24 * time.Hour
		start := time.Now()
		fail := func() {
			t.Helper()
			if _, err := v.arch.RecordDrill(t.Context(), archive.Drill{Failure: "a query with a mistake", VerifiedAt: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		looks := func() (passed float64, known bool) {
			t.Helper()
			if err := v.readDrills(t.Context()); err != nil || v.board.snapshot().Drills.Last == nil {
				t.Fatalf("%v, %+v", err, v.board.snapshot().Drills)
			}
			passed, known = drillValues(t, v, start)["last_passed"]
			return passed, known
		}
		fail()
		time.Sleep(time.Hour)
		if passed, known := looks(); known {
			t.Errorf("the verdict of an hour before is published: %v", passed)
		}
		time.Sleep(time.Hour)
		fail()
		if passed, known := looks(); !known || passed != 0 {
			t.Errorf("a verdict that was asked for is published: %v, %v", known, passed)
		}
	})
}

// otherClock is a store whose clock is not ours.
type otherClock struct {
	archive.Bucket
	behind time.Duration
}

func (o otherClock) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	return func(yield func(archive.ObjectInfo, error) bool) {
		for i, err := range o.Bucket.List(ctx, prefix, after) {
			i.SeenAt = i.SeenAt.Add(-o.behind).Truncate(time.Second)
			if !yield(i, err) {
				return
			}
		}
	}
}

// A machine whose clock is a day ahead must not hide what others find after it; nor must one that is as fast.
func TestDrillsAreOrderedByTheStoresClock(t *testing.T) {
	arch := archive.New(otherClock{archivetest.Memory(), 24 * time.Hour})
	addSnapshot(t, arch.WAL(mib), 2, time.Now(), "")
	now := time.Now()
	var keys []string
	for i := range 3 {
		d := newDrill(now)
		d.VerifiedAt, d.Seconds, d.Failure = now.Add(time.Duration(-i)*time.Hour), 60, strings.Repeat("x", i)
		key, err := record(t.Context(), arch, &d)
		if err != nil {
			t.Fatal(err)
		}
		if ahead := d.VerifiedAt.Sub(now) + 24*time.Hour; ahead.Abs() > time.Minute || d.StartedAt.Sub(d.VerifiedAt).Round(time.Second) != -time.Minute {
			t.Errorf("the drill began at %s and ended at %s", d.StartedAt, d.VerifiedAt)
		}
		keys = append(keys, key)
	}
	got, err := arch.DrillKeys(t.Context(), "")
	if diff := cmp.Diff(keys, got); diff != "" || err != nil {
		t.Errorf("the order of the results: %v (-want +got):\n%s", err, diff)
	}
}
