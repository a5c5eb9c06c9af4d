package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
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
		const hours = 24
		time.Sleep(hours * time.Hour)
		cancel()
		if err := group.Wait(); err != nil {
			t.Fatal(err)
		}
		// One more beat at the start, and one entry of the journal.
		if n := requests.Load(); n > 2*(60*hours+1)+1 || n < 60*hours {
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
		for _, k := range b.Keys() {
			if strings.HasPrefix(k, "basebackups_005/") {
				t.Errorf("a snapshot was begun: %s", k)
			}
		}
	})
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
	stop := uint64(3*mib + 40)
	v := &voyage{guard: g, epoch: e, done: make(chan struct{}), caughtUp: make(chan struct{})}
	close(v.caughtUp) // nothing is written
	v.server.Timeline, v.server.SegmentSize = 1, mib
	v.files = branch{localFiles: localFiles{pgdata: t.TempDir()}, size: mib, sysid: testSysid, timeline: 1}
	v.ship = ship.New(ship.Config{Size: mib, Epoch: e.Number, Timeline: 1, Durable: wal.LSN(stop), Store: a.WAL(mib), Log: log})
	v.keeper = epoch.NewKeeper(a, e, v.ship.Durable, log)
	start := uint64(2*mib + 40)
	seg := wal.Segment{Timeline: 1, Number: 2}
	last := archive.Backup{Name: archive.BackupName(seg, mib), StartSegment: seg.Name(mib), ModTime: time.Now()}
	last.Sentinel.LSN, last.Sentinel.FinishLSN = &start, &stop
	v.snapshots = []archive.Backup{last}
	return v
}
