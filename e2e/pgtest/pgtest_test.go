package pgtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func TestServerOfEachMajor(t *testing.T) {
	for _, major := range Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := Start(t, Options{
				Major: major, InitdbArgs: []string{"--wal-segsize=1"},
				Settings: map[string]string{"application_name": "it's me"},
			})
			if v := Query[int](s, "SELECT current_setting('server_version_num')::int / 10000"); v != major {
				t.Errorf("server_version is %d, want %d", v, major)
			}
			if v := Query[string](s, "SHOW fsync"); v != "on" {
				t.Errorf("fsync is %s", v)
			}
			if v := Query[string](s, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'"); v != "it's me" {
				t.Errorf("the setting is %q", v)
			}
			s.Exec("CREATE TABLE kept (id int)", "INSERT INTO kept SELECT generate_series(1, 3)")
			for _, mode := range []StopMode{Smart, Fast, Immediate} {
				s.Stop(mode)
				if s.Running() || s.PID() != 0 {
					t.Fatalf("the server runs after stop %s", mode)
				}
				s.Start()
			}
			s.Kill()
			s.Start()
			if got := QueryAll[int](s, "SELECT id FROM kept ORDER BY id"); !slices.Equal(got, []int{1, 2, 3}) {
				t.Errorf("after a crash the rows are %v", got)
			}
		})
	}
}

func TestKillLeavesNoProcess(t *testing.T) {
	s := Start(t, Options{})
	conn := s.Conn()
	family := descendants(s.PID())
	if !slices.ContainsFunc(family, func(k kin) bool { return k.pid == int(conn.PgConn().PID()) }) {
		t.Fatalf("backend %d is not among the children %v", conn.PgConn().PID(), family)
	}
	s.Kill()
	for _, k := range family {
		if k.alive() {
			t.Errorf("process %d is alive", k.pid)
		}
	}
	if _, err := os.Stat(filepath.Join(s.DataDir, "postmaster.pid")); err != nil {
		t.Errorf("a killed server cleans nothing up, but: %v", err)
	}
}

func TestOpenCopiedDirectory(t *testing.T) {
	s := Start(t, Options{})
	s.Exec("CREATE TABLE copied AS SELECT 7 AS n")
	s.Stop(Fast)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(s.DataDir)); err != nil {
		t.Fatal(err)
	}
	c := Open(t, dir, Options{Settings: map[string]string{"work_mem": "1MB"}})
	if n := Query[int](c, "SELECT n FROM copied"); n != 7 {
		t.Errorf("n = %d", n)
	}
	if v := Query[string](c, "SHOW work_mem"); v != "1MB" {
		t.Errorf("work_mem = %s", v)
	}
}

func TestTryStartReportsAServerThatExits(t *testing.T) {
	s := Start(t, Options{Stopped: true, Settings: map[string]string{"shared_buffers": "nonsense"}})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.TryStart(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("a server with a bad setting started: %v", err)
	}
	if s.PID() != 0 {
		t.Error("the server counts as running")
	}
}

func TestMissingMajorFailsInCI(t *testing.T) {
	t.Setenv("CI", "true")
	t.Setenv(EnvDir, t.TempDir())
	rec := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Binaries(rec, 99)
	}()
	<-done
	if !rec.failed || rec.skipped {
		t.Errorf("failed %v, skipped %v", rec.failed, rec.skipped)
	}
}
