package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/pgtest"
)

// eachMajor runs a test against every major that is installed.
func eachMajor(t *testing.T, settings map[string]string, test func(*testing.T, *pgtest.Server)) {
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			test(t, pgtest.Start(t, pgtest.Options{
				Major: major, Settings: settings, InitdbArgs: []string{"--wal-segsize=1", "-k"},
			}))
		})
	}
}

// One server of each major serves all tests that need no settings of their own: making servers is what takes long.
func TestEachMajor(t *testing.T) {
	settings := map[string]string{"archive_mode": "on", "archive_command": "false", "fsync": "off"}
	eachMajor(t, settings, func(t *testing.T, s *pgtest.Server) {
		for _, test := range []struct {
			name string
			run  func(*testing.T, *pgtest.Server)
		}{
			{"server and position", testServerAndPosition},
			{"smallest role ships", testSmallestRoleShips},
			{"missing rights name their grant", testMissingRightsNameTheirGrant},
			{"checkpoint with each right", testCheckpointWithEachRight},
			{"fit", testFit},
			{"catalog", testCatalog},
			{"settings", testSettings},
			{"terminate clients", testTerminateClients},
			{"fence", testFence},
			{"slot life", testSlotLife},
			{"lost slot is reported", testLostSlotIsReported},
			{"session outlives the server's timeouts", testSessionOutlivesTheServersTimeouts},
			{"one backup at a time", testOneBackupAtATime},
			{"promotion is followed", testPromotionIsFollowed},
		} {
			t.Run(test.name, func(t *testing.T) { test.run(t, s.For(t)) })
		}
	})
}

