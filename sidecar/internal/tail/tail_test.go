package tail

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"outrider.dev/sidecar/internal/wal"
)

// bubble runs a test in fake time.
func bubble(t *testing.T, test func(t *testing.T, dir string)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) { test(t, dir) })
}

func TestFirstAnswerComesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := newWorld(t, dir, 0x1500000)
		if took := next(t, tl, 0, 0x1500000); took > time.Millisecond {
			t.Errorf("the first answer took %v", took)
		}
		if n := w.asked(); n != 1 {
			t.Errorf("the server was asked %d times", n)
		}
	})
}

func TestIdleServerIsHardlyAsked(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := newWorld(t, dir, 0x1500000)
		next(t, tl, 0, 0x1500000)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
		defer cancel()
		if _, err := tl.Next(ctx, at(0x1500000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Next of an idle server: %v", err)
		}
		// One each floor, and the dozen at the beginning.
		if n := w.asked(); n < 170 || n > int(30*time.Minute/floor)+12 {
			t.Errorf("an idle server was asked %d times in 30 minutes", n)
		}
	})
}

func TestWriteIsSeenSoonAfterItsFlush(t *testing.T) {
	for _, stall := range []time.Duration{0, 3 * time.Millisecond, 100 * time.Millisecond, 700 * time.Millisecond, 5 * time.Second} {
		t.Run(stall.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, dir string) {
				w, tl := settled(t, dir, 0x1500000)
				before := w.asked()
				go func() {
					time.Sleep(time.Second)
					w.touch(0x1500000)
					go w.send(0x1500000)
					time.Sleep(stall)
					w.flush(0x1500100)
				}()
				next(t, tl, 0x1500000, 0x1500100)
				if late := w.late(); late > stall+interval/16 {
					t.Errorf("a flush that took %v was seen %v late", stall, late)
				}
				if n := w.asked() - before; n > 20 {
					t.Errorf("the server was asked %d times for one write", n)
				}
			})
		})
	}
}

// A commit can be flushed without a write of its own: somebody else wrote its record before.
func TestFlushWithoutAWriteIsSeen(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		go func() {
			w.touch(0x1500000)
			w.flush(0x1500100)
			w.send(0x1500000)
		}()
		next(t, tl, 0x1500000, 0x1500100)
		go func() {
			time.Sleep(760 * time.Millisecond)
			w.flush(0x1500180)
		}()
		if took := next(t, tl, 0x1500100, 0x1500180); took > 760*time.Millisecond+interval {
			t.Errorf("it was seen after %v", took)
		}
	})
}

func TestLoadIsAnsweredOncePerInterval(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		before := w.asked()
		taken := 0
		ctx, stop := context.WithCancel(t.Context())
		var load sync.WaitGroup
		load.Go(func() { // the kernel: events that nobody takes become one
			for ctx.Err() == nil {
				select {
				case w.events <- fsnotify.Event{Name: w.path(0x1500000), Op: fsnotify.Write}:
					taken++
					time.Sleep(200 * time.Microsecond)
				case <-ctx.Done():
				}
			}
		})
		load.Go(func() { // a commit each 200 µs
			for l := wal.LSN(0x1500008); ctx.Err() == nil; l += 8 {
				w.flush(l)
				time.Sleep(200 * time.Microsecond)
			}
		})
		var last, since time.Time
		answers, after := 0, at(0x1500000)
		for since = time.Now(); time.Since(since) < 10*time.Second; answers++ {
			pos, err := tl.Next(t.Context(), after)
			if err != nil {
				t.Fatal(err)
			}
			if gap := time.Since(last); !last.IsZero() && (gap < interval || gap > interval+interval/8) {
				t.Fatalf("two answers are %v apart", gap)
			}
			after, last = pos, time.Now()
		}
		stop()
		load.Wait()
		if answers < 35 || answers > 41 {
			t.Errorf("%d answers in 10 s", answers)
		}
		if n := w.asked() - before; n > answers+4 {
			t.Errorf("the server was asked %d times for %d answers", n, answers)
		}
		t.Logf("%d answers, %d events taken", answers, taken)
	})
}

