package ledger_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/pgtest"
)

// load is a ledger that runs until stopped.
type load struct {
	*ledger.Ledger
	t       *testing.T
	journal string
	cancel  context.CancelFunc
	result  chan error
}

// start opens a ledger and lets it run. What the configuration leaves open is small and fast.
func start(t *testing.T, config ledger.Config) *load {
	t.Helper()
	journal := filepath.Join(t.TempDir(), "journal")
	l, err := ledger.Open(journal)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	run := &load{Ledger: l, t: t, journal: journal}
	run.resume(config)
	return run
}

func (l *load) resume(config ledger.Config) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.cancel, l.result = cancel, make(chan error, 1)
	if config.Rate == 0 {
		config.Rate = 500
	}
	go func() { l.result <- l.Run(ctx, config) }()
	l.t.Cleanup(cancel)
}

// stop ends the run and waits for it.
func (l *load) stop() {
	l.t.Helper()
	l.cancel()
	if err := <-l.result; err != nil {
		l.t.Fatalf("the run ended with: %v", err)
	}
}

// await waits until the statistics say so.
func (l *load) await(what string, done func(ledger.Stats) bool) {
	l.t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !done(l.Stats()) {
		select {
		case err := <-l.result:
			l.t.Fatalf("waiting for %s, the run ended with: %v", what, err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("waited in vain for %s: %+v", what, l.Stats())
		}
	}
}

func (l *load) awaitAcks(n int64) {
	l.t.Helper()
	from := l.Stats().Acknowledged
	l.await(fmt.Sprintf("%d commits", n), func(s ledger.Stats) bool { return s.Acknowledged >= from+n })
}

func (l *load) verify(s *pgtest.Server, o ledger.Options) ledger.Report {
	l.t.Helper()
	r, err := ledger.Verify(l.t.Context(), s.ConnString(""), l.journal, o)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *load) markKill() {
	l.t.Helper()
	if _, err := l.MarkKill(); err != nil {
		l.t.Fatal(err)
	}
}

func TestNothingIsLostWhenTheServerIsKilledUnderLoad(t *testing.T) {
	majors := pgtest.Majors(t)
	for _, major := range slices.Compact([]int{majors[0], majors[len(majors)-1]}) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := pgtest.Start(t, pgtest.Options{Major: major, Settings: map[string]string{"max_prepared_transactions": "10"}})
			l := start(t, ledger.Config{
				ConnString: s.ConnString(""), PreparedEvery: 5, PreparedHold: 20 * time.Millisecond,
				SynchronousCommit: []string{"on", "off", "local"},
			})
			for range 2 {
				l.awaitAcks(100)
				s.Kill()
				l.markKill()
				s.Start()
				l.awaitAcks(20) // it reconnects by itself
			}
			live := l.verify(s, ledger.Options{RPO: 0}) // while it runs
			l.stop()
			for when, r := range map[string]ledger.Report{"running": live, "stopped": l.verify(s, ledger.Options{RPO: 0})} {
				if err := r.Err(); err != nil || r.Lost != 0 {
					t.Errorf("%s, after crash recovery: %v\n%+v", when, err, r)
				}
				if r.Acknowledged < 100 || r.Async.Acknowledged == 0 || r.Prepared.Acknowledged == 0 {
					t.Errorf("%s: too little was tried: %+v", when, r)
				}
			}
			if r := l.verify(s, ledger.Options{}); r.Prepared.Pending != 0 {
				t.Errorf("%d prepared transactions were left behind", r.Prepared.Pending)
			}
		})
	}
}

func TestMissingRowsAreFound(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	l := start(t, ledger.Config{ConnString: s.ConnString("")})
	l.awaitAcks(100)
	l.stop()
	l.markKill()
	if r := l.verify(s, ledger.Options{RPO: 0}); r.Err() != nil {
		t.Fatalf("untouched: %v", r.Err())
	}

	s.Exec("DELETE FROM outrider_ledger.rows WHERE id > 90")
	r := l.verify(s, ledger.Options{RPO: 0})
	want := r.Acknowledged - 90
	if r.Lost != want || r.LostOlderThanRPO != want || r.Holes != 0 || r.Err() == nil {
		t.Errorf("the tail was deleted: %+v, %v", r, r.Err())
	}
	if r.OldestLostAge == nil || *r.OldestLostAge <= *r.NewestLostAge || *r.Losses[0].Age < *r.Losses[1].Age {
		t.Errorf("ages of the lost rows, oldest first: %+v", r.Losses)
	}
	if r := l.verify(s, ledger.Options{RPO: time.Hour}); r.Err() != nil || r.Lost != want {
		t.Errorf("a tail within the RPO is no violation: %v", r.Err())
	}

	s.Exec("DELETE FROM outrider_ledger.rows WHERE id = 7")
	if r := l.verify(s, ledger.Options{RPO: time.Hour}); r.Holes != 1 || r.Err() == nil {
		t.Errorf("a row in the middle was deleted: %d holes, %v", r.Holes, r.Err())
	}

	s.Exec("DROP SCHEMA outrider_ledger CASCADE")
	if r := l.verify(s, ledger.Options{}); r.Lost != r.Acknowledged || r.Acknowledged == 0 {
		t.Errorf("the table is gone: %d of %d lost", r.Lost, r.Acknowledged)
	}
}

