package scenarios

import (
	"context"
	"fmt"
	"syscall"
	"testing"
)

// A clean stop, and the same server and sidecar are started again: their epoch goes on. The segment of the stop cannot be
// replaced while a bulk load fills others after it; then the machine is lost. Nobody says that it ended clean, and
// everything that was durable is restored, not only what there was at the stop.
func TestCrashAfterACleanStop(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	receipt(w, true)
	w.Start(p)
	name, err := p.Ask(whole(w), "select pg_walfile_name(pg_current_wal_insert_lsn())")
	must(t, err)
	w.Faults(fmt.Sprintf(`{"op":"put","prefix":"stage/a/wal_005/%s","kind":"hang"}`, name))
	o = w.Protect(p)
	w.Load(p)()
	must(t, p.Exec(whole(w), "create table bulk as select g, repeat(md5(g::text), 30) from generate_series(1, 6000) g"))
	w.Load(p)()
	w.Until("everything to be durable", func(ctx context.Context) bool {
		st, err := o.Status(ctx)
		return err == nil && st.AgeSeconds != nil && *st.AgeSeconds == 0
	})
	w.Crash(p, o)
	w.Faults()
	y := askWhy(w)
	if y.Epoch != 1 || y.Verdict.Outcome == "clean" || y.Receipt == nil || y.Receipt.Clean {
		t.Errorf("it is told to have ended clean: %+v", y)
	}
	q := w.Restore("again")
	w.NothingLost(q)
	if n, err := q.Ask(whole(w), "select count(*)::text from bulk"); err != nil || n != "6000" {
		t.Errorf("%s rows of the bulk load, %v", n, err)
	}
}

// A clean stop, and the next pod starts a server on the same disk. Its node is lost before its sidecar has shipped
// anything: what was written in between is lost, and nobody takes the receipt of the stop for the last word. Where the
// sidecar comes in time the stop was clean and nothing is lost.
func TestCrashBeforeTheSidecarIsBack(t *testing.T) {
	w := play(t)
	cloud := w.Cloud
	pod := func(uid string) { w.Cloud = cloud.With("OUTRIDER_POD_UID=" + uid) }
	pod("one")
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	// While the archive is away a server may start without a trace.
	says(t, askWhy(w).Verdict.Lost, "nothing up to this stop", "whether the same disk was started again")

	pod("two")
	fails(w, 0, "restore", "--auto", "--pgdata", p.Data)
	w.Start(p)
	o = w.Protect(p)
	if y := askWhy(w, "--epoch", "1"); y.Verdict.Outcome != "clean" || y.Verdict.Lost != "nothing" {
		t.Errorf("of a stop after which the same disk went on it says %+v", y.Verdict)
	}
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	if y := askWhy(w); y.Epoch != 2 || y.Verdict.Outcome != "clean" {
		t.Errorf("of the second stop it says %+v", y)
	}

	pod("three")
	fails(w, 0, "restore", "--auto", "--pgdata", p.Data)
	w.Start(p)
	must(t, p.Exec(whole(w), "create table late (n int)"))
	p.Kill()
	lost := func() {
		t.Helper()
		y := askWhy(w, "--epoch", "2")
		if y.Verdict.Outcome != "vanished" || y.Receipt == nil || !y.Receipt.Clean {
			t.Errorf("of a stop after which its disk was started, and lost, it says %+v", y)
		}
		says(t, y.Verdict.Lost, "nothing up to this stop; and what was committed after", "the same disk was started again")
		says(t, y.Verdict.Text, "three")
	}
	lost()
	pod("four")
	q := w.Restore("again", "--auto")
	o = w.Protect(q)
	w.NothingLost(q) // of what was written up to the stop
	lost()
	w.StopServer(q, syscall.SIGINT)
	w.Finish(o)
}
