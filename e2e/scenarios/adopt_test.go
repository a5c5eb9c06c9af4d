package scenarios

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/stage"
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
	// A person who names the database means what it is now; who means what it was says so.
	tables(w, w.Restore("copy"), "after,later")
	tables(w, w.Restore("first", "--archive", w.Root+"@1"), "before")
	tables(w, w.Restore("second", "--archive", w.Root+"@2"), "after,later")
}

// A role that sees one generation of a database alone works until the day of a restore, which could not tell whether
// there is a later one. So it is said while there is time.
func TestRoleThatSeesTooLittle(t *testing.T) {
	w := play(t)
	key, _ := strings.CutPrefix(w.Root, "oss://"+stage.Bucket+"/")
	w.Faults(fmt.Sprintf(`{"op":"get","prefix":"%s@2/","kind":"status","status":403,"code":"AccessDenied"}`, key))
	p := w.Database("db")
	o := w.Protect(p)
	var st stage.Status
	w.Until("a warning", func(ctx context.Context) bool {
		var err error
		st, err = o.Status(ctx)
		return err == nil && len(st.Warnings) > 0
	})
	says(t, strings.Join(st.Warnings, "\n"), w.Root+"@2", "oss:GetObject")
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	elsewhere, err := w.Stage.NewServer("elsewhere")
	must(t, err)
	says(t, fails(w, 4, "restore", "--auto", "--no-wait", "--pgdata", elsewhere.Data), w.Root+"@2", "oss:GetObject")
}
