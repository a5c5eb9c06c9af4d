package postgres

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/wal"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, c *Conn) wal.LSN {
	t.Helper()
	p, err := c.Position(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p.Flush
}

func testSlotLife(t *testing.T, s *pgtest.Server) {
	ctx := t.Context()
	c := connect(t, configFor(s, "postgres"))
	if _, err := c.Slot(ctx, "outrider"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a slot that is not there: %v", err)
	}
	if _, err := c.AdvanceSlot(ctx, "outrider", 1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("advancing a slot that is not there: %v", err)
	}
	if err := c.DropSlot(ctx, "outrider"); err != nil {
		t.Errorf("dropping a slot that is not there: %v", err)
	}
	made, err := c.EnsureSlot(ctx, "outrider")
	if err != nil || made.RestartLSN == 0 || made.Status != "reserved" || made.Active {
		t.Fatalf("a new slot: %+v, %v", made, err)
	}
	again, err := c.EnsureSlot(ctx, "outrider")
	if err != nil || again != made {
		t.Errorf("the same slot: %+v, then %+v, %v", made, again, err)
	}
	unbounded := SlotLimits{WALLevel: "replica", MaxSlots: made.Limits.MaxSlots, MaxKeep: -1}
	if made.Limits != unbounded || made.Limits.MaxSlots < 1 {
		t.Errorf("a server as it comes bounds slots by %+v", made.Limits)
	}
	s.Exec("CREATE TABLE slot_life AS SELECT generate_series(1, 1000) AS i")
	to := flush(t, c)
	if now, err := c.AdvanceSlot(ctx, "outrider", to); err != nil || now.RestartLSN != to {
		t.Errorf("advanced to %s: %+v, %v", to, now, err)
	}
	if now, err := c.AdvanceSlot(ctx, "outrider", made.RestartLSN); err != nil || now.RestartLSN != to {
		t.Errorf("a slot that is further already, at %s: %+v, %v", to, now, err)
	}
	if now, err := c.AdvanceSlot(ctx, "outrider", to+1<<30); err != nil || now.RestartLSN > flush(t, c) {
		t.Errorf("advancing past the flushed WAL: %+v, %v", now, err)
	}
	s.Kill()
	s.Start()
	c = connect(t, configFor(s, "postgres"))
	if back, err := c.Slot(ctx, "outrider"); err != nil || back.RestartLSN != made.RestartLSN {
		t.Errorf("after a crash the slot is at %s, %v; it was made at %s", back.RestartLSN, err, made.RestartLSN)
	}
	if err := c.DropSlot(ctx, "outrider"); err != nil {
		t.Error(err)
	}
	if _, err := c.Slot(ctx, "outrider"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a dropped slot: %v", err)
	}
}

func TestSlotThatNeverKeptWALIsMadeAnew(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"wal_level": "logical"}})
	c := connect(t, configFor(s, "postgres"))
	s.Exec("SELECT pg_create_physical_replication_slot('outrider')")
	if slot, err := c.EnsureSlot(t.Context(), "outrider"); err != nil || slot.RestartLSN == 0 {
		t.Errorf("%+v, %v", slot, err)
	}
	s.Exec("SELECT pg_create_logical_replication_slot('taken', 'pgoutput')")
	_, err := c.EnsureSlot(t.Context(), "taken")
	wantError(t, err, func(error) bool { return true }, "logical slot of that name")
}

func testLostSlotIsReported(t *testing.T, s *pgtest.Server) {
	s.Exec("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()", "CREATE TABLE filler (i int)")
	defer s.Exec("ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")
	ctx := t.Context()
	c := connect(t, configFor(s, "postgres"))
	bounded, err := c.EnsureSlot(ctx, "outrider")
	if err != nil || bounded.Limits.MaxKeep != 1<<20 {
		t.Fatalf("a slot that may keep 1 MB: %+v, %v", bounded, err)
	}
	for range 8 {
		s.Exec("INSERT INTO filler VALUES (1)", "SELECT pg_switch_wal()", "CHECKPOINT")
	}
	slot, err := c.EnsureSlot(ctx, "outrider")
	if !errors.Is(err, ErrSlotLost) || !slot.Lost() || slot.RestartLSN != 0 {
		t.Errorf("a lost slot: %+v, %v", slot, err)
	}
	if _, err := c.AdvanceSlot(ctx, "outrider", flush(t, c)); !errors.Is(err, ErrSlotLost) {
		t.Errorf("advancing a lost slot: %v", err)
	}
	if err := c.DropSlot(ctx, "outrider"); err != nil {
		t.Error(err)
	}
	if slot, err := c.EnsureSlot(ctx, "outrider"); err != nil || slot.Lost() {
		t.Errorf("made anew: %+v, %v", slot, err)
	}
}

// 18 can invalidate slots that no walsender uses; advancing one to where it is counts as use.
func TestTouchingKeepsAnIdleSlot(t *testing.T) {
	var found bool
	for _, m := range pgtest.Majors(t) {
		found = found || m == 18
	}
	if !found {
		pgtest.Binaries(t, 18) // skips or fails
	}
	s := pgtest.Start(t, pgtest.Options{Major: 18, Settings: map[string]string{"idle_replication_slot_timeout": "1s"}})
	ctx := t.Context()
	c := connect(t, configFor(s, "postgres"))
	ours, err := c.EnsureSlot(ctx, "outrider")
	if err != nil {
		t.Fatal(err)
	}
	if got := ours.Limits.IdleTimeout; got != time.Second {
		t.Errorf("idle_replication_slot_timeout is 1s, and was read as %v", got)
	}
	s.Exec("SELECT pg_create_physical_replication_slot('twin', true)")
	for {
		now, err := c.AdvanceSlot(ctx, "outrider", 0)
		if err != nil {
			t.Fatal(err)
		}
		if now.RestartLSN != ours.RestartLSN {
			t.Fatalf("touching moved the slot from %s to %s", ours.RestartLSN, now.RestartLSN)
		}
		s.Exec("CHECKPOINT")
		twin, err := c.Slot(ctx, "twin")
		if err != nil {
			t.Fatal(err)
		}
		if twin.Lost() {
			if twin.Invalidation != "idle_timeout" {
				t.Errorf("the twin was invalidated by %q", twin.Invalidation)
			}
			break
		}
	}
	if kept, err := c.Slot(ctx, "outrider"); err != nil || kept.Lost() {
		t.Errorf("the touched slot: %+v, %v", kept, err)
	}
}

func TestSlotsThatCannotBeMade(t *testing.T) {
	for _, test := range []struct {
		settings map[string]string
		remedy   string
	}{
		{map[string]string{"wal_level": "minimal", "max_wal_senders": "0"}, "set wal_level=replica"},
		{map[string]string{"max_replication_slots": "0"}, "max_replication_slots to at least 1"},
		{map[string]string{"max_replication_slots": "1"}, "raise max_replication_slots"},
	} {
		s := pgtest.Start(t, pgtest.Options{Settings: test.settings})
		c := connect(t, configFor(s, "postgres"))
		if strings.HasPrefix(test.remedy, "raise") {
			s.Exec("SELECT pg_create_physical_replication_slot('other')")
		}
		_, err := c.EnsureSlot(t.Context(), "outrider")
		wantError(t, err, NeedsPerson, test.remedy)
		if test.settings["wal_level"] == "minimal" {
			_, err = BeginBackup(t.Context(), configFor(s, "postgres"), "x")
			wantError(t, err, func(error) bool { return true }, "set wal_level=replica")
		}
	}
}
