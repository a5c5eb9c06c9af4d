package scenarios

import (
	"context"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// staleDisk is a database whose directory was copied at a stop, went on under protection, and has now been replaced by
// the copy, as restoring a snapshot of the disk does.
func staleDisk(w *world.World) *stage.Server {
	w.T.Helper()
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	old, err := w.Stage.NewServer("copy")
	must(w.T, err)
	must(w.T, old.CopyFrom(whole(w), p.Data))
	w.Start(p)
	o = w.Protect(p)
	w.Load(p)()
	must(w.T, p.Exec(whole(w), "create table newer ()"))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	must(w.T, p.CopyFrom(whole(w), old.Data))
	return p
}

// A disk that is older than its archive is refused before Postgres starts on it. Where Postgres was started all the
// same, `outrider run` does not ship it. On request it goes on, on a timeline of its own, which is shipped and has a
// snapshot of its own; what the archive held of later times stays there.
func TestStaleDisk(t *testing.T) {
	w := play(t)
	p := staleDisk(w)
	before := objects(w, w.Root)
	text := fails(w, 7, "restore", "--auto", "--pgdata", p.Data)
	says(t, text, "empty the disk", "stale-disk", "fork")

	w.Start(p)
	o := w.Outrider(p)
	reaches(w, o, "not_protected", "older than its archive")
	w.Terminate(o)
	if diff := cmp.Diff(before, objects(w, w.Root)); diff != "" {
		t.Errorf("the archive has changed (-before +after):\n%s", diff)
	}
	w.StopServer(p, syscall.SIGINT)

	text = fails(w, 7, "restore", "--auto", "--pgdata", p.Data)
	says(t, text, "stale-disk")
	fails(w, 0, "restore", "--auto", "--pgdata", p.Data, "--stale-disk", "fork")
	w.Start(p)
	must(t, p.Exec(whole(w), "create table forked ()"))
	o = w.Outrider(p)
	reaches(w, o, "no_snapshot", "timeline 2")
	must(t, o.Protected(whole(w)))
	st, err := o.Status(whole(w))
	if err != nil || st.Timeline != 2 || st.LastSnapshot == nil || st.LastSnapshot.Name[:13] != "base_00000002" {
		t.Errorf("after the fork: %+v, %v", st, err)
	}
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	tables(w, w.Restore("newest"), "forked")
	tables(w, w.Restore("left", "--target", "latest@1"), "newer")
}

// tables fails the test unless the server has exactly these of the tables that scenarios make.
func tables(w *world.World, p *stage.Server, want string) {
	w.T.Helper()
	got, err := p.Ask(whole(w), "select coalesce(string_agg(relname, ',' order by relname), '') from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace and relname <> 'outrider_first_write'")
	if err != nil || got != want {
		w.T.Errorf("%s holds the tables %q, want %q, %v", p.Name, got, want, err)
	}
}

// The sidecar is killed and started again, and told to go and started again: it goes on with its epoch.
func TestRestartedSidecarContinues(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	o.Kill()
	o = w.Protect(p)
	caughtUp(w, o)
	if code := w.Terminate(o); code != 0 {
		t.Errorf("exit code %d of a sidecar that was told to go while Postgres lives: %s", code, o.Tail(3))
	}
	if y := askWhy(w); y.Receipt == nil || y.Receipt.Clean || y.Verdict.Outcome != "interrupted" {
		t.Errorf("Postgres lives on, and the receipt says %+v", y)
	} else {
		says(t, y.Receipt.Reason, "still running")
	}
	before := w.Acknowledged()
	w.Until("commits without a sidecar", func(context.Context) bool { return w.Acknowledged() > before+50 })
	o = w.Protect(p)
	st, err := o.Status(whole(w))
	if err != nil || st.Epoch != 1 {
		t.Errorf("epoch %d, %v, want still 1", st.Epoch, err)
	}
	stop()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
	if y := askWhy(w); y.Epoch != 1 || y.Verdict.Outcome != "clean" {
		t.Errorf("after the clean stop: %+v", y)
	}
}
