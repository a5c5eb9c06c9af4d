package restore

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// recovering is a restored directory whose WAL is laid only as far as a test says.
func recovering(t *testing.T, a *archive.Archive, req Request, opt Options) restored {
	t.Helper()
	plan, err := NewPlan(ctx(t), a, req)
	must(t, err)
	r := restored{t: t, a: a, plan: plan, dir: filepath.Join(t.TempDir(), "data")}
	opt.Dir = r.dir
	if opt.Patience == 0 {
		opt.Patience = 20 * time.Second
	}
	r.res, err = Restore(ctx(t), a, plan, opt)
	must(t, err)
	return r
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tryStart starts the server in the background.
func tryStart(t *testing.T, s *pgtest.Server) chan error {
	t.Helper()
	started := make(chan error, 1)
	go func() { started <- s.TryStart(context.WithoutCancel(t.Context())) }()
	return started
}

// asked waits until the server has asked for WAL that is not there.
func (r restored) asked(least wal.LSN) {
	r.t.Helper()
	s := spool{dir: filepath.Join(r.dir, ownDir, spoolName)}
	waitFor(r.t, "the server to ask for WAL", func() bool { return s.asked(segmentSize) >= least })
}

// A server that is stopped in the middle of recovery and started again with an empty spool waits; it neither promotes
// with rows missing nor lets anybody read what it has so far. When the spool is filled from where it stands it goes on.
func TestRecoveryIsInterrupted(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.insert(1)
	w.snapshot()
	w.insert(2)
	w.bulk(4)
	w.insert(3)
	w.bulk(4)
	last := w.insert(4)

	r := recovering(t, w.a, Request{}, Options{})
	res, err := Fill(t.Context(), w.a, FillOptions{Dir: r.dir, Enough: 3 * int64(segmentSize)})
	must(t, err)
	if res.Complete || res.Segments != 3 {
		t.Fatalf("Fill with enough at three segments: %+v", res)
	}
	s := pgtest.Open(t, r.dir, pgtest.Options{Settings: map[string]string{"fsync": "off"}, Stopped: true})
	started := tryStart(t, s)
	r.asked(r.plan.Legs[0].From + wal.LSN(3*segmentSize))
	conn, err := s.Connect(t.Context())
	if err == nil {
		must(t, conn.Close(t.Context()))
		t.Error("a client was let in during recovery")
	}
	if state, err := Inspect(r.dir); state != Recovering || err != nil {
		t.Errorf("the directory is %s (%v), want recovering", state, err)
	}
	// A waiting server can be stopped.
	s.Stop(pgtest.Fast)
	if err := <-started; err == nil {
		t.Fatal("the server came up without its WAL")
	}

	// Its pod is gone, and the spool with it.
	spoolDir := filepath.Join(r.dir, ownDir, spoolName)
	must(t, spool{dir: spoolDir}.wipe())
	if _, log := r.startFails(); !strings.Contains(log, "exit code 200") {
		t.Errorf("without a spool the server did not stop because of it:\n%s", log)
	}

	started = tryStart(t, s)
	fill := r.fill()
	if !fill.Complete {
		t.Errorf("the second Fill: %+v", fill)
	}
	must(t, <-started)
	wantRows(t, s, 1, 2, 3, 4)
	h, _ := readHistory(t, r.dir, 2)
	if h[0].LSN < last.lsn {
		t.Errorf("recovery ended at %s, before the last commit at %s", h[0].LSN, last.lsn)
	}
	if res, err := Fill(t.Context(), w.a, FillOptions{Dir: r.dir}); !res.Promoted || err != nil {
		t.Errorf("Fill after the promotion: %+v, %v", res, err)
	}
	if state, err := Inspect(r.dir); state != Data || err != nil {
		t.Errorf("the directory is %s (%v), want data", state, err)
	}
	must(t, Finish(r.dir))
	if _, err := os.Stat(filepath.Join(r.dir, ownDir)); err == nil {
		t.Error("Finish left something behind")
	}
	for _, name := range RecoverySettings() {
		s.Exec("ALTER SYSTEM RESET " + name)
	}
	s.Restart()
	if on := pgtest.Query[string](s, "SHOW hot_standby"); on != "on" {
		t.Errorf("after the reset hot_standby is %s", on)
	}
	wantRows(t, s, 1, 2, 3, 4)
}

// With a bound on the disk the spool never holds much more than that, and recovery gets through all the same. What has
// gone was not needed any more: the server restarts in the middle and finds all it asks for.
func TestSpoolIsBounded(t *testing.T) {
	w := startWriter(t, 0, map[string]string{"max_wal_size": "32MB", "checkpoint_timeout": "30s"})
	w.insert(1)
	w.snapshot()
	w.bulk(12)
	w.db.Exec("CHECKPOINT") // where the server can make a restartpoint
	w.bulk(12)
	w.insert(2)
	r := recovering(t, w.a, Request{}, Options{})
	const ahead = 3
	s := spool{dir: filepath.Join(r.dir, ownDir, spoolName)}
	filled := make(chan FillResult, 1)
	go func() {
		res, err := Fill(ctx(t), w.a, FillOptions{Dir: r.dir, Ahead: ahead * int64(segmentSize)})
		if err != nil {
			t.Errorf("filling: %v", err)
		}
		filled <- res
	}()
	waitFor(t, "the first segments", func() bool { return segmentsIn(t, s) >= ahead })
	time.Sleep(300 * time.Millisecond)
	if n := segmentsIn(t, s); n > ahead+1 {
		t.Errorf("%d segments lie ahead of a server that has asked for none, want at most %d", n, ahead+1)
	}
	server := r.start()
	wantRows(t, server, 1, 2)
	if res := <-filled; !res.Complete && !res.Promoted {
		t.Errorf("Fill: %+v", res)
	}
}

func segmentsIn(t *testing.T, s spool) (n int) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
	must(t, err)
	for _, e := range entries {
		if wal.IsSegmentName(e.Name()) {
			n++
		}
	}
	return n
}

