package scenarios

import (
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A database that was upgraded has another system identifier: it is refused before it is started and after, until adopt
// opens the next root for it. From then on that one is the database, with adopt or without, also for an empty disk; what
// the first root holds stays as it is, and can be restored.
func TestAdopt(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	must(t, p.Exec(whole(w), "create table before ()"))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	before := objects(w, w.Root)

	upgraded, err := w.Stage.NewServer("upgraded")
	must(t, err)
	upgraded.Initdb = []string{"--wal-segsize=1"}
	must(t, upgraded.Init(whole(w)))
	says(t, fails(w, 7, "restore", "--auto", "--pgdata", upgraded.Data), "system identifier", "adopt")
	fails(w, 0, "restore", "--auto", "--pgdata", upgraded.Data, "--adopt=true")
	w.Start(upgraded)
	o = w.Outrider(upgraded)
	reaches(w, o, "not_protected", "another database", "adopt")
	w.Terminate(o)

	o = w.Protect(upgraded, "--adopt=true")
	must(t, upgraded.Exec(whole(w), "create table after ()"))
	w.StopServer(upgraded, syscall.SIGINT)
	w.Finish(o)
	if diff := cmp.Diff(before, objects(w, w.Root)); diff != "" {
		t.Errorf("the first root has changed (-before +after):\n%s", diff)
	}
	if len(objects(w, w.Root+"@2")) == 0 {
		t.Error("there is nothing in the second root")
	}
	fails(w, 0, "restore", "--auto", "--pgdata", upgraded.Data)
	w.Start(upgraded)
	o = w.Protect(upgraded)
	must(t, upgraded.Exec(whole(w), "create table later ()"))
	w.StopServer(upgraded, syscall.SIGINT)
	w.Finish(o)
	tables(w, w.Restore("again", "--auto"), "after,later")
	tables(w, w.Restore("first"), "before")
}
