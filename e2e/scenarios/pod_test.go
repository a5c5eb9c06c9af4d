package scenarios

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"outrider.dev/e2e/stage"
)

// In a pod the spool lies outside the data directory, which the sidecar may only read: so the marker of a restore stays
// there. What a restore has left is nevertheless taken away once, and once only.
func TestSidecarThatMayOnlyReadTheData(t *testing.T) {
	w := play(t)
	archived(w)
	spool, err := w.Stage.Mkdir("spool")
	must(t, err)
	must(t, os.Chmod(spool, 0o777))
	cloud := w.Cloud.With("OUTRIDER_SPOOL="+spool, "OUTRIDER_POD_UID=one")
	p, err := w.Stage.NewServer("db")
	must(t, err)
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, p, "--auto")
	must(t, err)

	begin := func() *stage.Outrider {
		t.Helper()
		o, err := w.Stage.RunInPod(cloud, w.Root, p)
		must(t, err)
		must(t, o.Protected(whole(w)))
		return o
	}
	restored := func(o *stage.Outrider) int {
		t.Helper()
		b, err := os.ReadFile(o.Log)
		must(t, err)
		return bytes.Count(b, []byte(`"event":"restored"`))
	}
	proc, err := w.Stage.RunInPod(cloud, w.Root, p) // before the server, as in a pod
	must(t, err)
	w.Start(p)
	w.NothingLost(p)
	must(t, proc.Protected(whole(w)))
	w.Until("the restore to be settled", func(ctx context.Context) bool {
		n, err := p.Ask(ctx, "select count(*)::text from pg_file_settings where name like 'recovery_target%' or name = 'restore_command'")
		left, globbed := filepath.Glob(filepath.Join(spool, "0000*"))
		must(t, globbed)
		return err == nil && n == "0" && restored(proc) == 1 && len(left) == 0
	})
	proc.Kill()

	again := begin() // a restarted container
	stop := w.Load(p)
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(again)
	if n := restored(again); n != 0 {
		t.Errorf("the restore was settled %d times more", n)
	}
	if b, err := os.ReadFile(again.Log); err != nil || bytes.Contains(b, []byte(`"level":"WARN"`)) {
		t.Errorf("there are warnings, %v:\n%s", err, b)
	}

	// The pod is replaced, its volume stays.
	must(t, os.RemoveAll(spool))
	must(t, os.Mkdir(spool, 0o777))
	must(t, os.Chmod(spool, 0o777))
	cloud = w.Cloud.With("OUTRIDER_SPOOL="+spool, "OUTRIDER_POD_UID=two")
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, p, "--auto")
	must(t, err)
	w.Start(p)
	w.NothingLost(p)
	o := begin()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
}

// The init container of a pod lays what the server needs to begin with. The sidecar lays the rest while it replays.
func TestServerOfAPodStartsBeforeAllItsWALIsThere(t *testing.T) {
	w := play(t)
	p := w.Database("origin")
	o := w.Protect(p)
	w.Load(p)()
	err := p.Exec(whole(w), "create table bulk as select g, repeat(md5(g::text), 32) from generate_series(1, 150000) g")
	must(t, err)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)

	spool, err := w.Stage.Mkdir("spool")
	must(t, err)
	cloud := w.Cloud.With("OUTRIDER_SPOOL=" + spool)
	q, err := w.Stage.NewServer("db")
	must(t, err)
	_, err = w.Stage.Restore(whole(w), cloud, w.Root, q, "--auto")
	must(t, err)
	laid, err := filepath.Glob(filepath.Join(spool, "0000000100*"))
	must(t, err)
	if _, err := os.Stat(filepath.Join(spool, "END")); !os.IsNotExist(err) || len(laid) < 128 || len(laid) > 129 {
		t.Fatalf("%d segments lie in the spool, and its end is known (%v): this test wants more WAL than that", len(laid), err)
	}
	again, err := w.Stage.RunInPod(cloud, w.Root, q)
	must(t, err)
	w.Start(q)
	w.NothingLost(q)
	if n, err := q.Ask(whole(w), "select count(*)::text from bulk"); err != nil || n != "150000" {
		t.Errorf("%s rows, %v", n, err)
	}
	must(t, again.Protected(whole(w)))
	w.StopServer(q, syscall.SIGINT)
	w.Finish(again)
}
