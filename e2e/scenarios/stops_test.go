package scenarios

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// session opens a client session that does nothing.
func session(w *world.World, p *stage.Server) *pgx.Conn {
	w.T.Helper()
	c, err := pgx.Connect(whole(w), p.ConnString())
	must(w.T, err)
	w.T.Cleanup(func() { _ = c.Close(context.WithoutCancel(w.T.Context())) })
	return c
}

// receipt fails the test unless the last stop is told as it was.
func receipt(w *world.World, clean bool, words ...string) {
	w.T.Helper()
	y := askWhy(w)
	if y.Receipt == nil || y.Receipt.Clean != clean {
		w.T.Errorf("the receipt should be clean: %t, it is %+v; the verdict is %+v", clean, y.Receipt, y.Verdict)
		return
	}
	says(w.T, y.Receipt.Reason, words...)
}

// A smart shutdown, which is what SIGTERM is for Postgres, hangs on idle sessions. After the preStop hook outrider ends
// them, also when the hook comes after the signal.
func TestSmartStopAfterPreStop(t *testing.T) {
	for _, late := range []bool{false, true} {
		name := "hook first"
		if late {
			name = "signal first"
		}
		t.Run(name, func(t *testing.T) {
			w := play(t)
			p := w.Database("db")
			for range 50 {
				session(w, p)
			}
			o := w.Protect(p)
			w.Load(p)()
			if late {
				must(t, p.Signal(syscall.SIGTERM))
				w.Until("the shutdown to begin", func(ctx context.Context) bool { return p.Exec(ctx) != nil })
			}
			must(t, o.PreStop(whole(w)))
			if !late {
				must(t, p.Signal(syscall.SIGTERM))
			}
			must(t, p.Wait(whole(w)))
			w.Finish(o)
			receipt(w, true)
			w.NothingLost(w.Restore("again"))
		})
	}
}

// Without a hook a smart shutdown waits for real clients, as its administrator wants, and never for outrider, not even
// in the middle of a snapshot.
func TestSmartStopWaitsForClientsOnly(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	w.Faults(`{"op":"part","kind":"hang"}`, `{"op":"put","prefix":"stage/a/basebackups_005/","kind":"hang"}`)
	o := w.Outrider(p)
	st := reaches(w, o, "no_snapshot")
	w.Until("a running snapshot", func(ctx context.Context) bool {
		var err error
		st, err = o.Status(ctx)
		return err == nil && st.SnapshotRunning != nil
	})
	client := session(w, p)
	stop := w.Load(p)
	stop()
	must(t, p.Signal(syscall.SIGTERM))
	w.Until("the snapshot to end its session", func(ctx context.Context) bool {
		var others int
		err := client.QueryRow(ctx, "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()").Scan(&others)
		return err == nil && others <= 1 // the one that follows the WAL until the last client has gone
	})
	if st, err := o.Status(whole(w)); err != nil || st.SnapshotTrouble != "" {
		t.Errorf("the snapshot was given up late, for the store: %s, %v", st.SnapshotTrouble, err)
	}
	if !p.Running() {
		t.Error("the server did not wait for its client")
	}
	if _, err := client.Exec(whole(w), "create table late ()"); err != nil {
		t.Errorf("the client that is waited for: %v", err)
	}
	must(t, client.Close(whole(w)))
	must(t, p.Wait(whole(w)))
	w.CutOff()
	w.Finish(o)
	receipt(w, true)
}

// An immediate stop is none: what was committed is shipped from the files, and nobody claims that it was clean.
func TestImmediateStop(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Work(time.Second)
	_ = p.Stop(whole(w), syscall.SIGQUIT) // an exit code that is not 0
	stop()
	w.Finish(o)
	receipt(w, false, "did not shut down cleanly", "in production")
	if y := askWhy(w); y.Verdict.Outcome != "interrupted" {
		t.Errorf("the verdict is %+v", y.Verdict)
	} else {
		says(t, y.Verdict.Lost, "nothing that was on the disk")
	}
	w.NothingLost(w.Restore("again"))
}

// The sidecar is lost first, Postgres stops in order without it, and only then a new sidecar starts: it ships the rest.
func TestSidecarComesAfterTheStop(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Work(500 * time.Millisecond)
	o.Kill()
	w.Work(500 * time.Millisecond)
	stop()
	w.StopServer(p, syscall.SIGINT)
	o = w.Outrider(p)
	reaches(w, o, "waiting", "Postgres")
	w.Finish(o)
	receipt(w, true)
	w.NothingLost(w.Restore("again"))
}
