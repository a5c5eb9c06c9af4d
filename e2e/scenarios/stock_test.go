package scenarios

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/stock"
	"outrider.dev/e2e/world"
)

// A tool that knows nothing of Outrider reads the archive: another SDK, other code, only the documented layout. What it
// fetches is started with restore_command='cp ...', after a promotion too, and nothing is missing.
func TestStockToolRestores(t *testing.T) {
	t.Parallel()
	w := world.New(t, programs, 16) // the only size that such tools expect
	archived(w)
	p := w.Restore("second")
	o := w.Protect(p)
	w.Load(p)()
	cmd := w.Stage.Outrider(w.Cloud, w.Root, "backup", "--pgdata", p.Data)
	cmd.Env = append(cmd.Env, p.Env()...)
	_, err := stage.Run(whole(w), cmd)
	must(t, err)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)

	a := openStock(w)
	must(t, a.Check(whole(w)))
	names, err := a.Backups(whole(w))
	must(t, err)
	if len(names) < 2 {
		t.Fatalf("there are the snapshots %v", names)
	}
	for _, name := range []string{names[0], names[len(names)-1]} {
		q, err := w.Stage.NewServer("from-" + name)
		must(t, err)
		must(t, os.MkdirAll(q.Data, 0o700))
		must(t, a.Fetch(whole(w), name, q.Data))
		dir := filepath.Join(w.Stage.Dir, "wal-"+name)
		must(t, os.MkdirAll(dir, 0o700))
		_, err = a.FetchWAL(whole(w), dir)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(q.Data, "recovery.signal"), nil, 0o600))
		must(t, q.Configure("restore_command = 'cp "+dir+"/%f %p'", "recovery_target_timeline = 'latest'"))
		for _, path := range []string{q.Data, dir} {
			must(t, w.Stage.Hand(path))
		}
		w.Start(q)
		w.NothingLost(q)
	}
}

// A crash leaves complete segments in chunks, which such tools do not see. The successor, on a new timeline, stores them
// as they expect.
func TestStockToolAfterACrash(t *testing.T) {
	t.Parallel()
	w := world.New(t, programs, 16)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Faults(`{"op":"*","prefix":"stage/a/wal_005/","kind":"status","status":503}`) // whole segments do not get through, chunks do
	first, err := p.Ask(whole(w), "select pg_walfile_name(pg_current_wal_insert_lsn())")
	must(t, err)
	w.Until("a whole segment in chunks", func(context.Context) bool {
		for key := range objects(w, w.Root) {
			if rest, ok := strings.CutPrefix(key, "outrider/tail/"); ok && rest[:len(first)] > first {
				return true
			}
		}
		return false
	})
	kill := w.Crash(p, o)
	stop()
	w.Faults()
	p = w.Restore("again")
	must(t, w.Judge(p, ledger.Options{Kill: kill, RPO: world.RPO}).Err())
	o = w.Protect(p)
	w.Until("the segment that was left", func(context.Context) bool { return objects(w, w.Root)["wal_005/"+first+".zst"] != "" })
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	must(t, openStock(w).Check(whole(w)))
}

func openStock(w *world.World) *stock.Archive {
	w.T.Helper()
	k := w.Cloud.Keys()
	a, err := stock.Open(stock.Config{Prefix: w.Root, Endpoint: w.Cloud.OSS, Region: stage.Region, KeyID: k.ID, Secret: k.Secret})
	must(w.T, err)
	return a
}