func TestRowsThatShouldNotBeThereAreFound(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	l := start(t, ledger.Config{ConnString: s.ConnString("")})
	l.awaitAcks(20)
	l.stop()
	s.Exec(
		"ALTER TABLE outrider_ledger.rows DROP CONSTRAINT rows_pkey",
		"INSERT INTO outrider_ledger.rows SELECT ledger, id + 100000, connection, written_at, payload FROM outrider_ledger.rows WHERE id <= 2",
		"INSERT INTO outrider_ledger.rows SELECT * FROM outrider_ledger.rows WHERE id = 3",
		"INSERT INTO outrider_ledger.rows SELECT repeat('0', 32), id, connection, written_at, payload FROM outrider_ledger.rows WHERE id = 4",
		"UPDATE outrider_ledger.rows SET payload = overlay(payload placing 'xx' from 5) WHERE id = 5",
	)
	r := l.verify(s, ledger.Options{})
	if r.Foreign != 2 || r.Duplicates != 1 || r.OtherRows != 1 || r.Damaged != 1 || r.Lost != 0 {
		t.Errorf("foreign %d, duplicates %d, others %d, damaged %d, lost %d", r.Foreign, r.Duplicates, r.OtherRows, r.Damaged, r.Lost)
	}
	for _, complaint := range []string{"never announced", "more than once", "another content"} {
		if err := r.Err(); err == nil || !strings.Contains(err.Error(), complaint) {
			t.Errorf("the verdict does not say %q: %v", complaint, err)
		}
	}
}

// A standby that does not exist lets COMMIT reach the disk and never be answered.
func TestUnansweredCommitsCountNeitherWay(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	l := start(t, ledger.Config{ConnString: s.ConnString(""), Connections: 3})
	l.awaitAcks(20)
	s.Exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()")
	waitFor(t, s, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", 3)
	s.Kill()
	l.markKill()
	l.cancel()
	if err := <-l.result; err != nil {
		t.Fatal(err)
	}
	s.Start()
	r := l.verify(s, ledger.Options{RPO: 0})
	if r.InFlight.Present != 3 || r.InFlight.Absent != 0 || r.Lost != 0 || r.Err() != nil {
		t.Errorf("three commits were flushed and not answered: %+v, %v", r, r.Err())
	}
	s.Exec("ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()", "DELETE FROM outrider_ledger.rows WHERE id > 20")
	if r := l.verify(s, ledger.Options{RPO: time.Hour}); r.InFlight.Absent != 3 || r.Err() != nil {
		t.Errorf("the same three missing: %+v, %v", r.InFlight, r.Err())
	}
}

func TestPreparedTransactions(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{Settings: map[string]string{"max_prepared_transactions": "3"}})
	config := ledger.Config{ConnString: s.ConnString(""), Connections: 1, PreparedEvery: 1, PreparedHold: time.Hour}
	l := start(t, config)
	l.await("commits of prepared transactions", func(s ledger.Stats) bool { return s.Acknowledged >= 20 })
	waitFor(t, s, "SELECT count(*) FROM pg_prepared_xacts", 3)
	s.Kill()
	l.markKill()
	l.cancel()
	if err := <-l.result; err != nil {
		t.Fatal(err)
	}
	s.Start()

	r := l.verify(s, ledger.Options{RPO: 0})
	if r.Err() != nil || r.Prepared.Committed < 20 || r.Prepared.Pending < 2 {
		t.Fatalf("after crash recovery: %+v, %v", r.Prepared, r.Err())
	}
	pending := r.Prepared.Pending
	// The oldest may have been about to be committed, and the youngest may not be acknowledged.
	s.Exec("ROLLBACK PREPARED '" + oneString(t, s, "SELECT gid FROM pg_prepared_xacts ORDER BY prepared LIMIT 1 OFFSET 1") + "'")
	if r := l.verify(s, ledger.Options{RPO: 0}); r.Prepared.Lost != 1 || r.Lost != 1 || r.Err() == nil {
		t.Errorf("one was rolled back behind our back: %+v, %v", r.Prepared, r.Err())
	}
	s.Exec("COMMIT PREPARED '" + oneString(t, s, "SELECT gid FROM pg_prepared_xacts ORDER BY prepared DESC LIMIT 1") + "'")
	if r := l.verify(s, ledger.Options{}); r.Unasked != 1 {
		t.Errorf("one was committed behind our back: %d unasked", r.Unasked)
	}
	if n, err := l.Settle(t.Context(), s.ConnString("")); err != nil || n < pending-2 {
		t.Errorf("settling: %d, %v", n, err)
	}
	if r := l.verify(s, ledger.Options{}); r.Prepared.Pending != 0 || r.Prepared.Lost != 1 {
		t.Errorf("after settling: %+v", r.Prepared)
	}
}

