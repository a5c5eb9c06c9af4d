package main

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/policy"
)

// An idle database costs what is documented, two requests a minute, for as long as it is idle: everything that works on
// the archive by the clock runs together, for a day whose hours are those of the snapshots. What asks the server has
// tests of its own, and e2e/idle looks at all of it from outside for a few real minutes.
func TestIdleDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		v := idleVoyage(t, b)
		var requests atomic.Int64
		b.Fault(func(string, string) error { requests.Add(1); return nil })
		ctx, cancel := context.WithCancel(t.Context())
		group, gctx := errgroup.WithContext(ctx)
		group.Go(func() error { return v.keeper.Run(gctx) })
		group.Go(func() error { return v.journal.Run(gctx) })
		group.Go(func() error { return v.takeSnapshots(gctx, gctx) })
		before := len(b.Keys())
		const hours = 36
		time.Sleep(hours * time.Hour)
		cancel()
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// One more beat at the start, one entry of the journal, and after a day a look at the snapshot.
		if n := requests.Load(); n > 2*(60*hours+1)+1+3 || n < 60*hours {
			t.Errorf("an idle day cost %d requests, documented are two a minute", n)
		}
		skipped := 0
		for _, e := range v.journal.Recent(100) {
			if e.Event == "snapshot_skipped" {
				skipped++
			}
		}
		if skipped != 1 {
			t.Errorf("that snapshots are left out was journalled %d times", skipped)
		}
		if keys := b.Keys(); len(keys) != before+2 {
			t.Errorf("more was stored than a heartbeat and an entry of the journal: %q", keys)
		}
	})
}

// What a restore would begin with is looked for once a day: an idle database takes no other snapshot by itself.
func TestIdleDatabaseLosesItsSnapshot(t *testing.T) {
	for name, lose := range map[string]func(b *archivetest.Bucket, full string) error{
		"it is gone": func(b *archivetest.Bucket, full string) error {
			return b.Remove(t.Context(), "basebackups_005/"+full+"_backup_stop_sentinel.json")
		},
		"its manifest is damaged": func(b *archivetest.Bucket, full string) error {
			b.SetBytes("basebackups_005/"+full+"/outrider.json", []byte("{"))
			return nil
		},
		"a part is gone": func(b *archivetest.Bucket, full string) error {
			return b.Remove(t.Context(), "basebackups_005/"+full+"/tar_partitions/part_001.tar.zst")
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { loseSnapshot(t, lose) })
		})
	}
}

func loseSnapshot(t *testing.T, lose func(b *archivetest.Bucket, full string) error) {
	b := archivetest.Memory()
	v := idleVoyage(t, b)
	w := v.arch.WAL(mib)
	full := v.snapshots[0].Name
	addSnapshot(t, w, 3, time.Now(), full)
	var err error
	if v.snapshots, err = v.arch.AllBackups(t.Context()); err != nil || len(v.snapshots) != 2 {
		t.Fatalf("%d snapshots, %v", len(v.snapshots), err)
	}
	v.level.Store(true)
	v.settle()
	v.lookAfterSnapshots(t.Context(), time.Now())
	time.Sleep(stillThereInterval)
	v.lookAfterSnapshots(t.Context(), time.Now())
	if len(v.snapshots) != 2 {
		t.Fatalf("%d snapshots are left of 2 that are there", len(v.snapshots))
	}
	if err := lose(b, full); err != nil {
		t.Fatal(err)
	}
	b.Fault(func(string, string) error { return errors.New("no answer") })
	time.Sleep(stillThereInterval)
	v.lookAfterSnapshots(t.Context(), time.Now())
	if len(v.snapshots) != 2 {
		t.Fatal("an archive that does not answer has lost no snapshot")
	}
	b.Fault(nil)
	time.Sleep(stillThereRetry)
	v.lookAfterSnapshots(t.Context(), time.Now())
	if n, state := len(v.snapshots), v.board.snapshot().State; n != 0 || state != stateNoSnapshot {
		t.Errorf("%d snapshots are left and the state is %s, though none can be restored", n, state)
	}
	schedule, err := basebackup.ParseSchedule(v.policy.BackupSchedule)
	if err != nil {
		t.Fatal(err)
	}
	if d := schedule.Decide(v.situation(t.Context(), time.Now())); d.Action != basebackup.Begin {
		t.Errorf("no snapshot is taken: %+v", d)
	}
}

// A predecessor whose clock was days ahead, and a clock that is set back, must not keep snapshots from being due.
func TestSnapshotFromTheFuture(t *testing.T) {
	ahead := func(v *voyage) { v.snapshots[0].Manifest.StartTime = time.Now().Add(72 * time.Hour) }
	back := func(v *voyage) { v.lastLooked = time.Now().Add(72 * time.Hour) }
	for name, wrong := range map[string]func(*voyage){"the predecessor's clock": ahead, "a clock that was set back": back} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := idleVoyage(t, archivetest.Memory())
				wrong(v)
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
				defer cancel()
				if err := v.takeSnapshots(ctx, ctx); err != nil {
					t.Fatal(err)
				}
				if !v.skipped {
					t.Error("in two hours of an hourly schedule no snapshot was due")
				}
			})
		})
	}
}

// idleVoyage ships a timeline on which nothing was written since its snapshot.
func idleVoyage(t *testing.T, b archive.Bucket) *voyage {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	a := archive.New(b)
	e, _, err := epoch.Claim(t.Context(), a, epoch.Request{Writer: archive.Identity{Instance: "i"}, Timeline: 1})
	if err != nil {
		t.Fatal(err)
	}
	g := &guard{policy: policy.Policy{BackupSchedule: "0 * * * *", RTO: 5 * time.Minute}, arch: a, log: log, journal: journal.New(a, log), board: newBoard("memory", "test", nil)}
	g.journal.SetEpoch(e.Number)
	if names, err := a.BackupNames(t.Context()); err == nil && len(names) == 0 { // a voyage may follow another
		addSnapshot(t, a.WAL(mib), 2, time.Now(), "")
	}
	v := &voyage{guard: g, epoch: e, done: make(chan struct{}), caughtUp: make(chan struct{})}
	close(v.caughtUp) // nothing is written
	v.server.Timeline, v.server.SegmentSize = 1, mib
	v.files = branch{localFiles: localFiles{pgdata: t.TempDir()}, size: mib, sysid: testSysid, timeline: 1}
	v.ship = ship.New(ship.Config{Size: mib, Epoch: e.Number, Timeline: 1, Durable: 2*mib + 500, Store: a.WAL(mib), Log: log})
	v.keeper = epoch.NewKeeper(a, e, v.ship.Durable, log)
	if v.snapshots, err = a.AllBackups(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v
}
