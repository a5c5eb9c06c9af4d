package scenarios

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/stage"
	"outrider.dev/e2e/world"
)

// drilled is the part of a drill's result that tests look at.
type drilled struct {
	Passed      bool       `json:"passed"`
	Failure     string     `json:"failure"`
	VerifiedAt  time.Time  `json:"verified_at"`
	Seconds     float64    `json:"seconds"`
	Ready       float64    `json:"ready_seconds"`
	Snapshot    string     `json:"snapshot"`
	LSN         string     `json:"lsn"`
	CommittedAt *time.Time `json:"committed_at"`
	Pages       finding    `json:"pages"`
	Indexes     finding    `json:"indexes"`
	Query       finding    `json:"query"`
	Object      string     `json:"object"`
}

type finding struct {
	Verdict string   `json:"verdict"`
	Checked int64    `json:"checked"`
	Bad     []string `json:"bad"`
}

// holdDrill runs `outrider drill`, which must end with an exit code, and returns the newest result in the archive and
// what was said.
func holdDrill(w *world.World, code int, args ...string) (drilled, string) {
	w.T.Helper()
	before := drillsOf(w)
	said := fails(w, code, append([]string{"drill", "--dir", w.Stage.Dir, "--bindir", w.Stage.BinDir()}, args...)...)
	left, err := filepath.Glob(filepath.Join(w.Stage.Dir, "outrider-drill-*"))
	must(w.T, err)
	if len(left) > 0 {
		w.T.Errorf("the drill left %v", left)
	}
	after := drillsOf(w)
	if len(after) != len(before)+1 || !slices.Equal(after[:len(before)], before) {
		w.T.Fatalf("results were %v, and are %v\n%s", before, after, said)
	}
	return readDrill(w, after[len(before)]), said
}

func drillsOf(w *world.World) []string {
	w.T.Helper()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(objects(w, w.Root))), func(key string) bool { return !strings.HasPrefix(key, "outrider/drills/") })
}

func readDrill(w *world.World, key string) drilled {
	w.T.Helper()
	b, err := w.Cloud.Object(whole(w), w.Root, key)
	must(w.T, err)
	var d drilled
	if err := json.Unmarshal(b, &d); err != nil {
		w.T.Fatalf("reading %s: %v: %s", key, err, b)
	}
	return d
}

// notPassed fails the test unless a drill says all of the words about why it was not passed.
func notPassed(w *world.World, d drilled, said string, words ...string) {
	w.T.Helper()
	if d.Passed || d.Failure == "" {
		w.T.Errorf("recorded is %+v", d)
	}
	says(w.T, d.Failure, words...)
	says(w.T, said, append(words, "NOT PASSED")...)
}

// A drill beside a database that goes on proves that all of it can be restored, up to its last commit, and disturbs
// neither it nor its archive. Then the machine is lost, and one bit flips: in whatever object, the drill is not passed,
// names it, and that is recorded.
func TestDrill(t *testing.T) {
	w := play(t)
	sign := filepath.Join(w.Stage.Dir, "archived")
	p := w.Database("db", "archive_mode = on", "archive_command = 'touch "+sign+"'")
	o := w.Protect(p)
	stop := w.Load(p)
	w.Work(2 * time.Second)
	stop()
	must(t, p.Exec(whole(w), "create table kept as select g as n from generate_series(1, 1000) g", "create index on kept (n)",
		"select pg_create_physical_replication_slot('theirs')"))
	at := lsn(w, p)
	shipped(w, o, p, at)

	d, said := holdDrill(w, 0, "--amcheck", "--query", "select count(*) = 1000 from kept")
	if !d.Passed || d.Failure != "" || d.Snapshot == "" || d.Seconds <= 0 || d.Ready <= 0 || d.Ready > d.Seconds || time.Since(d.VerifiedAt) > time.Minute {
		t.Errorf("the result is %+v", d)
	}
	if d.CommittedAt == nil || time.Since(*d.CommittedAt) > time.Minute || !reached(w, p, d.LSN, at) {
		t.Errorf("reached are %s of %v, the server was at %s", d.LSN, d.CommittedAt, at)
	}
	for what, f := range map[string]finding{"pages": d.Pages, "indexes": d.Indexes, "query": d.Query} {
		if f.Verdict != "good" || f.Checked == 0 {
			t.Errorf("%s: %+v", what, f)
		}
	}
	says(t, said, "passed", d.Snapshot, d.LSN, "good, 1 rows", "outrider/drills/")
	if st, err := o.Status(whole(w)); err != nil || st.State != "protected" || st.Epoch != 1 || st.Timeline != 1 {
		t.Errorf("after the drill: %+v, %v", st, err)
	}
	w.Load(p)()
	caughtUp(w, o)
	w.Crash(p, o)
	must(t, os.Remove(sign))

	before := objects(w, w.Root)
	d, _ = holdDrill(w, 0)
	if d.Query.Verdict != "not_run" || d.Indexes.Verdict != "not_run" {
		t.Errorf("checked was what nobody asked for: %+v", d)
	}
	after := objects(w, w.Root)
	delete(after, drillsOf(w)[1])
	if !maps.Equal(before, after) {
		t.Errorf("the drill has changed the archive: it was %v, and is %v", before, after)
	}
	d, said = holdDrill(w, 10, "--query", "select false from kept")
	notPassed(w, d, said, "it is false")
	d, said = holdDrill(w, 10, "--query", "select n from kept where n < 0")
	notPassed(w, d, said, "it has no row")
	d, said = holdDrill(w, 10, "--query", "delete from kept returning n")
	notPassed(w, d, said, "read-only transaction")
	for _, place := range []string{"basebackups_005/" + d.Snapshot + "/tar_partitions/part_", "wal_005/", "outrider/tail/"} {
		key := lastBelow(t, before, place)
		must(t, w.Cloud.FlipBit(whole(w), w.Root, key))
		d, said = holdDrill(w, 10)
		notPassed(w, d, said, key)
		must(t, w.Cloud.FlipBit(whole(w), w.Root, key))
	}
	if d, _ = holdDrill(w, 0); !d.Passed {
		t.Errorf("mended, and not passed: %+v", d)
	}
	if _, err := os.Stat(sign); err == nil {
		t.Error("a drill ran the original's archive_command")
	}
	count := len(drillsOf(w))
	says(t, fails(w, 0, "drill", "--no-record", "--dir", w.Stage.Dir, "--bindir", w.Stage.BinDir()), "passed")
	says(t, fails(w, 2, "drill", "--bindir", w.Stage.Dir, "--dir", w.Stage.Dir), "hold the drill with the image")
	if n := len(drillsOf(w)); n != count {
		t.Errorf("%d results were recorded that nobody wanted", n-count)
	}
}

