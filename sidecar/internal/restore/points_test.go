package restore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// story is a database with two snapshots and five commits: 1, A, 2, 3, B, 4, 5.
type story struct {
	*writer
	a, b string // snapshots
	p    map[int]point
}

func tell(t *testing.T) story {
	w := startWriter(t, 0, nil)
	s := story{writer: w, p: map[int]point{}}
	s.p[1] = w.insert(1)
	s.a = w.snapshot()
	s.p[2] = w.insert(2)
	w.bulk(1)
	s.p[3] = w.insert(3)
	s.b = w.snapshot()
	s.p[4] = w.insert(4)
	s.p[5] = w.insert(5)
	return s
}

func (s story) archive(t *testing.T) *archive.Archive { return archive.New(cloneBucket(t, s.bucket)) }

func TestPoints(t *testing.T) {
	s := tell(t)
	lsn := func(n int) Target { return Target{LSN: s.p[n].lsn} }
	at := func(n int) Target { return Target{Time: s.p[n].at.Truncate(time.Microsecond)} }

	t.Run("an LSN", func(t *testing.T) {
		r := restoreTo(t, s.archive(t), Request{Target: lsn(2)})
		if r.plan.Snapshot.Name != s.a {
			t.Errorf("the restore begins at %s, want %s", r.plan.Snapshot.Name, s.a)
		}
		wantRows(t, r.start(), 1, 2)
	})
	t.Run("a time", func(t *testing.T) {
		r := restoreTo(t, s.archive(t), Request{Target: at(4)})
		if r.plan.Snapshot.Name != s.b {
			t.Errorf("the restore begins at %s, want %s", r.plan.Snapshot.Name, s.b)
		}
		wantRows(t, r.start(), 1, 2, 3, 4)
	})
	t.Run("after the last commit", func(t *testing.T) {
		for _, target := range []Target{{Time: time.Now().Add(time.Hour)}, {LSN: s.p[5].lsn + 1<<30}, lsn(5), at(5)} {
			plan, err := NewPlan(t.Context(), s.archive(t), Request{Target: target})
			must(t, err)
			if !plan.StopTime.IsZero() || plan.StopLSN != 0 {
				t.Errorf("recovery to %s, past all there is, is told to stop at %s %s", target, plan.StopLSN, plan.StopTime)
			}
		}
		r := restoreTo(t, s.archive(t), Request{Target: Target{Time: time.Now().Add(time.Hour)}})
		if len(r.plan.Warnings) == 0 || !strings.Contains(r.plan.String(), "after all that was committed") {
			t.Errorf("the plan does not say that the target was dropped:\n%s", r.plan)
		}
		wantRows(t, r.start(), 1, 2, 3, 4, 5)
	})
	t.Run("before the first snapshot", func(t *testing.T) {
		for _, target := range []Target{lsn(1), at(1)} {
			_, err := NewPlan(t.Context(), s.archive(t), Request{Target: target})
			if !errors.Is(err, ErrTargetTooEarly) || !strings.Contains(err.Error(), s.a) {
				t.Errorf("a restore to %s: %v, want ErrTargetTooEarly that names %s", target, err, s.a)
			}
		}
	})
	t.Run("before a named snapshot", func(t *testing.T) {
		_, err := NewPlan(t.Context(), s.archive(t), Request{Target: lsn(2), Backup: s.b})
		if !errors.Is(err, ErrTargetTooEarly) {
			t.Errorf("a restore to %s from %s: %v, want ErrTargetTooEarly", lsn(2), s.b, err)
		}
	})
	t.Run("from a named snapshot", func(t *testing.T) {
		plan, err := NewPlan(t.Context(), s.archive(t), Request{Backup: s.a})
		must(t, err)
		if plan.Snapshot.Name != s.a || plan.End < s.p[5].lsn {
			t.Errorf("the plan begins at %s and ends at %s, want %s and at least %s", plan.Snapshot.Name, plan.End, s.a, s.p[5].lsn)
		}
		if _, err := NewPlan(t.Context(), s.archive(t), Request{Backup: "base_00000001000000000000FFFF"}); !errors.Is(err, ErrNoSnapshot) {
			t.Errorf("a snapshot that does not exist: %v, want ErrNoSnapshot", err)
		}
	})
	t.Run("an unknown timeline", func(t *testing.T) {
		if _, err := NewPlan(t.Context(), s.archive(t), Request{Target: Target{Timeline: 9}}); !errors.Is(err, ErrNoTimeline) {
			t.Errorf("timeline 9: %v, want ErrNoTimeline", err)
		}
	})
	t.Run("repeated restores", func(t *testing.T) { testRepeatedRestores(t, s) })
	t.Run("a restore that died before shipping", func(t *testing.T) { testClaimWithoutWAL(t, s) })
}

