package scenarios

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// standby makes a standby of p that streams from it.
func standby(w *world.World, p *stage.Server, name string) *stage.Server {
	w.T.Helper()
	s, err := w.Stage.NewServer(name)
	must(w.T, err)
	must(w.T, p.Basebackup(whole(w), s))
	must(w.T, os.WriteFile(filepath.Join(s.Data, "standby.signal"), nil, 0o644))
	must(w.T, s.Configure("primary_conninfo = 'host="+p.Socket()+" user=postgres'", "hot_standby = on"))
	must(w.T, s.Start())
	must(w.T, s.Accepting(whole(w)))
	return s
}

// A standby's outrider idles; when its primary is lost and it is promoted, the archive goes on with the new timeline.
func TestStandbyIsPromoted(t *testing.T) {
	w := play(t)
	p := w.Database("primary")
	o := w.Protect(p)
	s := standby(w, p, "standby")
	idle := w.Outrider(s)
	reaches(w, idle, "recovering", "promoted")
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT) // waits until the standby has everything
	w.Finish(o)
	must(t, s.Exec(whole(w), "select pg_promote()"))
	must(t, s.Ready(whole(w)))
	w.Load(s)()
	must(t, idle.Protected(whole(w)))
	w.StopServer(s, syscall.SIGINT)
	w.Finish(idle)
	after := objects(w, w.Root)
	for _, key := range []string{"outrider/timelines/0000000002.json", "outrider/epochs/0000000002.json", "wal_005/00000002.history.zst"} {
		if after[key] == "" {
			t.Errorf("%s is missing after the promotion", key)
		}
	}
	if extra := after["outrider/epochs/0000000003.json"]; extra != "" {
		t.Error("the standby has claimed an epoch before its promotion")
	}
	w.NothingLost(w.Restore("again"))
}

// Nobody watches while a standby is promoted and goes on for many segments. The new timeline is shipped from its first
// byte all the same, or else a snapshot is taken before anything is called protected.
func TestPromotedUnwatched(t *testing.T) {
	w := play(t)
	p := w.Database("primary")
	o := w.Protect(p)
	s := standby(w, p, "standby")
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	must(t, s.Exec(whole(w), "select pg_promote()"))
	must(t, s.Ready(whole(w)))
	w.Load(s)()
	must(t, s.Exec(whole(w), "create table bulk as select g, repeat(md5(g::text), 30) from generate_series(1, 5000) g"))
	w.Load(s)()
	o = w.Protect(s)
	caughtUp(w, o)
	w.Crash(s, o)
	w.NothingLost(w.Restore("again"))
}

// The primary goes on for long after its sidecar is lost, and then is lost too. What its standby is promoted from never
// came into the archive: nothing is called protected before there is a new snapshot.
func TestPromotedAcrossAHole(t *testing.T) {
	w := play(t)
	p := w.Database("primary")
	o := w.Protect(p)
	s := standby(w, p, "standby")
	w.Load(p)()
	o.Kill()
	churn(w, p, 4)
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	must(t, s.Exec(whole(w), "select pg_promote()"))
	must(t, s.Ready(whole(w)))
	w.Faults(`{"op":"put","prefix":"stage/a/basebackups_005/","kind":"delay","delay":"1s","count":1}`)
	o = w.Outrider(s)
	reaches(w, o, "no_snapshot", "timeline 2")
	must(t, o.Protected(whole(w)))
	w.StopServer(s, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
}
