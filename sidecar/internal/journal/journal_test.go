package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

// recorder is a journal on an archive in memory that can be away, or lose its answers.
type recorder struct {
	*Journal
	t       *testing.T
	bucket  *archivetest.Bucket
	archive *archive.Archive
	away    atomic.Bool
	log     bytes.Buffer
}

var errAway = errors.New("no route")

func newRecorder(t *testing.T) *recorder {
	r := &recorder{t: t, bucket: archivetest.Memory()}
	r.archive = archive.New(r.bucket)
	r.bucket.Fault(func(op, _ string) error {
		if op == "put" && r.away.Load() {
			return errAway
		}
		return nil
	})
	r.Journal = New(r.archive, slog.New(slog.NewTextHandler(&r.log, nil)))
	return r
}

// run runs the journal until the returned function is called.
func (r *recorder) run() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run = %v", err)
		}
	}
}

func (r *recorder) flush() {
	r.t.Helper()
	if err := r.Flush(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// stored is what the archive holds of an epoch, as "event:n".
func (r *recorder) stored(epoch uint64) (list []string) {
	r.t.Helper()
	got, err := r.archive.Journal(r.t.Context(), epoch)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range got {
		if e.Epoch != epoch {
			r.t.Errorf("an entry of epoch %d lies with those of %d", e.Epoch, epoch)
		}
		list = append(list, fmt.Sprintf("%s:%v", e.Event, e.Attrs["n"]))
	}
	return list
}

func (r *recorder) want(epoch uint64, want ...string) {
	r.t.Helper()
	if got := r.stored(epoch); strings.Join(got, " ") != strings.Join(want, " ") {
		r.t.Errorf("epoch %d holds\n%v, want\n%v", epoch, got, want)
	}
}

func TestEntriesAreStoredInOrderOverAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t)
		stop := r.run()
		r.Note("before_the_epoch", "n", -1)
		time.Sleep(time.Hour)
		if n := len(r.bucket.Keys()); n != 0 {
			t.Errorf("%d entries were stored although nobody knows under which epoch", n)
		}
		r.away.Store(true)
		r.SetEpoch(7)
		want := []string{"before_the_epoch:-1"}
		for i := range 20 {
			r.Note("step", "n", i)
			want = append(want, fmt.Sprintf("step:%d", i))
		}
		time.Sleep(time.Hour)
		r.want(7)
		r.away.Store(false)
		time.Sleep(time.Minute)
		r.want(7, want...)

		r.away.Store(true) // for a moment: the pauses are short again
		r.Note("step", "n", 20)
		time.Sleep(100 * time.Millisecond)
		r.away.Store(false)
		time.Sleep(2 * time.Second)
		r.want(7, append(want, "step:20")...)
		stop()
		if n := strings.Count(r.log.String(), "cannot be stored"); n < 30 || n > 62 {
			t.Errorf("%d lines about an hour's outage", n)
		}
		if n := strings.Count(r.log.String(), "stored again"); n != 2 {
			t.Errorf("%d lines about two recoveries", n)
		}
	})
}

func TestEntriesBelongToTheEpochInWhichTheyWereNoted(t *testing.T) {
	r := newRecorder(t)
	r.Note("a")
	r.SetEpoch(7)
	r.Note("b")
	r.SetEpoch(8)
	r.Note("c")
	r.flush()
	r.want(7, "a:<nil>", "b:<nil>")
	r.want(8, "c:<nil>")
	for i, e := range r.Recent(10) {
		if want := []uint64{7, 7, 8}[i]; e.Epoch != want {
			t.Errorf("recent entry %s has epoch %d, want %d", e.Event, e.Epoch, want)
		}
	}
}

func TestFlushWaitsForWhatWasNotedBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t)
		r.SetEpoch(1)
		stop := r.run()
		r.flush() // of nothing
		r.away.Store(true)
		r.Note("a", "n", 1)
		time.Sleep(time.Hour) // Run makes long pauses by now
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := r.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errAway) {
			t.Errorf("Flush while the archive is away = %v", err)
		}
		r.away.Store(false)
		started := time.Now()
		r.flush()
		if took := time.Since(started); took > time.Second {
			t.Errorf("Flush took %v, the archive was back", took)
		}
		r.want(1, "a:1")
		stop()
	})
}

func TestFlushNeedsNoRun(t *testing.T) {
	r := newRecorder(t)
	r.Note("a", "n", 1)
	r.flush()
	r.want(1) // nowhere to store it yet
	r.SetEpoch(1)
	r.flush()
	r.want(1, "a:1")
}

func TestManyFlushesAndRunStoreEachEntryOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t)
		r.store = slow{r.archive}
		r.SetEpoch(1)
		stop := r.run()
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 50 {
					r.Note("step")
					if err := r.Flush(t.Context()); err != nil {
						t.Error(err)
					}
					r.Recent(3)
				}
			})
		}
		all.Wait()
		stop()
		if n := len(r.stored(1)); n != 200 {
			t.Errorf("%d of 200 entries are stored", n)
		}
	})
}

