package scenarios

import (
	"bytes"
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
)

// Postgres stops in order while the store is away. The sidecar stays until it has shipped the rest.
func TestStopDuringAnOutage(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Cloud.Kill()
	w.Work(time.Second)
	w.StopServer(p, syscall.SIGINT)
	stop()
	must(t, o.Signal(syscall.SIGTERM))
	reaches(w, o, "stopping")
	w.Work(time.Second)
	if !o.Running() {
		t.Fatalf("outrider has gone with WAL that is not shipped: %s", o.Tail(5))
	}
	must(t, w.Cloud.Restart(whole(w)))
	if code := w.ExitCode(o); code != 0 {
		t.Errorf("exit code %d: %s", code, o.Tail(5))
	}
	receipt(w, true)
	w.NothingLost(w.Restore("again"))
}

// The store does not come back: the stop ends with the grace period and says that not everything was shipped; a second
// signal ends it at once. The next sidecar on this disk ships the rest.
func TestStopDuringAnOutageThatLasts(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p, "--grace", "10s")
	stop := w.Load(p)
	w.Cloud.Kill()
	w.Work(500 * time.Millisecond)
	w.StopServer(p, syscall.SIGINT)
	stop()
	if code := w.Terminate(o); code != 9 {
		t.Errorf("exit code %d, want 9: %s", code, o.Tail(5))
	}
	o = w.Outrider(p)
	reaches(w, o, "waiting", "Postgres")
	must(t, o.Signal(syscall.SIGTERM))
	w.Until("the first signal to be seen", func(context.Context) bool {
		log, err := os.ReadFile(o.Log)
		return err == nil && bytes.Contains(log, []byte("the sidecar was told to go"))
	})
	if code := w.Terminate(o); code != 1 {
		t.Errorf("exit code %d after a second signal, want 1: %s", code, o.Tail(5))
	}
	must(t, w.Cloud.Restart(whole(w)))
	o = w.Outrider(p)
	reaches(w, o, "waiting", "Postgres")
	w.Finish(o)
	receipt(w, true)
	w.NothingLost(w.Restore("again"))
}

// The hook answers in its share of the grace period, whatever the store does: a kubelet that waits for it would kill
// Postgres in the end.
func TestPreStopWhileTheStoreHangs(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p, "--grace", "12s")
	stop := w.Load(p)
	w.Faults(`{"op":"*","kind":"hang"}`)
	w.Work(500 * time.Millisecond)
	must(t, o.PreStop(whole(w))) // the store still hangs
	st, err := o.Status(whole(w))
	if err != nil || st.Prepared == nil || !st.Prepared.Checkpointed || st.Prepared.Complete {
		t.Errorf("the preparation ended as %+v, %v", st.Prepared, err)
	} else if st.Prepared.TookSeconds > 4 {
		t.Errorf("the preparation says that it took %.1f s of a grace period of 12 s", st.Prepared.TookSeconds)
	}
	w.CutOff()
	w.StopServer(p, syscall.SIGINT)
	stop()
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
}

// A termination notice comes while a snapshot is running, and is withdrawn.
func TestNotice(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	w.Faults(`{"op":"part","kind":"hang"}`, `{"op":"put","prefix":"stage/a/basebackups_005/","kind":"hang"}`)
	o := w.Outrider(p)
	stop := w.Load(p)
	status := func(what string, is func(stage.Status) bool) {
		t.Helper()
		w.Until(what, func(ctx context.Context) bool {
			st, err := o.Status(ctx)
			return err == nil && is(st)
		})
	}
	status("a running snapshot", func(st stage.Status) bool { return st.SnapshotRunning != nil })
	w.Control("PUT", "spot-termination", "in 300s")
	status("the answer to the notice", func(st stage.Status) bool {
		return st.Notice != nil && st.Prepared != nil && st.Prepared.Reason == "notice" && st.Prepared.Checkpointed && st.Prepared.Complete
	})
	w.Control("DELETE", "spot-termination", "")
	status("the withdrawal", func(st stage.Status) bool { return st.Notice == nil })
	w.CutOff()
	must(t, o.Protected(whole(w)))
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	receipt(w, true)
	events := map[string]bool{}
	for _, e := range askWhy(w).Journal {
		events[e.Event] = true
	}
	for _, e := range []string{"notice", "prepared", "notice_withdrawn", "snapshot_taken", "finished"} {
		if !events[e] {
			t.Errorf("the journal does not know of %s: %v", e, events)
		}
	}
	w.NothingLost(w.Restore("again"))
}
