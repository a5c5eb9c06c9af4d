package postgres

import (
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
)

func testTerminateClients(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE ROLE app LOGIN", "CREATE ROLE closer LOGIN", "GRANT pg_signal_backend, pg_monitor TO closer")
	waitUntilAlone(t, s)
	open := func(user string) *Conn { return connect(t, configFor(s, user)) }
	admin, app := open("postgres"), open("app")
	closer := open("closer")
	if n, err := closer.OtherClients(t.Context()); n < 2 || err != nil {
		t.Errorf("%d other sessions, %v, want those of postgres and app", n, err)
	}
	n, err := closer.TerminateClients(t.Context())
	wantError(t, err, IsPermission, "sessions of superusers need a superuser")
	if n != 1 {
		t.Errorf("%d sessions ended, want that of app", n)
	}
	if _, err := app.Position(t.Context()); !IsConnectionLost(err) {
		t.Errorf("the session of app lives: %v", err)
	}
	if _, err := admin.Position(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := admin.TerminateClients(t.Context()); err != nil || n < 1 {
		t.Errorf("%d sessions ended, %v", n, err) // perhaps that of waitUntilAlone too, which is about to end
	}
	if _, err := closer.Position(t.Context()); !IsConnectionLost(err) {
		t.Errorf("the session of closer lives: %v", err)
	}
}

// waitUntilAlone waits for the sessions of tests before: the server ends them some time after they were closed.
func waitUntilAlone(t *testing.T, s *pgtest.Server) {
	t.Helper()
	const others = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	for deadline := time.Now().Add(30 * time.Second); pgtest.Query[int](s, others) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("sessions of other tests stay open")
		}
	}
}

func testFence(t *testing.T, s *pgtest.Server) {
	ctx := t.Context()
	s.Exec("CREATE TABLE fenced (i int)")
	c := connect(t, configFor(s, "postgres"))
	writer := s.Conn()
	for range 2 {
		if err := c.FenceReadOnly(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := writer.Exec(ctx, "INSERT INTO fenced VALUES (1)"); err == nil {
		t.Error("a session from before the fence still writes")
	}
	_, err := s.Conn().Exec(ctx, "INSERT INTO fenced VALUES (1)")
	if err == nil || !strings.Contains(err.Error(), "25006") {
		t.Errorf("writing behind the fence: %v", err)
	}
	// The fenced server still takes our orders.
	if _, err := c.EnsureSlot(ctx, "fenced"); err != nil {
		t.Error(err)
	}
	if err := c.Unfence(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.waitForDefault(ctx, "off"); err != nil {
		t.Fatal(err)
	}
	s.Exec("INSERT INTO fenced VALUES (1)")
}

func TestFenceThatDoesNotHold(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Exec("ALTER ROLE postgres SET default_transaction_read_only = off")
	cfg := configFor(s, "postgres")
	cfg.Timeout = 500e6
	wantError(t, connect(t, cfg).FenceReadOnly(t.Context()), func(error) bool { return true }, "ALTER ROLE")
}

func testSettings(t *testing.T, s *pgtest.Server) {
	ctx := t.Context()
	c := connect(t, configFor(s, "postgres"))
	s.Exec("ALTER SYSTEM SET hot_standby = off", "ALTER SYSTEM SET recovery_target_action = promote",
		"ALTER SYSTEM SET work_mem = '3MB'")
	f := readFile(t, s.DataDir+"/postgresql.auto.conf")
	writeFile(t, s.DataDir+"/postgresql.auto.conf", f+"timescaledb.max_background_workers = '0'\n")
	got, err := c.Settings(ctx)
	if err != nil || got["hot_standby"] != "off" || got["timescaledb.max_background_workers"] != "0" || len(got) != 4 {
		t.Errorf("the settings are %v, %v", got, err)
	}
	err = c.ResetSettings(ctx, "hot_standby", "recovery_target_action", "timescaledb.max_background_workers", "recovery_target")
	if err != nil {
		t.Fatal(err)
	}
	got, err = c.Settings(ctx)
	if err != nil || len(got) != 1 || got["work_mem"] != "3MB" {
		t.Errorf("the settings are %v, %v", got, err)
	}
}

func testCatalog(t *testing.T, s *pgtest.Server) {
	s.Exec("CREATE DATABASE other TEMPLATE template0 LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'", "CREATE DATABASE closed")
	s.Exec("ALTER DATABASE closed ALLOW_CONNECTIONS false", "CREATE DATABASE forbidden", "REVOKE CONNECT ON DATABASE forbidden FROM public",
		"CREATE ROLE looker LOGIN")
	cat, err := connect(t, configFor(s, "postgres")).Catalog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, db := range []string{"postgres", "other", "template1"} {
		if cat.Extensions[db+"/plpgsql"] != "1.0" {
			t.Errorf("extensions %v", cat.Extensions)
		}
	}
	if _, ok := cat.Extensions["closed/plpgsql"]; ok {
		t.Errorf("extensions %v", cat.Extensions)
	}
	cat, err = connect(t, configFor(s, "looker")).Catalog(t.Context())
	wantError(t, err, IsPermission, "database forbidden")
	if cat.Extensions["other/plpgsql"] != "1.0" {
		t.Errorf("extensions %v", cat.Extensions)
	}
}
