package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestQueriesOf(t *testing.T) {
	log := "outrider|LOG:  execute stmtcache_1: select 1\n" +
		"outrider|DETAIL:  parameters: $1 = 'x'\n" +
		"psql|LOG:  statement: select 2\n" +
		"outrider|LOG:  execute <unnamed>: \n\tSELECT a,\n\t  b FROM t\n" +
		"|LOG:  checkpoint starting: time\n" +
		"outrider|LOG:  statement: select 1\n" +
		"outrider|LOG:  duration: 12 ms\n" +
		"outrider|ERROR:  no\n" +
		"outrider|STATEMENT:  select 3\n"
	want := map[string]int{"select 1": 2, "SELECT a, b FROM t": 1}
	if diff := cmp.Diff(want, queriesOf("outrider", log)); diff != "" {
		t.Error(diff)
	}
}

func TestVerdict(t *testing.T) {
	good := func() result {
		q := figures{Seconds: 300, Requests: 10, SnapshotsBefore: 1, SnapshotsAfter: 1}
		c := q
		c.Requests, c.WALBytes, c.Checkpoints = 40, 5000, 12
		return result{Quiet: q, Checkpoints: c}
	}
	if err := good().verdict(); err != nil {
		t.Errorf("a good result is refused: %v", err)
	}
	for name, spoil := range map[string]func(*result){
		"too many requests":          func(r *result) { r.Quiet.Requests = 13 },
		"nothing was counted":        func(r *result) { r.Quiet.Requests = 0 },
		"WAL out of nothing":         func(r *result) { r.Quiet.WALBytes = 8192 },
		"a snapshot of nothing":      func(r *result) { r.Checkpoints.SnapshotsAfter = 2 },
		"there were no checkpoints":  func(r *result) { r.Checkpoints.WALBytes = 0 },
		"there was no snapshot ever": func(r *result) { r.Quiet.SnapshotsBefore, r.Quiet.SnapshotsAfter = 0, 0 },
	} {
		r := good()
		if spoil(&r); r.verdict() == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
