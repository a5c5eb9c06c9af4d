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
