package scenarios

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// mark is a moment in the life of a database: all marks up to it were committed before it, no later one was.
type mark struct {
	name, lsn, time string
}

// marked commits a mark and returns the moment after it.
func marked(w *world.World, p *stage.Server, name string) mark {
	w.T.Helper()
	must(w.T, p.Exec(whole(w), "create table if not exists marks (name text, at timestamptz default clock_timestamp())",
		fmt.Sprintf("insert into marks values ('%s')", name)))
	m := mark{name: name, lsn: lsn(w, p)}
	var err error
	m.time, err = p.Ask(whole(w), "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.USZ')")
	must(w.T, err)
	must(w.T, p.Exec(whole(w), "select pg_sleep(0.01)"))
	return m
}

// holds fails the test unless a server has exactly these marks.
func holds(w *world.World, p *stage.Server, want ...string) {
	w.T.Helper()
	got, err := p.Ask(whole(w), "select coalesce(string_agg(name, ' ' order by at), '') from marks")
	if err != nil || got != strings.Join(want, " ") {
		w.T.Errorf("%s holds the marks %q, want %q, %v", p.Name, got, want, err)
	}
}

func (m mark) at(timeline int) string { return fmt.Sprintf("%s@%d", m.lsn, timeline) }

// A restore in the own root to an earlier point is a new timeline. What was written after that point stays reachable,
// and a plain restore goes on with the newest branch, again and again.
func TestPointInTime(t *testing.T) {
	w := play(t)
	p := w.Database("first")
	o := w.Protect(p)
	a := marked(w, p, "a")
	b := marked(w, p, "b")
	marked(w, p, "c")
	next := func(from *stage.Server, name string, args ...string) *stage.Server {
		t.Helper()
		w.StopServer(from, syscall.SIGINT)
		w.Finish(o)
		return w.Restore(name, args...)
	}
	p = next(p, "second", "--target", b.time)
	holds(w, p, "a", "b")
	d := marked(w, p, "d")
	o = w.Protect(p)
	marked(w, p, "e")

	p = next(p, "third")
	holds(w, p, "a", "b", "d", "e")
	o = w.Protect(p)
	p = next(p, "fourth", "--target", a.lsn)
	holds(w, p, "a")
	o = w.Protect(p)
	marked(w, p, "f")
	if st, err := o.Status(whole(w)); err != nil || st.Timeline != 4 {
		t.Errorf("timeline %d, %v, want 4", st.Timeline, err)
	}
	p = next(p, "fifth")
	holds(w, p, "a", "f")
	w.StopServer(p, syscall.SIGINT)

	holds(w, w.Restore("left 1", "--target", "latest@1"), "a", "b", "c")
	holds(w, w.Restore("left 2", "--target", d.at(2)), "a", "b", "d")
}

// A target that lies in the future is dropped, and that is said; one before the first snapshot is refused, and so is a
// timeline that there is none of.
func TestTargetsThatCannotBe(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	early := marked(w, p, "a")
	must(t, p.Exec(whole(w), "select pg_switch_wal()"))
	o := w.Protect(p)
	marked(w, p, "b")
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	out := fails(w, 0, "restore", "--pgdata", p.Data+".x", "--target", future, "--dry-run")
	says(t, out, "after all that was committed")
	for target, words := range map[string][]string{
		early.lsn: {"snapshot"}, early.time: {"snapshot"}, "latest@7": {"timeline", "7"}, "yesterday": {"yesterday", "a time with its zone"},
	} {
		says(t, fails(w, 2, "restore", "--pgdata", p.Data+".x", "--target", target), words...)
	}
	holds(w, w.Restore("again", "--target", future), "a", "b")
}

// Tablespaces come back where they were, or where they are mapped to.
func TestTablespaces(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	place, err := w.Stage.Mkdir("tablespace")
	must(t, err)
	other, err := w.Stage.Mkdir("elsewhere")
	must(t, err)
	must(t, p.Exec(whole(w), fmt.Sprintf("create tablespace side location '%s'", place), "create table there (i int) tablespace side",
		"insert into there select generate_series(1, 1000)"))
	o := w.Protect(p)
	must(t, p.Exec(whole(w), "insert into there select generate_series(1001, 2000)"))
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
	says(t, fails(w, 7, "restore", "--pgdata", p.Data+".x"), place, "map")
	q := w.Restore("again", "--tablespace-mapping", place+"="+other)
	if n, err := q.Ask(whole(w), "select count(*) || ' ' || pg_tablespace_location(oid) from there, pg_tablespace where spcname = 'side' group by oid"); err != nil || n != "2000 "+other {
		t.Errorf("rows and place: %s, %v", n, err)
	}
}

// `outrider backup` takes a snapshot beside run, which a restore then starts from; `outrider unprotect` lets the server
// go.
func TestBackupAndUnprotect(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	o := w.Protect(p)
	w.Load(p)()
	command := func(args ...string) (string, error) {
		cmd := w.Stage.Outrider(w.Cloud, w.Root, args...)
		cmd.Env = append(cmd.Env, p.Env()...)
		return stage.Run(whole(w), cmd)
	}
	out, err := command("backup", "--pgdata", p.Data)
	must(t, err)
	name, _, _ := strings.Cut(out, ":")
	says(t, fails(w, 0, "restore", "--pgdata", p.Data+".x", "--dry-run"), name)
	_, err = command("unprotect", "--listen", strings.TrimPrefix(o.URL, "http://"))
	if stage.ExitCode(err) != 7 {
		t.Errorf("unprotect beside run: %v, want exit code 7", err)
	}
	w.Terminate(o)
	_, err = command("unprotect", "--listen", strings.TrimPrefix(o.URL, "http://"))
	must(t, err)
	if n, err := p.Ask(whole(w), "select count(*)::text from pg_replication_slots"); err != nil || n != "0" {
		t.Errorf("%s slots after unprotect, %v", n, err)
	}
	receipt(w, false, "unprotected by request")
	w.StopServer(p, syscall.SIGINT)
	w.NothingLost(w.Restore("again"))
}