func TestNoPreparedTransactionsWhereTheServerHasNone(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	l := start(t, ledger.Config{ConnString: s.ConnString(""), PreparedEvery: 1})
	l.awaitAcks(10)
	l.stop()
	if st := l.Stats(); st.Failed != 0 || st.Prepared != 0 {
		t.Errorf("%d failed, %d prepared", st.Failed, st.Prepared)
	}
}

func TestRunWaitsForAServerAndRefusesWhatAPersonMustChange(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	s.Stop(pgtest.Fast)
	l := start(t, ledger.Config{ConnString: s.ConnString("")})
	s.Start()
	l.awaitAcks(1)
	if st := l.Stats(); st.FirstAck.IsZero() || st.LastAck.Monotonic < st.FirstAck.Monotonic {
		t.Errorf("first acknowledgement at %v, last at %v", st.FirstAck, st.LastAck)
	}
	if err := l.Run(t.Context(), ledger.Config{ConnString: s.ConnString("")}); err == nil {
		t.Error("a second run of the same ledger began")
	}
	l.stop()
	for name, config := range map[string]ledger.Config{
		"no such database":  {ConnString: s.ConnString("nowhere")},
		"connection string": {ConnString: "host=' port=x"},
		"setting":           {ConnString: s.ConnString(""), SynchronousCommit: []string{"maybe"}},
		"connections":       {ConnString: s.ConnString(""), Connections: -1},
		"rate":              {ConnString: s.ConnString(""), Rate: -1},
		"payload":           {ConnString: s.ConnString(""), PayloadBytes: 1 << 40},
	} {
		if err := l.Run(t.Context(), config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := ledger.Verify(t.Context(), s.ConnString("nowhere"), l.journal, ledger.Options{}); err == nil {
		t.Error("a server that cannot be asked gave a verdict")
	}
}

func TestACommitThatRollsBackIsNoCommit(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{})
	l := start(t, ledger.Config{ConnString: s.ConnString(""), Connections: 1})
	l.awaitAcks(5)
	// A deferred trigger fails within COMMIT; nothing after it can be acknowledged.
	s.Exec(
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$`,
		`CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON outrider_ledger.rows DEFERRABLE INITIALLY DEFERRED
			FOR EACH ROW EXECUTE FUNCTION refuse()`,
	)
	failed := l.Stats().Failed
	l.await("refused commits", func(s ledger.Stats) bool { return s.Failed >= failed+3 })
	s.Exec("DROP TRIGGER refuse ON outrider_ledger.rows")
	l.awaitAcks(5)
	l.stop()
	r := l.verify(s, ledger.Options{RPO: 0})
	if r.Err() != nil || r.InFlight.Absent < 3 || r.InFlight.Present != 0 {
		t.Errorf("%v, %+v", r.Err(), r.InFlight)
	}
}

func waitFor(t *testing.T, s *pgtest.Server, count string, want int) {
	t.Helper()
	conn := s.Conn()
	deadline := time.Now().Add(60 * time.Second)
	for {
		var n int
		if err := conn.QueryRow(t.Context(), count).Scan(&n); err != nil {
			t.Fatalf("%s: %v", count, err)
		}
		if n >= want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %d, waited for %d", count, n, want)
		}
	}
}

func oneString(t *testing.T, s *pgtest.Server, query string) (v string) {
	t.Helper()
	if err := s.Conn().QueryRow(t.Context(), query).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}
