package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

func TestEntriesAreStoredInOrderOverAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		a := archive.New(b)
		var away atomic.Bool
		b.Fault(func(op, _ string) error {
			if op == "put" && away.Load() {
				return errors.New("no route")
			}
			return nil
		})
		j := New(a, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = j.Run(ctx) }()
		j.Note("before_the_epoch", "n", 0)
		synctest.Wait()
		if n := len(b.Keys()); n != 0 {
			t.Errorf("%d entries were stored although nobody knows under which epoch", n)
		}
		j.SetEpoch(7)
		away.Store(true)
		for i := range 20 {
			j.Note("step", "n", i)
		}
		time.Sleep(time.Hour)
		away.Store(false)
		if err := j.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		got, err := a.Journal(t.Context(), 7)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 21 || got[0].Event != "before_the_epoch" {
			t.Fatalf("the journal holds %d entries: %v", len(got), got)
		}
		for i, e := range got[1:] {
			if fmt.Sprint(e.Attrs["n"]) != fmt.Sprint(i) || e.Epoch != 7 {
				t.Errorf("entry %d is %+v", i, e)
			}
		}
		cancel()
		<-done
	})
}

func TestNoteNeverBlocksAndRecentIsBounded(t *testing.T) {
	j := New(archive.New(archivetest.Memory()), slog.New(slog.DiscardHandler))
	for i := range 3 * maxQueued {
		j.Note("step", "n", i)
	}
	if n := len(j.queue); n != maxQueued {
		t.Errorf("%d entries wait, at most %d may", n, maxQueued)
	}
	if r := j.Recent(5); len(r) != 5 || r[4].Attrs["n"] != 3*maxQueued-1 {
		t.Errorf("the last five are %v", r)
	}
}