// Settings that an earlier restore to a point has left travel in the snapshot; a smaller max_connections comes from the
// new pod's arguments.
func TestSettingsOfAnotherTime(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.db.Exec("ALTER SYSTEM SET recovery_target_time = '2020-01-01 00:00:00+00'", "ALTER SYSTEM SET restore_command = 'false'",
		"ALTER SYSTEM SET recovery_target_action = 'shutdown'")
	w.insert(1)
	w.snapshot()
	two := w.insert(2)
	w.insert(3)
	for _, c := range []struct {
		target Target
		rows   []int32
		jobs   bool
	}{{Target{}, []int32{1, 2, 3}, false}, {Target{LSN: two.lsn}, []int32{1, 2}, true}, {Target{Time: two.at}, []int32{1, 2}, true}} {
		r := restoreTo(t, w.a, Request{Target: c.target})
		s := pgtest.Open(t, r.dir, pgtest.Options{Settings: map[string]string{"max_connections": "10", "fsync": "off"}})
		wantRows(t, s, c.rows...)
		off := pgtest.Query[string](s, "SELECT coalesce(current_setting('timescaledb.max_background_workers', true), '')")
		// The manifest says that there is no TimescaleDB: its setting would only puzzle.
		if off != "" {
			t.Errorf("to %s: timescaledb.max_background_workers is %q", c.target, off)
		}
		if r.plan.JobsOff != c.jobs {
			t.Errorf("to %s: jobs off %v, want %v", c.target, r.plan.JobsOff, c.jobs)
		}
		s.Stop(pgtest.Fast)
	}
}

func TestJobsStayOff(t *testing.T) {
	for name, c := range map[string]struct {
		plan Plan
		want bool
	}{
		"latest":             {Plan{Snapshot: Snapshot{Versions: Versions{Catalog: 1, Preload: "timescaledb"}}}, false},
		"past, preloaded":    {Plan{JobsOff: true, Snapshot: Snapshot{Versions: Versions{Catalog: 1, Preload: "x, timescaledb"}}}, true},
		"past, extension":    {Plan{JobsOff: true, Snapshot: Snapshot{Versions: Versions{Catalog: 1, Extensions: map[string]string{"db/timescaledb": "2"}}}}, true},
		"past, not recorded": {Plan{JobsOff: true}, true},
		"past, without it":   {Plan{JobsOff: true, Snapshot: Snapshot{Versions: Versions{Catalog: 1}}}, false},
	} {
		got := false
		for _, s := range settings(c.plan, "") {
			got = got || s.name == JobsSetting && s.value == "0"
		}
		if got != c.want {
			t.Errorf("%s: jobs off %v, want %v", name, got, c.want)
		}
	}
}

// A user's own archiving gets nothing that a restore has laid down.
func TestUsersOwnArchiving(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.insert(1)
	w.snapshot()
	w.bulk(3)
	w.insert(2)
	r := restoreTo(t, w.a, Request{})
	log := filepath.Join(t.TempDir(), "archived")
	must(t, os.WriteFile(log, nil, 0o666))
	must(t, os.Chmod(log, 0o666))
	must(t, os.Chmod(filepath.Dir(log), 0o755))
	s := pgtest.Open(t, r.dir, pgtest.Options{Settings: map[string]string{
		"archive_mode": "on", "archive_command": "echo %f >>" + log, "fsync": "off",
	}})
	wantRows(t, s, 1, 2)
	s.Exec("SELECT pg_switch_wal()")
	waitFor(t, "the server to archive", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b), "00000002") && strings.Count(string(b), "\n") >= 2
	})
	b, err := os.ReadFile(log)
	must(t, err)
	for name := range strings.FieldsSeq(string(b)) {
		seg, err := wal.ParseSegment(name, segmentSize)
		if err == nil && seg.Timeline == 1 {
			t.Errorf("the server archived %s, which came from the archive", name)
		}
	}
}
