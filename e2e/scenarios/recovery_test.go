package scenarios

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// longRecovery is a restored server that does not run yet, and whose recovery cannot end before `outrider run` has laid
// the rest of the WAL.
func longRecovery(w *world.World) (p *stage.Server, cloud *stage.Cloud) {
	w.T.Helper()
	origin := w.Database("origin")
	o := w.Protect(origin)
	w.Load(origin)()
	must(w.T, origin.Exec(whole(w), "create table bulk as select g, repeat(md5(g::text), 32) from generate_series(1, 150000) g"))
	w.StopServer(origin, syscall.SIGINT)
	w.Finish(o)
	spool, err := w.Stage.Mkdir("spool")
	must(w.T, err)
	cloud = w.Cloud.With("OUTRIDER_SPOOL=" + spool)
	p, err = w.Stage.NewServer("db")
	must(w.T, err)
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, p, "--auto")
	must(w.T, err)
	return p, cloud
}

// Nobody reads rows of the past while a restored server recovers. Where the command line of the server overrides what
// the restore has set for that, it is said.
func TestNobodyReadsStaleRows(t *testing.T) {
	w := play(t)
	p, cloud := longRecovery(w)
	must(t, p.Start())
	// From here on a server with hot_standby would take sessions.
	w.Until("a state that could be read", func(context.Context) bool { return strings.Contains(p.Log(100), "consistent recovery state reached") })
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if n, err := p.Ask(whole(w), "select count(*)::text from pg_class"); err == nil {
			t.Fatalf("a client could read %s rows during the recovery", n)
		}
		if !p.Running() {
			t.Fatalf("the server has ended: %s", p.Log(10))
		}
	}
	w.StopServer(p, syscall.SIGINT)

	p.Args = []string{"-c", "hot_standby=on"}
	must(t, p.Start())
	w.Until("a session in recovery", func(ctx context.Context) bool {
		in, err := p.Ask(ctx, "select pg_is_in_recovery()::text")
		return err == nil && in == "true"
	})
	w.Cloud.Kill() // or the rest of the WAL comes at once
	o, err := w.Stage.RunInPod(cloud, w.Root, p)
	must(t, err)
	reaches(w, o, "recovering", "hot_standby", "command line")
	must(t, w.Cloud.Restart(whole(w)))
	must(t, o.Protected(whole(w)))
	w.NothingLost(p)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
}

// Commits that Postgres acknowledges before it has flushed them are not promised: status and metric say how many bytes
// that is.
func TestAsynchronousCommitsAreCounted(t *testing.T) {
	w := play(t)
	p := w.Database("db", "synchronous_commit = off", "wal_writer_delay = 10s")
	o := w.Protect(p)
	must(t, p.Exec(whole(w), "create table async (n int)"))
	n := 0
	commit := func(mode string) {
		n++
		must(t, p.Exec(whole(w), "set synchronous_commit = "+mode, fmt.Sprintf("insert into async values (%d)", n)))
	}
	metric := func(ctx context.Context) float64 {
		text, err := o.Metrics(ctx)
		must(t, err)
		for line := range strings.Lines(text) {
			if value, ok := strings.CutPrefix(line, "outrider_wal_not_flushed_bytes "); ok {
				n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
				must(t, err)
				return n
			}
		}
		t.Fatal("there is no metric outrider_wal_not_flushed_bytes")
		return 0
	}
	w.Until("bytes that are not flushed", func(ctx context.Context) bool {
		commit("off")
		st, err := o.Status(ctx)
		return err == nil && st.NotFlushedBytes != nil && *st.NotFlushedBytes > 0 && metric(ctx) > 0
	})
	w.Until("all bytes to be flushed", func(ctx context.Context) bool {
		commit("on")
		st, err := o.Status(ctx)
		return err == nil && st.NotFlushedBytes != nil && *st.NotFlushedBytes == 0 && metric(ctx) == 0
	})
}
