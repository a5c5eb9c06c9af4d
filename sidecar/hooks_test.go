package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// calm is a server that writes nothing but checkpoints, and its shipping.
type calm struct {
	checkpoints int
	takes       time.Duration
	at          wal.LSN
}

func (c *calm) Checkpoint(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(c.takes):
	}
	c.checkpoints++
	c.at += 120
	return nil
}
func (c *calm) Durable() wal.Position { return wal.Position{Timeline: 1, LSN: c.at} }
func (c *calm) Flushed(context.Context) (wal.Position, error) {
	return c.Durable(), nil
}
func (c *calm) WaitDurable(context.Context, wal.Position) error { return nil }

// hooked is a guard whose hooks prepare c, and its log.
func hooked(t *testing.T, c *calm) (*guard, *bytes.Buffer) {
	t.Helper()
	var log bytes.Buffer
	g := newGuard(runConfig{policy: policy.Policy{Grace: 2 * time.Minute, RPO: time.Second}, pgdata: t.TempDir(), log: slog.New(slog.NewTextHandler(&log, nil))}, &door{}, nil)
	g.prepare.Now = func() (drain.Server, drain.Shipping, error) { return c, c, nil }
	return g, &log
}

func entries(log *bytes.Buffer) int {
	return strings.Count(log.String(), `msg="journal entry" event=prepared`)
}

// Somebody calls the hook for ever. Each call is answered with a preparation, for it may be a kubelet's, but it holds
// nothing back for more than one grace period, and leaves next to nothing behind.
func TestHooksWithoutAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &calm{}
		g, log := hooked(t, c)
		var used int64
		g.pacer = newPacer(1, time.Second, func() int64 { used++; return used }) // which is more than the budget, always
		const day, every = 24 * time.Hour, 100 * time.Second
		var calls, held int
		for end := time.Now().Add(day); time.Now().Before(end); time.Sleep(every) {
			calls++
			if o := g.onPreStop(t.Context()); !o.Complete() || !o.Checkpointed {
				t.Fatalf("call %d was answered with %+v", calls, o)
			}
			if !g.wasAsked() {
				t.Fatalf("after call %d a stop would be taken for one that is not for good", calls)
			}
			if g.awaitsStop() {
				held++
			} else if g.pace() <= g.policy.RPO/flushShare {
				t.Fatalf("after call %d no request is saved", calls)
			}
		}
		if c.checkpoints != calls {
			t.Errorf("%d checkpoints for %d calls", c.checkpoints, calls)
		}
		if held != 2 {
			t.Errorf("%d of %d calls held back snapshots", held, calls)
		}
		if n := entries(log); n > 2+int(day/doubtInterval) {
			t.Errorf("the journal got %d entries", n)
		}
		if n := strings.Count(log.String(), "\n"); n > 2*(2+int(day/doubtInterval)) {
			t.Errorf("the log got %d lines", n)
		}
		time.Sleep((1 + doubtFactor) * g.policy.Grace)
		if g.onPreStop(t.Context()); !g.awaitsStop() {
			t.Error("a hook long after the last one is not believed")
		}
	})
}

// A flood of hooks is a few preparations, and a few entries.
func TestHooksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &calm{takes: 5 * time.Second}
		g, log := hooked(t, c)
		for range 100 {
			go g.onPreStop(t.Context())
		}
		time.Sleep(6 * time.Second)
		if g.onPreStop(t.Context()); c.checkpoints != 1 || entries(log) != 1 {
			t.Errorf("%d checkpoints and %d entries for hooks at once", c.checkpoints, entries(log))
		}
		for range 20 {
			c.at++ // somebody writes
			g.onPreStop(t.Context())
		}
		if c.checkpoints != 21 || entries(log) > hookNotes+1 {
			t.Errorf("%d checkpoints and %d entries for 21 hooks", c.checkpoints, entries(log))
		}
	})
}

// aVoyage has what a hook touches.
func aVoyage(g *guard) *voyage {
	return &voyage{
		guard: g, done: make(chan struct{}),
		keeper: epoch.NewKeeper(archive.New(archivetest.Memory()), archive.Epoch{Number: 1}, func() wal.Position { return wal.Position{} }, g.log),
	}
}

// A hook that a stop followed was none too many, and the next one is believed. The first of a stop's hooks and a notice
// are always in the journal.
func TestHooksWithStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, log := hooked(t, &calm{})
		for stop := range 20 {
			v := aVoyage(g)
			g.setVoyage(v)
			before := entries(log)
			if g.onPreStop(t.Context()); !g.awaitsStop() || entries(log) != before+1 {
				t.Fatalf("stop %d is not awaited, or not told of", stop)
			}
			close(v.done)
			time.Sleep(3 * time.Minute)
			if g.awaitsStop() || g.wasAsked() {
				t.Fatalf("stop %d is awaited for ever", stop)
			}
		}
		g.setVoyage(aVoyage(g))
		g.onPreStop(t.Context())
		time.Sleep(3 * time.Minute)
		if g.onPreStop(t.Context()); g.awaitsStop() {
			t.Error("a hook right after a false alarm is believed")
		}
		now := time.Now()
		g.setNoticed(&now)
		time.Sleep(freshEnough)
		before := entries(log)
		if g.prepareNow(t.Context(), byNotice); !g.awaitsStop() || entries(log) != before+1 {
			t.Error("a notice after a false alarm is not believed, or not told of")
		}
	})
}

// freshEnough is past the time in which an outcome is the answer to two questions.
const freshEnough = 5 * time.Second

// Snapshots go on while somebody calls the hook for ever.
func TestSnapshotsInSpiteOfHooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := idleVoyage(t, archivetest.Memory())
		v.policy.Grace = 2 * time.Minute
		v.prepare = &drain.Preparer{Now: func() (drain.Server, drain.Shipping, error) { return nil, nil, errors.New("nothing here") }, Done: v.prepared}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.takeSnapshots(ctx, ctx) }()
		const span = 5 * time.Hour
		for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(100 * time.Second) {
			v.onPreStop(t.Context())
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if ago := time.Since(v.lastLooked); ago > time.Hour+time.Minute {
			t.Errorf("whether a snapshot is due was asked last %s ago", ago)
		}
	})
}
