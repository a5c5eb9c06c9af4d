package tail

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

func TestAgeIsUnknownUntilTheServerWasAsked(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		_, tl := newWorld(t, dir, 0x1500000)
		if age, known := tl.Age(0x1500000); known {
			t.Errorf("Age before the first question = %v", age)
		}
		next(t, tl, 0, 0x1500000)
		if age, known := tl.Age(0x1400000); known {
			t.Errorf("Age of what was flushed before anybody looked = %v", age)
		}
		if age, known := tl.Age(0x1500000); !known || age > interval {
			t.Errorf("Age when all is durable = %v, %v", age, known)
		}
	})
}

func TestAgeIsZeroOnlyWhenNothingCanBePending(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		if age, known := tl.Age(0x1500000); !known || age != 0 {
			t.Errorf("Age of an idle server = %v, %v; want 0", age, known)
		}
		// A write that nobody has taken notice of yet.
		w.touch(0x1500000)
		time.Sleep(time.Millisecond)
		if age, known := tl.Age(0x1500000); !known || age == 0 || age > 2*interval {
			t.Errorf("Age after a write = %v, %v; want more than 0", age, known)
		}
		w.flush(0x1500100)
		next(t, tl, 0x1500000, 0x1500100)
		time.Sleep(time.Minute)
		if age, _ := tl.Age(0x1500000); age < time.Minute || age > time.Minute+3*interval {
			t.Errorf("Age a minute after a flush that is not durable = %v", age)
		}
		if age, _ := tl.Age(0x1500100); age == 0 || age > time.Minute+2*interval {
			t.Errorf("Age when nobody has looked for a minute = %v", age)
		}
	})
}

// A random life of a server, of which the truth is known at each moment.
func TestAgeIsAnUpperBound(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	bubble(t, func(t *testing.T, dir string) {
		w, tl := newWorld(t, dir, 0x1500000)
		rnd := rand.New(rand.NewPCG(seed, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		var mu sync.Mutex
		durable := wal.LSN(0)
		type commit struct {
			at  time.Time
			lsn wal.LSN
		}
		var commits []commit

		var life sync.WaitGroup
		life.Go(func() { // the server: bursts of commits and quiet times
			lsn := wal.LSN(0x1500000)
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rnd.ExpFloat64() * float64(4*time.Second)))
				for range rnd.IntN(200) {
					lsn += wal.LSN(8 * (1 + rnd.IntN(1000)))
					w.touch(lsn)
					time.Sleep(time.Duration(rnd.Int64N(int64(40 * time.Millisecond)))) // the flush takes its time
					mu.Lock()
					w.flush(lsn)
					commits = append(commits, commit{time.Now(), lsn})
					mu.Unlock()
				}
			}
		})
		life.Go(func() { // the shipper
			delays := rand.New(rand.NewPCG(seed, 1))
			after := wal.Position{}
			for {
				pos, err := tl.Next(ctx, after)
				if err != nil {
					return
				}
				time.Sleep(time.Duration(delays.Int64N(int64(100 * time.Millisecond))))
				after = pos
				mu.Lock()
				durable = pos.LSN
				mu.Unlock()
			}
		})
		zeros, checks := 0, 0
		for ; ctx.Err() == nil; checks++ {
			time.Sleep(37 * time.Millisecond)
			mu.Lock()
			var truth time.Duration
			for i := len(commits) - 1; i >= 0 && commits[i].lsn > durable; i-- {
				truth = time.Since(commits[i].at)
			}
			age, known := tl.Age(durable)
			mu.Unlock()
			if !known {
				continue
			}
			if age < truth || age > truth+2*interval+200*time.Millisecond {
				t.Fatalf("%d: Age = %v, the oldest commit that is not durable is %v old", checks, age, truth)
			}
			if age == 0 {
				zeros++
			}
		}
		life.Wait()
		t.Logf("%d checks, %d of them 0, %d commits, %d questions", checks, zeros, len(commits), w.asked())
		if zeros == 0 || len(commits) == 0 {
			t.Error("the test has seen no quiet time, or no commit")
		}
	})
}

func TestHistoryStaysBoundedAndHonest(t *testing.T) {
	var h history
	start := time.Unix(1_000_000, 0)
	const n = 1_000_000
	for i := range n {
		h.add(start.Add(time.Duration(i)*interval), wal.LSN(i+1))
		if len(h.samples) > maxSamples {
			t.Fatalf("%d samples after %d", len(h.samples), i)
		}
	}
	for _, back := range []int{0, 1, 5, 50, 500, 5_000, 50_000, 500_000, n - 1} {
		i := n - 1 - back
		at, _, known := h.latest(wal.LSN(i + 1))
		exact := start.Add(time.Duration(i) * interval)
		if !known || at.After(exact) {
			t.Errorf("%d samples back: %v, %v; that is later than what is durable", back, at, known)
		}
		if off, limit := exact.Sub(at), time.Duration(back)*interval/coarseness; off > limit {
			t.Errorf("%d samples back: off by %v, want at most %v", back, off, limit)
		}
	}
	if _, _, known := h.latest(0); known {
		t.Error("a position before all samples is known")
	}
	before := len(h.samples)
	for i := range 1000 {
		h.add(start.Add((n+time.Duration(i))*interval), n)
	}
	if at, _, _ := h.latest(n); len(h.samples) != before || at != start.Add((n+999)*interval) {
		t.Errorf("an idle server: %d samples, the last of %v", len(h.samples), at)
	}
	h.add(start, 5) // a position that goes back belongs to another server
	if _, _, known := h.latest(4); known || len(h.samples) != 1 {
		t.Errorf("samples of another server are kept: %d", len(h.samples))
	}
}