// slow lets others in while it stores.
type slow struct{ Store }

func (s slow) Record(ctx context.Context, e archive.Entry) error {
	time.Sleep(time.Millisecond)
	err := s.Store.Record(ctx, e)
	time.Sleep(time.Millisecond)
	return err
}

func TestNoteNeverBlocksAndSaysWhatIsMissing(t *testing.T) {
	for _, attempted := range []bool{false, true} {
		t.Run(fmt.Sprint("attempted ", attempted), func(t *testing.T) {
			r := newRecorder(t)
			r.SetEpoch(1)
			r.away.Store(true)
			r.Note("step", "n", 0)
			if attempted {
				if _, err := r.writeNext(t.Context()); !errors.Is(err, errAway) {
					t.Fatal(err)
				}
			}
			for i := range 3 * maxQueue {
				r.Note("step", "n", i+1)
			}
			if n := len(r.queue); n > maxQueue {
				t.Errorf("%d entries wait", n)
			}
			r.away.Store(false)
			r.flush()
			got := r.stored(1)
			first := 0
			if attempted { // it may be in the store: it is neither dropped nor counted
				if got[0] != "step:0" {
					t.Errorf("the first entry is %s", got[0])
				}
				first = 1
			}
			missing := 3*maxQueue + 1 - (len(got) - 1)
			if got[first] != dropped+":<nil>" {
				t.Fatalf("entry %d is %s", first, got[first])
			}
			for i, e := range got[first+1:] {
				if want := fmt.Sprintf("step:%d", first+missing+i); e != want {
					t.Fatalf("entry %d is %s, want %s", i, e, want)
				}
			}
			entries, err := r.archive.Journal(t.Context(), 1)
			if err != nil || fmt.Sprint(entries[first].Attrs["count"]) != fmt.Sprint(missing) {
				t.Errorf("%d entries are missing, the journal says %v", missing, entries[first].Attrs)
			}
			if n := len(r.Recent(10 * maxQueue)); n > maxRecent {
				t.Errorf("%d recent entries", n)
			}
			if last := r.Recent(2); len(last) != 2 || fmt.Sprint(last[1].Attrs["n"]) != fmt.Sprint(3*maxQueue) {
				t.Errorf("the last two entries are %v", last)
			}
		})
	}
}

// losing stores and says that it has not.
type losing struct {
	*archive.Archive
	lost int
}

func (l *losing) Record(ctx context.Context, e archive.Entry) error {
	err := l.Archive.Record(ctx, e)
	if l.lost > 0 && err == nil {
		l.lost--
		return errAway
	}
	return err
}

func TestALostAnswerMakesNoSecondEntry(t *testing.T) {
	r := newRecorder(t)
	r.store = &losing{r.archive, 1}
	r.SetEpoch(1)
	r.Note("a", "n", 1)
	if _, err := r.writeNext(t.Context()); !errors.Is(err, errAway) {
		t.Fatal(err)
	}
	for i := range 2 * maxQueue {
		r.Note("step", "n", i)
	}
	r.flush()
	if got := r.stored(1); got[0] != "a:1" || got[1] != dropped+":<nil>" || len(got) != maxQueue {
		t.Errorf("the journal has %d entries and begins with %v", len(got), got[:3])
	}
}

// Two entries of one moment, a clock that is set back, and another run that used the same moment.
func TestNoEntryTakesThePlaceOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time stands still
		earlier, r := newRecorder(t), newRecorder(t)
		earlier.store = r.archive
		for _, j := range []*recorder{earlier, r} {
			j.SetEpoch(1)
		}
		earlier.Note("step", "n", "earlier")
		earlier.flush()
		for i := range 5 {
			r.Note("step", "n", i)
		}
		r.last = r.last.Add(time.Hour)
		r.Note("then", "n", 5)
		r.Note("and_then", "n", 6)
		r.flush()
		r.want(1, "step:earlier", "step:0", "step:1", "step:2", "step:3", "step:4", "then:5", "and_then:6")
	})
}

func TestAHangingStoreIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecorder(t)
		r.SetEpoch(1)
		r.store = &hanging{Store: r.archive}
		stop := r.run()
		r.Note("a", "n", 1)
		time.Sleep(2 * attemptTimeout)
		r.want(1, "a:1")
		stop()
	})
}

type hanging struct {
	Store
	hung bool
}

func (h *hanging) Record(ctx context.Context, e archive.Entry) error {
	if !h.hung {
		h.hung = true
		<-ctx.Done()
		return ctx.Err()
	}
	return h.Store.Record(ctx, e)
}
