package epoch

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func claim(t *testing.T, a *archive.Archive, r Request) archive.Epoch {
	t.Helper()
	e, _, err := Claim(t.Context(), a, r)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func writer(instance, cluster string) archive.Identity {
	return archive.Identity{Instance: instance, Pod: "db-0", Namespace: "prod", Node: "n1", Kubernetes: cluster}
}

func TestClaimRules(t *testing.T) {
	a := archive.New(archivetest.Memory())
	first := claim(t, a, Request{Writer: writer("a", "k1"), Timeline: 1, Since: 100})
	if first.Number != 1 {
		t.Fatalf("the first epoch is %d", first.Number)
	}
	again, continued, err := Claim(t.Context(), a, Request{Writer: writer("a", "k1"), Timeline: 1, Since: 500})
	if err != nil || !continued || again.Number != 1 || again.Since != 100 {
		t.Errorf("a restarted sidecar got %+v, continued %t, %v: it has to continue epoch 1 as it is", again, continued, err)
	}
	judged := func(instance string, want uint64, wantErr error) {
		t.Helper()
		all, err := a.Epochs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := Judge(all, Request{Writer: writer(instance, "k1")})
		if !errors.Is(err, wantErr) || wantErr == nil && got != want {
			t.Errorf("judged beforehand, %s gets epoch %d, %v; want %d, %v", instance, got, err, want, wantErr)
		}
	}
	judged("a", 1, nil)
	judged("b", 2, nil)
	second := claim(t, a, Request{Writer: writer("b", "k1")})
	judged("a", 0, ErrSuperseded)
	if second.Number != 2 {
		t.Errorf("the next pod got epoch %d", second.Number)
	}
	if _, _, err := Claim(t.Context(), a, Request{Writer: writer("a", "k1")}); !errors.Is(err, ErrSuperseded) {
		t.Errorf("a superseded pod that starts again got %v: it would fence its successor", err)
	}
	if _, _, err := Claim(t.Context(), a, Request{Writer: writer("c", "k2")}); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "k1") {
		t.Errorf("a pod of another cluster got %v", err)
	}
	if _, _, err := Claim(t.Context(), a, Request{Writer: writer("c", "k2"), TakeOver: "k7"}); !errors.Is(err, ErrForeign) {
		t.Errorf("taking over from the wrong cluster got %v", err)
	}
	taken := claim(t, a, Request{Writer: writer("c", "k2"), TakeOver: "k1"})
	if taken.Number != 3 || taken.TakeOver != "k1" {
		t.Errorf("taking over gave %+v", taken)
	}
}

func TestRacingClaimsGetDifferentEpochs(t *testing.T) {
	a := archive.New(archivetest.Memory())
	var mu sync.Mutex
	got := map[uint64]string{}
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		group.Go(func() {
			e, _, err := Claim(t.Context(), a, Request{Writer: writer(name, "k")})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if other, taken := got[e.Number]; taken {
				t.Errorf("%s and %s both own epoch %d", name, other, e.Number)
			}
			got[e.Number] = name
		})
	}
	group.Wait()
	if len(got) != 5 {
		t.Errorf("five writers own %d epochs", len(got))
	}
}

func TestUnreachableArchiveIsNotSuperseded(t *testing.T) {
	b := archivetest.Memory()
	a := archive.New(b)
	e := claim(t, a, Request{Writer: writer("a", "k")})
	k := NewKeeper(a, e, func() wal.Position { return wal.Position{} }, slog.New(slog.DiscardHandler))
	b.Fault(func(string, string) error { return errors.New("no route") })
	if err := k.Check(t.Context()); err == nil || errors.Is(err, ErrSuperseded) {
		t.Errorf("the store is away, and the keeper says %v", err)
	}
	b.Fault(nil)
	claim(t, a, Request{Writer: writer("b", "k")})
	if err := k.Check(t.Context()); !errors.Is(err, ErrSuperseded) {
		t.Errorf("somebody else has epoch 2, and the keeper says %v", err)
	}
	b.Fault(func(string, string) error { return errors.New("no route") })
	if err := k.Check(t.Context()); !errors.Is(err, ErrSuperseded) {
		t.Errorf("lost once is lost for good, and the keeper says %v", err)
	}
}

// An idle hour costs what is documented, two requests a minute, and a writer that ships learns within seconds that it
// was superseded.
func TestKeeperByTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		a := archive.New(b)
		e := claim(t, a, Request{Writer: writer("a", "k")})
		var requests, at atomic.Int64
		b.Fault(func(string, string) error { requests.Add(1); return nil })
		k := NewKeeper(a, e, func() wal.Position { return wal.Position{Timeline: 1, LSN: wal.LSN(at.Load())} }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := requests.Load(); n > 2*62 {
			t.Errorf("an idle hour cost %d requests", n)
		}
		h, _, err := a.Heartbeat(t.Context(), e.Number)
		if err != nil || h.Interval != BeatInterval.Seconds() {
			t.Errorf("the heartbeat is %+v, %v", h, err)
		}
		at.Store(1)
		claim(t, a, Request{Writer: writer("b", "k")})
		lost := time.Now()
		if err := <-done; !errors.Is(err, ErrSuperseded) {
			t.Fatalf("Run ended with %v", err)
		}
		if took := time.Since(lost); took > CheckInterval {
			t.Errorf("a writer at work learned only after %s that it was superseded", took)
		}
	})
}

// A writer that comes to its end says so at once and again and again, so that it is believed while it lives, and not for
// long when it was killed.
func TestKeeperLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := archive.New(archivetest.Memory())
		k := NewKeeper(a, claim(t, a, Request{Writer: writer("a", "k")}), func() wal.Position { return wal.Position{Timeline: 1, LSN: 1} }, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		expect := func(want time.Duration) {
			t.Helper()
			synctest.Wait()
			if h, _, err := a.Heartbeat(t.Context(), 1); err != nil || h.Leaving != want.Seconds() {
				t.Errorf("the heartbeat is %+v, %v; leaving for %s is wanted", h, err, want)
			}
		}
		time.Sleep(time.Hour + time.Second)
		expect(0)
		k.Leave(time.Now().Add(32 * time.Second))
		expect(3 * CheckInterval)
		time.Sleep(27 * time.Second)
		expect(8 * time.Second) // as of the last tick: nobody is to wait past the end
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := k.Left(t.Context()); err != nil {
			t.Error(err)
		}
		expect(0)
	})
}
