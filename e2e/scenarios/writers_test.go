package scenarios

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// twins are two servers restored from the same archive, each with a row of its own.
func twins(w *world.World, args ...string) [2]*stage.Server {
	w.T.Helper()
	p := w.Database("origin")
	o := w.Protect(p)
	w.Load(p)()
	must(w.T, p.Exec(whole(w), "create table who (name text)"))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	var pair [2]*stage.Server
	for i, name := range []string{"left", "right"} {
		pair[i] = w.Restore(name, args...)
		must(w.T, pair[i].Exec(whole(w), fmt.Sprintf("insert into who values ('%s')", name)))
	}
	return pair
}

// states waits until each of them has found its place: one that protects, and one that does not.
func states(w *world.World, pair [2]*stage.Outrider) (winner, loser int) {
	w.T.Helper()
	var st [2]stage.Status
	ctx := whole(w)
	err := stage.Until(ctx, "one writer and one that has given up", func() (bool, error) {
		for i, o := range pair {
			var err error
			if st[i], err = o.Status(ctx); err != nil && o.Running() {
				return false, nil
			}
		}
		for i := range pair {
			other := st[1-i].State
			if st[i].State == "protected" && (other == "superseded" || other == "not_protected") {
				winner, loser = i, 1-i
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		w.T.Fatalf("%v: %s (%s), %s (%s)", err, st[0].State, st[0].Reason, st[1].State, st[1].Reason)
	}
	return winner, loser
}

// Two pods restored from the same archive: the one that restored last is the writer, the other one is superseded, and
// stays so. Whatever it wrote is on its disk alone.
func TestTwoWriters(t *testing.T) {
	for _, mode := range []string{"read-only", "report"} {
		t.Run(mode, func(t *testing.T) {
			w := play(t)
			servers := twins(w, "--auto")
			w.Faults(fmt.Sprintf(`{"op":"*","regexp":"epochs|timelines","kind":"delay","delay":"300ms","probability":0.5,"seed":%d}`, w.Rand.Uint32()))
			var pair [2]*stage.Outrider
			for _, i := range w.Rand.Perm(2) {
				pair[i] = w.Outrider(servers[i], "--superseded", mode)
			}
			winner, loser := states(w, pair)
			w.Faults()
			if winner != 1 {
				t.Error("the one that restored first is the writer")
			}
			isSuperseded(w, pair[loser], servers[loser], mode)

			// Its sidecar is started again: nothing has changed.
			if code := w.Terminate(pair[loser]); code != 8 {
				t.Errorf("exit code %d, want 8", code)
			}
			pair[loser] = w.Outrider(servers[loser], "--superseded", mode)
			isSuperseded(w, pair[loser], servers[loser], mode)
			before := objects(w, w.Root)

			if mode == "report" {
				must(t, servers[loser].Exec(whole(w), "insert into who values ('lost')"))
				for key, sum := range objects(w, w.Root) {
					if before[key] != sum && strings.HasPrefix(key, "wal_005/") {
						t.Errorf("%s came into the archive", key)
					}
				}
			}
			must(t, servers[winner].Exec(whole(w), "insert into who values ('later')"))
			w.StopServer(servers[winner], syscall.SIGINT)
			w.Finish(pair[winner])
			p := w.Restore("again")
			w.NothingLost(p)
			if rows, err := p.Ask(whole(w), "select string_agg(name, ',' order by name) from who"); err != nil || rows != "later,right" {
				t.Errorf("the archive holds the rows %s, %v", rows, err)
			}
		})
	}
}

// isSuperseded looks at everything that says so.
func isSuperseded(w *world.World, o *stage.Outrider, p *stage.Server, mode string) {
	w.T.Helper()
	reaches(w, o, "superseded", "another writer")
	if ready, _, err := o.Ready(whole(w)); ready || err != nil {
		w.T.Errorf("/readyz of a superseded writer is green, %v", err)
	}
	if mode == "report" {
		return
	}
	w.Until("the database to be read-only", func(ctx context.Context) bool {
		err := p.Exec(ctx, "insert into who values ('forbidden')")
		return err != nil && strings.Contains(err.Error(), "read-only")
	})
	w.Until("the slot to be gone", func(ctx context.Context) bool {
		n, err := p.Ask(ctx, "select count(*)::text from pg_replication_slots")
		return err == nil && n == "0"
	})
}

// A pod is replaced while it lives on, as behind a broken network: its successor's claim makes it stop shipping, and
// turns its database read-only. What it had committed until then is with the successor.
func TestReplacedWhileItLives(t *testing.T) {
	w := play(t)
	p := w.Database("old")
	o := w.Protect(p)
	w.Load(p)()
	must(t, p.Exec(whole(w), "create table who (name text)"))
	q := w.Restore("new", "--auto")
	isSuperseded(w, o, p, "read-only")
	w.NothingLost(q)
	must(t, q.Exec(whole(w), "insert into who values ('new')"))
	successor := w.Protect(q)
	w.Load(q)()
	w.StopServer(q, syscall.SIGINT)
	w.Finish(successor)
	if code := w.Terminate(o); code != 8 {
		t.Errorf("exit code %d, want 8", code)
	}
	w.NothingLost(w.Restore("again"))
}

// Two servers restored by hand, without an epoch of their own, begin at the same moment: exactly one of them writes.
func TestTwoWritersRace(t *testing.T) {
	w := play(t)
	servers := twins(w)
	w.Faults(`{"op":"put","regexp":"outrider/(epochs|timelines)/","kind":"delay","delay":"1s"}`) // both look before either claims
	var pair [2]*stage.Outrider
	for i := range pair {
		pair[i] = w.Outrider(servers[i])
	}
	winner, loser := states(w, pair)
	w.Faults()
	w.Work(time.Second)
	if st, err := pair[winner].Status(whole(w)); err != nil || st.State != "protected" {
		t.Errorf("the writer is %s: %s, %v", st.State, st.Reason, err)
	}
	w.Terminate(pair[loser])
	w.StopServer(servers[winner], syscall.SIGINT)
	w.Finish(pair[winner])
	p := w.Restore("again")
	w.NothingLost(p)
	if rows, err := p.Ask(whole(w), "select string_agg(name, ',' order by name) from who"); err != nil || rows != servers[winner].Name {
		t.Errorf("the archive holds the rows %s, %v, of two writers of which %s won", rows, err, servers[winner].Name)
	}
}

// A writer is stopped before it has noticed that it was superseded, by one that was restored before its last commits. All
// that it shipped is in the archive, but not in the database: nobody calls that a clean stop that lost nothing.
func TestStopBeforeASupersededWriterNotices(t *testing.T) {
	w := play(t)
	p := w.Database("old")
	o := w.Protect(p)
	w.Load(p)()
	must(t, p.Exec(whole(w), "create table who (name text)"))
	caughtUp(w, o)
	q := w.Restore("new") // by hand: it claims nothing before it is shipped
	must(t, p.Exec(whole(w), "insert into who values ('late')"))
	w.StopServer(p, syscall.SIGINT)
	time.Sleep(6 * time.Second) // nothing moves any more, so it does not ask again before the next minute
	successor := w.Outrider(q)
	w.Until("the claim of the successor", func(context.Context) bool {
		n := 0
		for key := range objects(w, w.Root) {
			if strings.HasPrefix(key, "outrider/epochs/") {
				n++
			}
		}
		return n == 2
	})
	if code := w.Terminate(o); code != 8 {
		t.Errorf("exit code %d, want 8: %s", code, o.Tail(5))
	}
	must(t, successor.Protected(whole(w)))
	y := askWhy(w, "--epoch", "1")
	if y.Verdict.Outcome != "interrupted" || y.Receipt == nil || y.Receipt.Clean {
		t.Errorf("the verdict is %+v, the receipt %+v", y.Verdict, y.Receipt)
	} else {
		says(t, y.Verdict.Lost, "bytes of WAL", "without which epoch 2 went on")
		says(t, y.phase("superseded").Text, "another writer")
		says(t, y.phase("receipt").Text, "not clean: another writer had taken over")
	}
	w.StopServer(q, syscall.SIGINT)
	w.Finish(successor)
}
