package scenarios

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

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

	k := w.Cloud.Keys()
	a, err := stock.Open(stock.Config{Prefix: w.Root, Endpoint: w.Cloud.OSS, Region: stage.Region, KeyID: k.ID, Secret: k.Secret})
	must(t, err)
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
