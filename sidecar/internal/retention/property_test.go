package retention_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/retention"
)

// TestNothingInTheWindowIsLost lets databases live for a while, with restores to the past, promotions, lost segments,
// bad snapshots and deltas, expires every now and then, and demands that every moment in the window that could be
// restored before still can.
func TestNothingInTheWindowIsLost(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var sum tally
	for n := range uint64(60) {
		if t.Failed() {
			break
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) { live(t, rand.New(rand.NewPCG(seed, n)), &sum) })
	}
	t.Logf("%+v", sum)
	if sum.Points == 0 || sum.Lost == 0 || sum.Backups == 0 || sum.Segments == 0 || sum.Chunks == 0 || sum.Branches == 0 {
		t.Errorf("something was never tried: %+v", sum)
	}
}

// tally proves that the test met what it is about.
type tally struct {
	Points   int // moments in the window that could be restored before and after
	Lost     int // moments that could not be restored, because of what the world did
	Backups  int // that expired
	Segments int
	Chunks   int
	Branches int // expiries with more than one branch
}

func live(t *testing.T, r *rand.Rand, sum *tally) {
	w := newWorld(r)
	rules := retention.Rules{Window: time.Duration(3+r.IntN(20)) * hour, MinBackups: 1 + r.IntN(3)}
	rewinds, losses, every := r.IntN(15), r.IntN(8), 1+r.IntN(4)
	for range 120 {
		w.write()
		if r.IntN(every) == 0 {
			w.snapshot(r.IntN(2) == 0, r.IntN(5) > 0)
		}
		switch x := r.IntN(100); {
		case x < rewinds:
			w.rewind()
		case x < rewinds+3:
			w.begin(w.current, w.current.end, r.IntN(2) == 0)
		case x < rewinds+3+losses:
			w.lose()
		}
		if r.IntN(10) == 0 && len(w.current.ticks) > 0 {
			w.expire(t, rules, sum)
		}
	}
}

func (w *world) expire(t *testing.T, rules retention.Rules, sum *tally) {
	t.Helper()
	before := w.state
	before.Now = w.time(w.now)
	p, err := retention.Make(before, rules)
	if err != nil {
		t.Fatal(err)
	}
	after := apply(before, p)
	w.compare(t, before, after, rules, sum)
	w.checkMinimum(t, before, after, rules)
	again, err := retention.Make(after, rules)
	if err != nil {
		t.Fatal(err)
	}
	if !again.Empty() {
		t.Errorf("a second run finds more: %d snapshots, %d segments", len(again.Backups), len(again.Segments))
	}
	sum.Backups += len(p.Backups)
	sum.Segments += len(p.Segments)
	sum.Chunks += len(p.Chunks) + len(p.Sealed)
	if len(before.Inventory.Tips()) > 1 {
		sum.Branches++
	}
	w.state = after
}

func (w *world) compare(t *testing.T, before, after retention.State, rules retention.Rules, sum *tally) {
	t.Helper()
	cutoff := before.Now.Add(-rules.Window)
	for _, l := range w.timelines {
		for i, k := range l.ticks {
			// The last moment before the window counts too: it is how things were when the window begins.
			if !w.time(k.at).After(cutoff) && (i+1 == len(l.ticks) || !w.time(l.ticks[i+1].at).After(cutoff)) {
				continue
			}
			for _, sound := range []bool{false, true} {
				if !restorable(before, l, k.end, sound) {
					sum.Lost++
					continue
				}
				sum.Points++
				if !restorable(after, l, k.end, sound) {
					t.Errorf("timeline %d at %s, written at hour %d of %d, window %s, sound %t: could be restored before, and cannot after",
						l.id, k.end, k.at, w.now, rules.Window, sound)
				}
			}
		}
	}
}

// checkMinimum demands that the newest branch keeps as many sound snapshots as it had, up to the minimum.
func (w *world) checkMinimum(t *testing.T, before, after retention.State, rules retention.Rules) {
	t.Helper()
	count := func(s retention.State) (n int) {
		legs := path(w.current)
		for _, b := range s.Backups {
			for _, g := range legs {
				if g.l.id == b.Timeline() && b.Stop() <= g.to && chain(s, b, true) && holds(s, legs, b.Start(), b.Stop()) {
					n++
				}
			}
		}
		return n
	}
	had, has := count(before), count(after)
	if has < min(had, rules.MinBackups) {
		t.Errorf("%d sound snapshots of the newest branch are left of %d, want at least %d", has, had, min(had, rules.MinBackups))
	}
}

// TestOrder checks that a plan can be cut short at any point and leave nothing broken.
func TestOrder(t *testing.T) {
	w := newWorld(rand.New(rand.NewPCG(1, 1)))
	for n := range 60 {
		w.write()
		w.snapshot(n%6 != 0, true)
	}
	w.state.Now = w.time(w.now)
	p, err := retention.Make(w.state, retention.Rules{Window: 5 * hour, MinBackups: 1})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Backups) < 20 || len(p.Segments) < 20 {
		t.Fatalf("only %d snapshots and %d segments expire of 60 hours with a window of 5", len(p.Backups), len(p.Segments))
	}
	for i := range p.Segments[1:] {
		if p.Segments[i].Segment.Number > p.Segments[i+1].Segment.Number {
			t.Errorf("segment %d goes before %d: what remains would have a gap", p.Segments[i].Segment.Number, p.Segments[i+1].Segment.Number)
		}
	}
	for n := range p.Backups {
		left := apply(w.state, retention.Plan{Backups: p.Backups[:n]})
		for _, b := range left.Backups {
			if _, whole := archive.Parents(b, left.Backups); !whole {
				t.Fatalf("after %d deletions %s is without its parent", n, b.Name)
			}
		}
	}
}