// A pace that is slower than the interval holds for what comes under load, and for nothing else.
func TestPaceIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		var hurry atomic.Bool
		tl.cfg.Pace = func() time.Duration {
			if hurry.Load() {
				return 0
			}
			return 3 * interval
		}
		w.flush(0x1510000)
		w.touch(0x1510000)
		if took := next(t, tl, 0x1500000, 0x1510000); took > interval/2 {
			t.Errorf("after a quiet time it took %v", took)
		}
		w.flush(0x1520000)
		w.touch(0x1520000)
		if took := next(t, tl, 0x1510000, 0x1520000); took < 3*interval || took > 3*interval+interval/8 {
			t.Errorf("two answers are %v apart", took)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			w.flush(0x1700100)
			w.touch(0x1700100)
		}()
		if took := next(t, tl, 0x1520000, 0x1700100); took > interval/3 {
			t.Errorf("a whole segment was answered after %v", took)
		}
		w.flush(0x1710000)
		w.touch(0x1710000)
		go func() {
			time.Sleep(interval / 2)
			hurry.Store(true)
		}()
		if took := next(t, tl, 0x1700100, 0x1710000); took > interval+interval/8 {
			t.Errorf("although there was no time left it took %v", took)
		}
	})
}

func TestAFilledSegmentIsAnsweredEarly(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		w.flush(0x1510000)
		go w.send(0x1510000)
		next(t, tl, 0x1500000, 0x1510000)

		// 15 is filled and 16 begun: not a whole segment yet.
		w.flush(0x1600100)
		w.touch(0x1600100)
		if took := next(t, tl, 0x1510000, 0x1600100); took < interval {
			t.Errorf("the rest of a segment was answered after %v", took)
		}
		go func() {
			time.Sleep(20 * time.Millisecond)
			w.flush(0x1800100)
			w.touch(0x1800100)
		}()
		if took := next(t, tl, 0x1600100, 0x1800100); took > interval/3 {
			t.Errorf("a whole segment was answered after %v", took)
		}
		// A write to the file that tells, without the flush: no answer, and no storm.
		before := w.asked()
		go func() {
			for l := wal.LSN(0x1A00000); l < 0x1A00100; l++ {
				time.Sleep(time.Millisecond)
				w.touch(l)
			}
		}()
		w.flush(0x1980000)
		if took := next(t, tl, 0x1800100, 0x1980000); took < interval {
			t.Errorf("less than a segment was answered after %v", took)
		}
		if n := w.asked() - before; n > fillShare {
			t.Errorf("the server was asked %d times in one interval", n)
		}
		time.Sleep(time.Second)
		w.flush(0x1980100)
		next(t, tl, 0x1980000, 0x1980100)
		before = w.asked()
		w.touch(0x1B00000) // once
		w.flush(0x1980200)
		next(t, tl, 0x1980100, 0x1980200)
		if n := w.asked() - before; n != 2 {
			t.Errorf("one write to the file that tells made %d questions, want one more than usual", n)
		}
	})
}

func TestPreparedFilesAreNoHint(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		before := w.asked()
		stop := time.Now().Add(time.Minute)
		go func() {
			for time.Now().Before(stop) {
				select {
				case w.events <- fsnotify.Event{Name: filepath.Join(dir, "xlogtemp.4711"), Op: fsnotify.Write}:
				case <-time.After(time.Until(stop)):
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		ctx, cancel := context.WithDeadline(t.Context(), stop)
		defer cancel()
		if _, err := tl.Next(ctx, at(0x1500000)); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		if n := w.asked() - before; n > int(time.Minute/floor)+1 {
			t.Errorf("the server was asked %d times in a minute", n)
		}
	})
}

func TestAnotherTimelineIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		w, tl := settled(t, dir, 0x1500000)
		want := wal.Position{Timeline: 2, LSN: 0x1500000}
		w.mu.Lock()
		w.pos = want
		w.mu.Unlock()
		// A promotion makes new files and leaves the old ones alone.
		name := segmentSize.SegmentAt(2, want.LSN).Name(segmentSize)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		started := time.Now()
		pos, err := tl.Next(t.Context(), at(0x1500000))
		if err != nil || pos != want {
			t.Errorf("Next = %s, %v; want %s", pos, err, want)
		}
		if took := time.Since(started); took > interval+interval/8 {
			t.Errorf("a promotion was seen after %v", took)
		}
	})
}

func TestAnOlderRequestIsAnsweredFromWhatTheServerSays(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		_, tl := settled(t, dir, 0x1500000)
		if took := next(t, tl, 0x1400000, 0x1500000); took > interval/8 {
			t.Errorf("the position was known, the answer took %v", took)
		}
	})
}

func TestCancelEndsNext(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		_, tl := settled(t, dir, 0x1500000)
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { time.Sleep(time.Second); cancel(cause) }()
		if _, err := tl.Next(ctx, at(0x1500000)); !errors.Is(err, context.Canceled) {
			t.Errorf("Next = %v, want context.Canceled", err)
		}
	})
}
