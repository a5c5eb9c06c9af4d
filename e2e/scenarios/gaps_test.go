package scenarios

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// churn writes so many MiB of WAL and lets the server remove what it need not keep.
func churn(w *world.World, p *stage.Server, mib int) {
	w.T.Helper()
	must(w.T, p.Exec(whole(w), fmt.Sprintf("create table churn as select g, repeat(md5(g::text), 31) as t from generate_series(1, %d) g", mib*1000),
		"drop table churn", "checkpoint", "select pg_switch_wal()", "checkpoint"))
}

func lsn(w *world.World, p *stage.Server) string {
	w.T.Helper()
	at, err := p.Ask(whole(w), "select pg_current_wal_insert_lsn()::text")
	must(w.T, err)
	return at
}

// The slot is dropped by hand while outrider is away, and WAL that was never shipped is recycled. That is said, a new
// snapshot is taken, and a point in the gap is refused with what is missing.
func TestGap(t *testing.T) {
	w := play(t)
	p := w.Database("db", "min_wal_size = 2MB", "max_wal_size = 8MB")
	o := w.Protect(p)
	w.Load(p)()
	must(t, p.Exec(whole(w), "create table before ()"))
	edge := lsn(w, p)
	caughtUp(w, o)
	w.Terminate(o)
	must(t, p.Exec(whole(w), "select pg_drop_replication_slot('outrider')"))
	churn(w, p, 4)
	inside := lsn(w, p)
	w.Load(p)()
	churn(w, p, 8)
	w.Faults(`{"op":"put","prefix":"stage/a/basebackups_005/","kind":"delay","delay":"1s","count":1}`)
	o = w.Outrider(p)
	st := reaches(w, o, "no_snapshot", "was lost before it could be shipped")
	if st.NotProtectedSince == nil {
		t.Errorf("a gap, and not said to be unprotected: %+v", st)
	}
	must(t, o.Protected(whole(w)))
	if st, err := o.Status(whole(w)); err != nil || st.NotProtectedSince != nil {
		t.Errorf("after the new snapshot: %+v, %v", st, err)
	}
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
	text := fails(w, 6, "restore", "--pgdata", p.Data+".gap", "--target", inside)
	says(t, text, "timeline 1", "WAL")
	q := w.Restore("edge", "--target", edge) // the last commit before the gap, from what was never sealed
	if n, err := q.Ask(whole(w), "select count(*)::text from pg_class where relname = 'before'"); err != nil || n != "1" {
		t.Errorf("of what was committed last before the gap there are %s tables, %v", n, err)
	}
	out := fails(w, 0, "list")
	says(t, out, "HOLES", " to 0/")
}

// The store is away until Postgres keeps more WAL than the policy allows: the slot is given up rather than the volume,
// which is said; when the store is back, a new snapshot makes the database protected again.
func TestBacklogIsDropped(t *testing.T) {
	w := play(t)
	p := w.Database("db", "min_wal_size = 2MB", "max_wal_size = 8MB")
	o := w.Protect(p, "--max-wal-backlog", "64Mi:drop")
	w.Cloud.Kill()
	w.Load(p)()
	churn(w, p, 80)
	st := reaches(w, o, "not_protected", "max-wal-backlog", "slot was dropped")
	if st.NotProtectedSince == nil {
		t.Errorf("the slot is given up, and not said to be unprotected: %+v", st)
	}
	w.Until("the WAL to be removed", func(ctx context.Context) bool {
		n, err := p.Ask(ctx, "select (count(*) < 30)::text from pg_ls_waldir()")
		return p.Exec(ctx, "checkpoint") == nil && err == nil && n == "true"
	})
	// An outage that is longer than a request's patience.
	w.Until("the store to be given up for a while", func(ctx context.Context) bool {
		st, err := o.Status(ctx)
		return err == nil && st.Trouble != ""
	})
	must(t, w.Cloud.Restart(whole(w)))
	caughtUp(w, o)
	w.Load(p)()
	w.Work(100 * time.Millisecond)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
	events := map[string]bool{}
	for _, e := range askWhy(w).Journal {
		events[e.Event] = true
	}
	if !events["slot_dropped"] || !events["gap"] {
		t.Errorf("the journal does not tell: %v", events)
	}
}

// The limit holds as well where nothing is being shipped yet: Postgres is restarted while the store is away, or outrider
// is. A slot that was given up is not made again by another restart.
func TestBacklogIsDroppedAfterARestart(t *testing.T) {
	for _, who := range []string{"postgres", "outrider"} {
		t.Run(who, func(t *testing.T) {
			w := play(t)
			p := w.Database("db", "min_wal_size = 2MB", "max_wal_size = 8MB")
			o := w.Protect(p, "--max-wal-backlog", "64Mi:drop")
			w.Load(p)()
			restart := func() {
				w.StopServer(p, syscall.SIGINT)
				w.Start(p)
			}
			w.Cloud.Kill()
			if who == "outrider" {
				o.Kill()
				o = w.Outrider(p, "--max-wal-backlog", "64Mi:drop")
			} else {
				restart()
			}
			reaches(w, o, "lagging", "archive")
			churn(w, p, 80)
			st := reaches(w, o, "not_protected", "max-wal-backlog", "slot was dropped")
			if st.NotProtectedSince == nil {
				t.Errorf("the slot is given up, and not said to be unprotected: %+v", st)
			}
			restart()
			churn(w, p, 1)
			time.Sleep(5 * time.Second) // several looks at a server without a slot
			if n, err := p.Ask(whole(w), "select count(*)::text from pg_replication_slots"); err != nil || n != "0" {
				t.Errorf("%s slots after the next restart, want none, %v", n, err)
			}
			must(t, w.Cloud.Restart(whole(w)))
			caughtUp(w, o)
			w.Load(p)()
			w.StopServer(p, syscall.SIGINT)
			w.Finish(o)
			w.NothingLost(w.Restore("again"))
		})
	}
}

// The slot is dropped by hand while outrider runs: it is made again before anything goes.
func TestSlotIsDroppedByHand(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	w.Protect(p)
	must(t, p.Exec(whole(w), "select pg_drop_replication_slot('outrider')"))
	stop := w.Load(p)
	w.Until("the slot to be back", func(ctx context.Context) bool {
		n, err := p.Ask(ctx, "select count(*)::text from pg_replication_slots")
		return err == nil && n == "1"
	})
	stop()
}