func configFor(s *pgtest.Server, user string) Config {
	return Config{ConnString: fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable", s.SocketDir, s.Port, user)}
}

func connect(t *testing.T, cfg Config) *Conn {
	t.Helper()
	c, err := Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// wantError fails unless err matches the predicate and its words name the remedy.
func wantError(t *testing.T, err error, is func(error) bool, remedy string) {
	t.Helper()
	if err == nil || !is(err) || !strings.Contains(err.Error(), remedy) {
		t.Errorf("error %v: expected one of the right kind that says %q", err, remedy)
	}
}

func testServerAndPosition(t *testing.T, s *pgtest.Server) {
	c := connect(t, configFor(s, "postgres"))
	got, err := c.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Major() != s.Major || got.Timeline != 1 || got.InRecovery || got.SegmentSize != 1<<20 ||
		got.BlockSize != 8192 || got.RelSegSize != 131072 || got.DataDirectory != s.DataDir || !got.DataChecksums ||
		got.FSync || got.WALLevel != "replica" || got.ArchiveMode != "on" || got.MaxReplicationSlots != 10 ||
		!got.SuperUser || got.User != "postgres" || !got.HotStandby || got.CatalogVersion == 0 {
		t.Errorf("the server is %+v", got)
	}
	want := pgtest.Query[string](s, "SELECT system_identifier::text FROM pg_control_system()")
	if fmt.Sprint(got.SystemIdentifier) != want {
		t.Errorf("system identifier %d, want %s", got.SystemIdentifier, want)
	}
	before, err := c.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("CREATE TABLE position AS SELECT generate_series(1, 1000) AS i")
	after, err := c.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Timeline != 1 || after.Flush <= before.Flush || after.Insert < after.Flush {
		t.Errorf("position %+v, after a commit %+v", before, after)
	}
}

func testSmallestRoleShips(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE ROLE shipper LOGIN REPLICATION", "GRANT pg_monitor TO shipper")
	c := connect(t, configFor(s, "shipper"))
	srv, err := c.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if srv.SuperUser || srv.DataDirectory != s.DataDir {
		t.Errorf("the server is %+v", srv)
	}
	if _, err := c.EnsureSlot(t.Context(), "outrider"); err != nil {
		t.Fatal(err)
	}
	p, err := c.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AdvanceSlot(t.Context(), "outrider", p.Flush); err != nil {
		t.Error(err)
	}
	if err := c.DropSlot(t.Context(), "outrider"); err != nil {
		t.Error(err)
	}
}

func testMissingRightsNameTheirGrant(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE ROLE nobody LOGIN")
	ctx := t.Context()
	c := connect(t, configFor(s, "nobody"))
	_, err := c.Server(ctx)
	wantError(t, err, IsPermission, `GRANT pg_monitor TO "nobody"`)
	_, err = c.EnsureSlot(ctx, "outrider")
	wantError(t, err, IsPermission, `ALTER ROLE "nobody" REPLICATION`)
	backup, start := "GRANT EXECUTE ON FUNCTION pg_backup_start(text, boolean)", `GRANT pg_checkpoint TO "nobody"`
	if s.Major < 15 {
		backup = "GRANT EXECUTE ON FUNCTION pg_start_backup(text, boolean, boolean)"
		start = backup
	}
	wantError(t, c.Checkpoint(ctx), IsPermission, start)
	_, err = BeginBackup(ctx, configFor(s, "nobody"), "test")
	wantError(t, err, IsPermission, backup)
	_, err = c.TerminateClients(ctx)
	if err != nil {
		wantError(t, err, func(error) bool { return true }, "GRANT pg_monitor")
	} else {
		t.Error("a role that cannot see sessions believes that it ended them")
	}
	wantError(t, c.FenceReadOnly(ctx), IsPermission, "ALTER SYSTEM")
	wantError(t, c.ResetSettings(ctx, "hot_standby"), IsPermission, "ALTER SYSTEM")
	_, err = c.Settings(ctx)
	wantError(t, err, IsPermission, "GRANT SELECT ON pg_file_settings")
	if !c.Alive() {
		t.Error("refusals ended the session")
	}
}

func testCheckpointWithEachRight(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE ROLE saver LOGIN", "CREATE ROLE copier LOGIN")
	functions := "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
	if s.Major >= 15 {
		s.Exec("GRANT pg_checkpoint TO saver")
	} else {
		functions = "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
	}
	s.Exec("GRANT EXECUTE ON FUNCTION " + functions + " TO copier")
	for _, user := range []string{"postgres", "saver", "copier"} {
		if user == "saver" && s.Major < 15 {
			continue
		}
		s.Exec("CREATE TABLE IF NOT EXISTS dirty AS SELECT 1", "INSERT INTO dirty VALUES (1)")
		before := pgtest.Query[string](s, "SELECT checkpoint_lsn::text FROM pg_control_checkpoint()")
		if err := connect(t, configFor(s, user)).Checkpoint(t.Context()); err != nil {
			t.Errorf("%s: %v", user, err)
		}
		if after := pgtest.Query[string](s, "SELECT checkpoint_lsn::text FROM pg_control_checkpoint()"); after == before {
			t.Errorf("%s: no checkpoint since %s", user, before)
		}
	}
}

func testPromotionIsFollowed(t *testing.T, s *pgtest.Server) {
	s.Stop(pgtest.Fast)
	writeFile(t, s.DataDir+"/standby.signal", "")
	s.Start()
	c := connect(t, configFor(s, "postgres"))
	srv, err := c.Server(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !srv.InRecovery || srv.Timeline != 0 {
		t.Errorf("a standby is %+v", srv)
	}
	if _, err := c.Position(t.Context()); !errors.Is(err, ErrInRecovery) {
		t.Errorf("position of a standby: %v", err)
	}
	if _, err := BeginBackup(t.Context(), configFor(s, "postgres"), "x"); !errors.Is(err, ErrInRecovery) {
		t.Errorf("backup of a standby: %v", err)
	}
	if _, err := c.EnsureSlot(t.Context(), "outrider"); err != nil {
		t.Errorf("slot on a standby: %v", err)
	}
	if !pgtest.Query[bool](s, "SELECT pg_promote()") {
		t.Fatal("not promoted")
	}
	p, err := c.Position(t.Context())
	if err != nil || p.Timeline != 2 {
		t.Errorf("after a promotion %+v, %v", p, err)
	}
	if srv, err = c.Server(t.Context()); err != nil || srv.Timeline != 2 {
		t.Errorf("after a promotion %+v, %v", srv, err)
	}
}

func TestCancelledQuestionKeepsTheSession(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec("SELECT pg_create_physical_replication_slot('held', true)")
	c := connect(t, configFor(s, "postgres"))
	// A lock on the catalog makes a question hang that otherwise never does.
	locker := s.Conn()
	tx, err := locker.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK pg_database IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Catalog(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a question that hangs: %v", err)
	}
	if !c.Alive() {
		t.Error("the session is gone")
	}
	if _, err := c.Position(t.Context()); err != nil {
		t.Error(err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The status page asks whether the session lives while the loop uses it; the race detector watches.
func TestAliveWhileTheSessionIsUsed(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	c := connect(t, configFor(s, "postgres"))
	done := make(chan error)
	go func() {
		var err error
		for range 100 {
			if _, perr := c.Position(t.Context()); perr != nil {
				err = perr
			}
		}
		done <- err
	}()
	for {
		if !c.Alive() {
			t.Error("the session is gone")
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			return
		default:
		}
	}
}

func TestCloseInterruptsAndLossIsSeen(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	c := connect(t, configFor(s, "postgres"))
	c.Close()
	c.Close()
	if _, err := c.Position(t.Context()); !IsConnectionLost(err) || c.Alive() {
		t.Errorf("after Close: %v", err)
	}
	c = connect(t, configFor(s, "postgres"))
	s.Stop(pgtest.Fast)
	_, err := c.Position(t.Context())
	if !IsConnectionLost(err) || c.Alive() {
		t.Errorf("after a fast shutdown: %v", err)
	}
	s.Start()
	c = connect(t, configFor(s, "postgres"))
	s.Kill()
	if _, err := c.Position(t.Context()); !IsConnectionLost(err) || IsShuttingDown(err) {
		t.Errorf("after a crash: %v", err)
	}
}

func testSessionOutlivesTheServersTimeouts(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE ROLE timed LOGIN SUPERUSER")
	for _, name := range []string{"idle_session_timeout", "idle_in_transaction_session_timeout", "statement_timeout", "lock_timeout"} {
		s.Exec("ALTER ROLE timed SET " + name + " = '300ms'")
	}
	cfg := configFor(s, "timed")
	c := connect(t, cfg)
	b, err := BeginBackup(t.Context(), cfg, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Abort()
	// Another session that is as idle as ours shows when the timeout has passed.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	idle, err := pgx.Connect(ctx, cfg.ConnString)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := idle.WaitForNotification(ctx); err == nil || ctx.Err() != nil {
		t.Fatalf("the idle session was not ended: %v", err)
	}
	if _, err := c.Position(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := b.InsertLSN(t.Context()); err != nil {
		t.Error(err)
	}
	end, err := b.Stop(ctx)
	if err != nil {
		t.Fatal(err) // also if it waits for an archive_command that never works
	}
	if end.Stop <= b.Start().LSN || b.Start().Timeline != 1 || !strings.Contains(end.Label, "START WAL LOCATION: "+b.Start().LSN.String()) {
		t.Errorf("backup from %v: %+v", b.Start(), end)
	}
}

func testOneBackupAtATime(t *testing.T, s *pgtest.Server) {
	cfg := configFor(s, "postgres")
	b, err := BeginBackup(t.Context(), cfg, "one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := BeginBackup(t.Context(), cfg, "two"); !errors.Is(err, ErrBackupRunning) {
		t.Errorf("a second backup: %v", err)
	}
	b.Abort()
	b.Abort()
	if b, err = BeginBackup(t.Context(), cfg, "three"); err != nil {
		t.Fatalf("after an abort: %v", err)
	}
	s.Stop(pgtest.Fast)
	if _, err := b.Stop(t.Context()); !IsConnectionLost(err) {
		t.Errorf("the server stopped during the backup: %v", err)
	}
	s.Start()
}

func TestUnreachableServers(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	cfg := configFor(s, "postgres")
	_, err := Connect(t.Context(), configFor(s, "stranger"))
	wantError(t, err, IsPermission, `"stranger"`)
	nowhere := cfg
	nowhere.ConnString += " dbname=nowhere"
	_, err = Connect(t.Context(), nowhere)
	wantError(t, err, func(err error) bool { return codeOf(err) == codeNoSuchDatabase }, "PGDATABASE")
	if _, err = Connect(t.Context(), Config{ConnString: "port=many password=hush"}); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("a bad connection string: %v", err)
	}
}