// shipped waits until the archive holds all WAL before a position.
func shipped(w *world.World, o *stage.Outrider, p *stage.Server, at string) {
	w.T.Helper()
	ctx := whole(w)
	must(w.T, stage.Until(ctx, "WAL to be shipped", func() (bool, error) {
		st, err := o.Status(ctx)
		return err == nil && reached(w, p, st.Durable, at), err
	}))
}

// reached asks the server whether a position is at or past another one.
func reached(w *world.World, p *stage.Server, position, at string) bool {
	w.T.Helper()
	if position == "" {
		return false
	}
	is, err := p.Ask(whole(w), "select ('"+position+"'::pg_lsn >= '"+at+"')::text")
	must(w.T, err)
	return is == "true"
}

// lastBelow is the last key below a place.
func lastBelow(t *testing.T, all map[string]string, place string) string {
	t.Helper()
	last := ""
	for key := range all {
		if strings.HasPrefix(key, place) && !strings.Contains(key, ".history") {
			last = max(last, key)
		}
	}
	if last == "" {
		t.Fatalf("there is nothing below %s", place)
	}
	return last
}

// A page that was damaged on the machine of the original is in the snapshot as it was. The drill finds it, although no
// query touches it.
func TestDrillFindsDamagedPage(t *testing.T) {
	w := play(t)
	p := w.Database("db")
	must(t, p.Exec(whole(w), "create table damaged as select generate_series(1, 1000) as n", "checkpoint"))
	path, err := p.Ask(whole(w), "select pg_relation_filepath('damaged')")
	must(t, err)
	w.StopServer(p, syscall.SIGINT)
	flipOnDisk(t, filepath.Join(p.Data, path))
	w.Start(p)
	o := w.Protect(p)
	d, said := holdDrill(w, 10)
	notPassed(w, d, said, "damaged", path+":0", d.Snapshot)
	if d.Pages.Verdict != "bad" || !slices.Equal(d.Pages.Bad, []string{path + ":0"}) {
		t.Errorf("pages: %+v", d.Pages)
	}
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
}

// flipOnDisk changes a bit of a row in the first page of a file.
func flipOnDisk(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	var b [1]byte
	_, err = f.ReadAt(b[:], 8000)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], 8000)
	must(t, err)
	must(t, f.Close())
}

// Without page checksums nobody knows whether pages are good, and nobody says so.
func TestDrillWithoutChecksums(t *testing.T) {
	w := play(t)
	p := w.Fresh("db")
	_, err := stage.Run(whole(w), w.Stage.Command(filepath.Join(w.Stage.BinDir(), "pg_checksums"), "--disable", "-D", p.Data))
	must(t, err)
	w.Start(p)
	o := w.Protect(p)
	d, said := holdDrill(w, 0)
	if !d.Passed || d.Pages.Verdict != "unknown" || d.Pages.Checked != 0 {
		t.Errorf("the result is %+v", d)
	}
	says(t, said, "unknown: the server keeps no page checksums")
	w.Terminate(o)

	// A sidecar that expects drills shows it.
	o = w.Protect(p, "--drill-max-age", "36h")
	var shown string
	w.Until("the drill to be shown", func(ctx context.Context) bool {
		shown, _ = w.Stage.Do(ctx, w.Cloud, w.Root, "status", "--listen", strings.TrimPrefix(o.URL, "http://"))
		return strings.Contains(shown, "last restore drill passed")
	})
	says(t, shown, d.LSN, "restore drill due")
	w.StopServer(p, syscall.SIGINT)
	w.Finish(o)
}