// Two restores to earlier and earlier points in one root: neither is undone by a later one, no timeline number is
// taken twice, and what was left behind can still be reached by name.
func testRepeatedRestores(t *testing.T, s story) {
	bucket := cloneBucket(t, s.bucket)
	a := archive.New(bucket)

	first := restoreTo(t, a, Request{Target: Target{Time: s.p[3].at}})
	server := first.start()
	wantRows(t, server, 1, 2, 3)
	w2 := first.take(server, bucket, 2)
	if w2.tli != 2 {
		t.Fatalf("the first restore promoted to timeline %d, want 2", w2.tli)
	}
	w2.insert(20)

	latest := restoreTo(t, a, Request{})
	latest.wantCuts()
	wantRows(t, latest.start(), 1, 2, 3, 20)

	// Its writer said that timeline 2 is durable; then somebody deleted it. The branch before it is no substitute.
	w2.beat()
	b := cloneBucket(t, bucket)
	remove(t, b, func(key string) bool {
		return strings.Contains(key, "/00000002") && strings.Contains(key, "00000002000000")
	})
	if _, err := NewPlan(t.Context(), archive.New(b), Request{}); !errors.Is(err, ErrHole) {
		t.Errorf("the newest timeline was deleted: %v, want ErrHole", err)
	}
	_, err := NewPlan(t.Context(), archive.New(b), Request{AcceptMissing: true})
	must(t, err)

	// A time between the fork and timeline 2's own commits was lived through on timeline 1 alone.
	_, err = NewPlan(t.Context(), a, Request{Target: Target{Time: s.p[4].at}})
	if !errors.Is(err, ErrAmbiguous) || !strings.Contains(err.Error(), "@1") {
		t.Errorf("a restore to a time of the branch that was left: %v, want ErrAmbiguous with the remedy", err)
	}
	// So was an LSN that timeline 2 has not reached.
	_, err = NewPlan(t.Context(), a, Request{Target: Target{LSN: s.p[5].lsn + 1}})
	if w2.pos < s.p[5].lsn && !errors.Is(err, ErrAmbiguous) {
		t.Errorf("a restore to an LSN of the branch that was left: %v, want ErrAmbiguous", err)
	}

	target := Target{LSN: s.p[2].lsn}
	second := restoreTo(t, a, Request{Target: target})
	if second.plan.Timeline != 1 {
		t.Errorf("recovery to %s follows timeline %d, want 1", target, second.plan.Timeline)
	}
	server = second.start()
	wantRows(t, server, 1, 2)
	w3 := second.take(server, bucket, 3)
	if w3.tli != 3 {
		t.Fatalf("the second restore promoted to timeline %d, want 3", w3.tli)
	}
	w3.insert(30)
	wantRows(t, restoreTo(t, a, Request{}).start(), 1, 2, 30)

	// The pod's template still says the target when the pod is lost again.
	again := restoreTo(t, a, Request{Target: target})
	wantRows(t, again.start(), 1, 2, 30)
	plan, err := NewPlan(t.Context(), a, Request{Target: target, Repeat: true})
	must(t, err)
	if plan.End != target.LSN || plan.Timeline != 1 || !plan.JobsOff {
		t.Errorf("a repeated restore to %s goes to %s on timeline %d, jobs off %v", target, plan.End, plan.Timeline, plan.JobsOff)
	}

	old := restoreTo(t, a, Request{Target: Target{Time: s.p[4].at, Timeline: 1}})
	server = old.start()
	wantRows(t, server, 1, 2, 3, 4)
	if tli := timelineNow(server); tli != 4 {
		t.Errorf("the third restore promoted to timeline %d, want 4: 2 and 3 are taken", tli)
	}
	middle := restoreTo(t, a, Request{Target: Target{Timeline: 2}})
	wantRows(t, middle.start(), 1, 2, 3, 20)
}

// A restore to an earlier point claimed timeline 2, published its history, and died. The next restore goes to the fork
// and no further, so that the first is not undone, and takes another number.
func testClaimWithoutWAL(t *testing.T, s story) {
	a := s.archive(t)
	at := s.p[3].lsn
	must(t, a.ClaimEpoch(t.Context(), archive.Epoch{Number: 2, Writer: archive.Identity{Instance: "two"}, ClaimedAt: time.Now()}))
	must(t, a.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 2, Epoch: 2, Parent: 1, Switch: at, ClaimedAt: time.Now()}))
	for _, history := range []bool{false, true} {
		t.Run(fmt.Sprintf("history %v", history), func(t *testing.T) {
			if history {
				h := wal.History{{Parent: 1, LSN: at, Reason: "no recovery target specified"}}
				must(t, a.PutHistory(t.Context(), 2, []byte(h.Format())))
			}
			r := restoreTo(t, a, Request{})
			server := r.start()
			wantRows(t, server, 1, 2, 3)
			if tli := timelineNow(server); tli != 3 {
				t.Errorf("promoted to timeline %d, want 3: 2 is claimed", tli)
			}
		})
	}
	if _, err := NewPlan(t.Context(), a, Request{Target: Target{Timeline: 2}}); !errors.Is(err, ErrNoTimeline) {
		t.Errorf("a restore of timeline 2, which has no WAL: %v, want ErrNoTimeline", err)
	}
}
