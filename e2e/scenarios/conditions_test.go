package scenarios

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/stage"
)

func TestPostgresIsNotThereYet(t *testing.T) {
	w := play(t)
	p := w.Fresh("db")
	o := w.Outrider(p)
	reaches(w, o, "waiting", "Postgres", "refused")
	if ready, text, err := o.Ready(whole(w)); !ready || err != nil {
		t.Errorf("/readyz is red while Postgres is awaited: %s, %v", text, err)
	}
	w.Start(p)
	must(t, o.Protected(whole(w)))
	w.Load(p)()
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
}

// In a pod the sidecar starts first, and initdb makes the directory after that.
func TestDataDirectoryIsNotThereYet(t *testing.T) {
	w := play(t)
	p := w.Fresh("db")
	aside := p.Data + ".aside"
	must(t, os.Rename(p.Data, aside))
	o := w.Outrider(p)
	reaches(w, o, "waiting")
	must(t, os.Rename(aside, p.Data))
	w.Start(p)
	must(t, o.Protected(whole(w)))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.Restore("again")
}

// The role of outrider is refused by pg_hba.conf, then for its password; then it ships with the rights that shipping
// needs, and the trouble with the snapshot names the one that is missing.
func TestRoleWithoutRights(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	must(t, p.Exec(whole(w), "create role shipper login password 'right'"))
	hba := func(rules string) {
		must(t, os.WriteFile(filepath.Join(p.Data, "pg_hba.conf"), []byte(rules), 0o600))
		must(t, p.Exec(whole(w), "select pg_reload_conf()"))
	}
	hba("local all postgres trust\n")
	o := w.Outrider(p.With("PGUSER=shipper", "PGPASSWORD=wrong"))
	reaches(w, o, "not_protected", "pg_hba.conf", "shipper")
	hba("local all postgres trust\nlocal all shipper scram-sha-256\n")
	reaches(w, o, "not_protected", "PGPASSWORD", "shipper")
	must(t, p.Exec(whole(w), "alter role shipper password 'wrong'"))
	reaches(w, o, "not_protected", `GRANT pg_monitor TO "shipper"`)
	must(t, p.Exec(whole(w), "grant pg_monitor to shipper"))
	reaches(w, o, "not_protected", `ALTER ROLE "shipper" REPLICATION`)
	must(t, p.Exec(whole(w), "alter role shipper replication"))
	reaches(w, o, "no_snapshot", "GRANT EXECUTE ON FUNCTION pg_backup_start", "shipper")
	if st, err := o.Status(whole(w)); err != nil || st.NotProtectedSince == nil || st.Durable == "" {
		t.Errorf("without a snapshot: %+v, %v", st, err)
	}
}

func TestServerSettings(t *testing.T) {
	w := play(t)
	p := w.Database("db", "wal_level = minimal", "max_wal_senders = 0")
	o := w.Outrider(p)
	reaches(w, o, "not_protected", "wal_level", "replica", "restart")
	w.Terminate(o)
	w.StopServer(p, syscall.SIGINT)
	must(t, p.Configure("wal_level = replica", "max_replication_slots = 1"))
	w.Start(p)
	must(t, p.Exec(whole(w), "select pg_create_physical_replication_slot('theirs')"))
	o = w.Outrider(p)
	reaches(w, o, "not_protected", "max_replication_slots", "drop a slot")
	must(t, p.Exec(whole(w), "select pg_drop_replication_slot('theirs')"))
	must(t, o.Protected(whole(w)))
}

// A root belongs to one database, and what is asked must be the server of the directory that is read. Neither mistake
// leaves a trace in the archive.
func TestWrongServer(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	before := objects(w, w.Root)

	other, err := w.Stage.NewServer("other")
	must(t, err)
	other.Initdb = []string{"--wal-segsize=1"}
	must(t, other.Init(whole(w)))
	w.Start(other)
	foreign := w.Outrider(other)
	reaches(w, foreign, "not_protected", "another database", "archive of its own", "adopt")
	w.Start(p)
	mixed := w.Outrider(other.With("PGHOST=" + p.Socket()))
	reaches(w, mixed, "not_protected", "system identifier", "--pgdata", "PGHOST")
	for _, o := range []*stage.Outrider{foreign, mixed} {
		w.Terminate(o)
	}
	if slots, err := other.Ask(whole(w), "select count(*)::text from pg_replication_slots"); slots != "0" || err != nil {
		t.Errorf("a refused server has %s slots, %v", slots, err)
	}
	if diff := cmp.Diff(before, objects(w, w.Root)); diff != "" {
		t.Errorf("the archive has changed (-before +after):\n%s", diff)
	}
}

// What the database expects of its server and machine, and does not find there any more after a restore, is said.
func TestWhatDoesNotFitIsSaid(t *testing.T) {
	w := play(t)
	p := w.Database("db", "shared_preload_libraries = 'auto_explain'")
	o := w.Protect(p)
	if st, err := o.Status(whole(w)); err != nil || len(st.Warnings) > 0 {
		t.Errorf("all is as it should be, and it warns: %q, %v", st.Warnings, err)
	}
	// As if the extension's files were of another version.
	must(t, p.Exec(whole(w), "update pg_extension set extversion = '0.9' where extname = 'plpgsql'"))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	again := w.RestoreFiles("again")
	must(t, again.Configure("shared_preload_libraries = ''"))
	w.Start(again)
	o = w.Protect(again)
	var st stage.Status
	w.Until("warnings", func(ctx context.Context) bool {
		var err error
		st, err = o.Status(ctx)
		return err == nil && len(st.Warnings) > 0
	})
	says(t, strings.Join(st.Warnings, "\n"), "had auto_explain", "extension plpgsql 0.9, this machine has 1.0")
	// One of the two is mended; the other is not forgotten when the server comes back.
	must(t, again.Exec(whole(w), "update pg_extension set extversion = '1.0' where extname = 'plpgsql'"))
	w.StopServer(again, syscall.SIGINT)
	w.Start(again)
	w.Until("what is mended is not said any more", func(ctx context.Context) bool {
		var err error
		st, err = o.Status(ctx)
		return err == nil && !strings.Contains(strings.Join(st.Warnings, "\n"), "plpgsql")
	})
	says(t, strings.Join(st.Warnings, "\n"), "had auto_explain")
	w.StopServer(again, syscall.SIGINT)
	w.Finish(o)
	told := false
	for _, e := range askWhy(w).Journal {
		told = told || e.Event == "does_not_fit"
	}
	if !told {
		t.Error("the journal does not tell")
	}
}

// Postgres is restarted in place, in order and not, and outrider stays.
func TestRestartInPlace(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	stop := w.Load(p)
	for _, how := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		w.Work(500 * time.Millisecond)
		if how == syscall.SIGKILL {
			p.Kill()
		} else {
			_ = p.Stop(whole(w), how) // an immediate stop is no exit code 0
		}
		w.Start(p)
		before := w.Acknowledged()
		w.Until("commits after the restart", func(context.Context) bool { return w.Acknowledged() > before+20 })
	}
	stop()
	w.NothingLost(p)
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	w.NothingLost(w.Restore("again"))
	st := askWhy(w)
	if st.Epoch != 1 || st.Verdict.Outcome != "clean" {
		t.Errorf("after restarts in place: %+v", st)
	}
}
