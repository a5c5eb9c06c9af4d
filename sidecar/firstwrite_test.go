package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/wal"
)

// Where the first commit of an epoch is looked for, and where it is not.
func TestWhereTheFirstWriteIsLookedFor(t *testing.T) {
	started := time.Date(2026, 4, 7, 12, 0, 0, 0, time.UTC)
	running := t.TempDir()
	lock := fmt.Sprintf("17\n%s\n%d\n5432\n/tmp\n", running, started.Unix())
	if err := os.WriteFile(filepath.Join(running, "postmaster.pid"), []byte(lock), 0o600); err != nil {
		t.Fatal(err)
	}
	forked := wal.History{{Parent: 1, LSN: 3 * mib}}
	ours := archive.TimelineClaim{Timeline: 2, Epoch: 4, Parent: 1, Switch: 3 * mib}
	theirs := archive.TimelineClaim{Timeline: 2, Epoch: 3, Parent: 1, Switch: 3 * mib}
	for name, test := range map[string]struct {
		epoch     uint64
		history   wal.History
		claim     *archive.TimelineClaim // of timeline 2
		pgdata    string
		continued bool
		want      maiden
	}{
		"the first epoch of all":                   {epoch: 1, pgdata: running, want: maiden{over: true}},
		"a pod whose restore has taken the epoch":  {epoch: 4, history: forked, pgdata: running, continued: true, want: maiden{from: 3 * mib, ask: true}},
		"a restore that has taken none":            {epoch: 4, history: forked, pgdata: running, want: maiden{from: 3 * mib}},
		"its sidecar, started again":               {epoch: 4, history: forked, claim: &ours, pgdata: running, continued: true, want: maiden{from: 3 * mib, ask: true}},
		"a new pod on the disk of the last":        {epoch: 4, history: forked, claim: &theirs, pgdata: running, want: maiden{from: 5 * mib, since: started}},
		"its sidecar, started again on that disk":  {epoch: 4, history: forked, claim: &theirs, pgdata: running, continued: true, want: maiden{over: true, ask: true}},
		"a disk whose server does not say its age": {epoch: 4, history: forked, claim: &theirs, pgdata: t.TempDir(), want: maiden{from: 5 * mib, over: true}},
	} {
		inv := &archive.Inventory{Claims: map[wal.Timeline]archive.TimelineClaim{}}
		if test.claim != nil {
			inv.Claims[2] = *test.claim
		}
		f := facts{server: postgres.Server{Timeline: 2}, files: branch{localFiles: localFiles{pgdata: test.pgdata}, timeline: 2, history: test.history}}
		test.want.epoch, test.want.timeline = test.epoch, 2
		if got := *maidenOf(inv, f, archive.Epoch{Number: test.epoch}, 5*mib, test.continued); got != test.want {
			t.Errorf("%s: %+v, want %+v", name, got, test.want)
		}
	}
}

// A search ends with its context, and WAL that has gone is no commit.
func TestTheFirstWriteIsNotWaitedFor(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "pg_wal"), 0o700); err != nil {
		t.Fatal(err)
	}
	b := branch{localFiles: localFiles{pgdata: dir}, size: mib, sysid: testSysid, timeline: 1}
	if next, c, err := b.firstCommit(t.Context(), 3*mib, 4*mib, time.Time{}); next != 3*mib || c != nil || err != nil {
		t.Errorf("without files: %s, %v, %v", next, c, err)
	}
	seg := wal.Segment{Timeline: 1, Number: 3}
	if err := os.WriteFile(b.path(seg), fakeSegment(seg), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, c, err := b.firstCommit(ctx, 3*mib, 4*mib, time.Time{}); c != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v, %v", c, err)
	}
}
