package wal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/wal"
)

const mb = wal.SegmentSize(1 << 20)

// cluster is a server with small segments and checksums, and what the tests ask of it.
type cluster struct {
	*pgtest.Server
	t *testing.T
}

func startCluster(t *testing.T, major int) cluster {
	t.Helper()
	return cluster{t: t, Server: pgtest.Start(t, pgtest.Options{
		Major: major, InitdbArgs: []string{"-k", "--wal-segsize=1"},
		Settings: map[string]string{
			"wal_keep_size": "200MB", "max_wal_size": "500MB", "checkpoint_timeout": "1h", "autovacuum": "off",
			"max_prepared_transactions": "5", "track_commit_timestamp": "on", "restore_command": "false",
			"hot_standby": "off", // to be ready only once promoted
		},
	})}
}

func (c cluster) on(t *testing.T) cluster { return cluster{Server: c.For(t), t: t} }

func (c cluster) control() wal.Control {
	c.t.Helper()
	ctl, err := wal.ReadControl(c.DataDir)
	if err != nil {
		c.t.Fatal(err)
	}
	return ctl
}

func (c cluster) lsn(sql string) wal.LSN {
	c.t.Helper()
	return parseLSN(c.t, pgtest.Query[string](c.Server, "SELECT ("+sql+")::text"))
}

func (c cluster) source(timeline wal.Timeline, h wal.History) *wal.DirSource {
	s := wal.NewDirSource(filepath.Join(c.DataDir, "pg_wal"), mb, timeline, h)
	c.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			c.t.Error(err)
		}
	})
	return s
}

func (c cluster) options() wal.WalkOptions {
	ctl := c.control()
	return wal.WalkOptions{PageRules: wal.PageRules{
		SegmentSize: ctl.SegmentSize, MaxTimeline: ctl.CheckPointTimeline,
		SystemIdentifier: ctl.SystemIdentifier, Major: c.Major,
	}}
}

func parseLSN(t *testing.T, s string) wal.LSN {
	t.Helper()
	l, err := wal.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func forEachMajor(t *testing.T, test func(*testing.T, cluster)) {
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			test(t, startCluster(t, major))
		})
	}
}

// The parts build on each other: initdb takes longer than most of them.
func TestServer(t *testing.T) {
	forEachMajor(t, func(t *testing.T, c cluster) {
		t.Run("control", func(t *testing.T) { testControl(t, c.on(t)) })
		from := c.control().Redo
		writeAllKinds(c)
		t.Run("records", func(t *testing.T) { testRecords(t, c.on(t), from) })
		t.Run("pages", func(t *testing.T) { testPages(t, c.on(t), from) })
		t.Run("first record", func(t *testing.T) { testFirstRecord(t, c.on(t), from) })
		t.Run("commits", func(t *testing.T) { testCommits(t, c.on(t)) })
		t.Run("bookkeeping", func(t *testing.T) { testBookkeeping(t, c.on(t)) })
		t.Run("checksums", func(t *testing.T) { testChecksums(t, c.on(t)) })

		t.Run("clean", func(t *testing.T) { testCleanStops(t, c.on(t)) })
		t.Run("killed", func(t *testing.T) { testKilled(t, c.on(t)) })
		t.Run("overwritten", func(t *testing.T) { testOverwritten(t, c.on(t)) })
		t.Run("promoted", func(t *testing.T) { testPromoted(t, c.on(t)) })
	})
}

// writeAllKinds makes records that cross pages and segments, one that is longer than two segments, switches, prepared
// transactions and checkpoints.
func writeAllKinds(c cluster) {
	c.Exec(
		"CREATE TABLE big (id int PRIMARY KEY, v text)",
		"ALTER TABLE big ALTER v SET STORAGE external",
		"INSERT INTO big SELECT g, repeat(md5(g::text), 97 * g % 400) FROM generate_series(1, 400) g",
		"CREATE INDEX ON big USING gin (string_to_array(left(v, 100), 'a'))",
		"SELECT pg_switch_wal()",
		"SELECT pg_logical_emit_message(false, 'long', repeat('x', 2500000))",
		"CHECKPOINT",
		"UPDATE big SET id = -id",
		"BEGIN; INSERT INTO big VALUES (9000, 'two phases'); PREPARE TRANSACTION 'p'",
		"COMMIT PREPARED 'p'",
		"SELECT pg_switch_wal()",
		"BEGIN; DELETE FROM big; ROLLBACK",
		"INSERT INTO big SELECT g, 'small' FROM generate_series(10000, 10500) g",
	)
}

func testControl(t *testing.T, c cluster) {
	c.Exec("CHECKPOINT")
	got := c.control()
	want := pgtest.Query[string](c.Server, `SELECT concat_ws(' ', system_identifier, s.pg_control_version, catalog_version_no,
		checkpoint_lsn, redo_lsn, timeline_id, prev_timeline_id, extract(epoch FROM checkpoint_time)::bigint,
		extract(epoch FROM pg_control_last_modified)::bigint, min_recovery_end_lsn, min_recovery_end_timeline,
		backup_start_lsn, backup_end_lsn, end_of_backup_record_required, database_block_size,
		blocks_per_segment, wal_block_size, bytes_per_wal_segment, data_page_checksum_version)
		FROM pg_control_system() s, pg_control_checkpoint(), pg_control_recovery(), pg_control_init()`)
	letters := map[bool]string{true: "t", false: "f"}
	if s := sprint(got.SystemIdentifier, got.Version, got.CatalogVersion, got.CheckPoint, got.Redo,
		got.CheckPointTimeline, got.PrevTimeline, got.CheckPointTime.Unix(), got.Time.Unix(), got.MinRecoveryPoint,
		got.MinRecoveryPointTimeline, got.BackupStart, got.BackupEnd, letters[got.BackupEndRequired], got.BlockSize,
		got.RelSegSize, got.WALBlockSize, int64(got.SegmentSize), got.DataChecksumVersion); s != want {
		t.Errorf("pg_control is\n%s, the server says\n%s", s, want)
	}
	want = pgtest.Query[string](c.Server, `SELECT string_agg(setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN
		('max_connections', 'max_locks_per_transaction', 'max_prepared_transactions', 'max_wal_senders',
		'max_worker_processes', 'track_commit_timestamp', 'wal_level', 'wal_log_hints')`)
	onOff := map[bool]string{true: "on", false: "off"}
	if s := sprint(got.MaxConnections, got.MaxLocksPerXact, got.MaxPreparedXacts, got.MaxWALSenders,
		got.MaxWorkerProcesses, onOff[got.TrackCommitTimestamp], got.WALLevel, onOff[got.WALLogHints]); s != want {
		t.Errorf("settings in pg_control are %q, the server says %q", s, want)
	}
	if got.State != wal.StateInProduction {
		t.Errorf("state is %q", got.State)
	}
}

func sprint(values ...any) string { return strings.TrimSpace(fmt.Sprintln(values...)) }

// testPages checks all pages below the flush position. Those behind a switch are zeros, all of them.
func testPages(t *testing.T, c cluster, from wal.LSN) {
	limit := c.lsn("pg_current_wal_flush_lsn()")
	src, rules := c.source(1, nil), c.options().PageRules
	page := make([]byte, wal.PageSize)
	n, zeros := 0, 0
	afterSwitch := false
	for at := mb.Floor(from); at+wal.PageSize <= limit; at += wal.PageSize {
		if _, err := src.ReadWAL(page, at); err != nil {
			t.Fatal(err)
		}
		err := rules.Check(page, at)
		if errors.Is(err, wal.ErrZeroPage) {
			afterSwitch = true
			zeros++
		}
		afterSwitch = afterSwitch && mb.Offset(at) != 0
		if err != nil != afterSwitch {
			t.Fatalf("zeros before %v: %v", afterSwitch, err)
		}
		if err := rules.Check(page, at+wal.PageSize); !errors.Is(err, wal.ErrPage) {
			t.Errorf("the page at %s passes for the next: %v", at, err)
		}
		n++
	}
	if n < 400 || zeros < 10 || n-zeros < 300 {
		t.Fatalf("%d pages, %d of zeros", n, zeros)
	}
	rules.SystemIdentifier++
	if _, err := src.ReadWAL(page, mb.Floor(from)); err != nil {
		t.Fatal(err)
	}
	if err := rules.Check(page, mb.Floor(from)); !errors.Is(err, wal.ErrPage) {
		t.Errorf("another system's page passes: %v", err)
	}
}

// testFirstRecord finds from each page border the record that the walk over all finds there.
func testFirstRecord(t *testing.T, c cluster, from wal.LSN) {
	limit := c.lsn("pg_current_wal_flush_lsn()")
	opt := c.options()
	opt.Limit = limit
	var starts []wal.LSN
	for _, l := range walkAll(t, c, from, limit) {
		starts = append(starts, parseLSN(t, l.Start))
	}
	src := c.source(1, nil)
	last := starts[len(starts)-1]
	for at := mb.Ceil(from); at < last; at += 7*wal.PageSize + 8 {
		i, _ := slices.BinarySearch(starts, at)
		if got, err := wal.FirstRecord(src, at, opt); err != nil || got != starts[i] {
			t.Fatalf("the first record from %s on is at %s (%v), want %s", at, got, err, starts[i])
		}
	}
	if _, err := wal.FirstRecord(src, last+8, opt); !errors.As(err, new(*wal.EndError)) {
		t.Errorf("a record is found past the last: %v", err)
	}
}

func testCommits(t *testing.T, c cluster) {
	from := c.lsn("pg_current_wal_insert_lsn()")
	c.Exec("INSERT INTO big VALUES (-1000000, 'committed')")
	want := pgtest.Query[time.Time](c.Server, "SELECT timestamp FROM pg_last_committed_xact()")
	afterCommit := c.lsn("pg_current_wal_flush_lsn()")
	c.Exec("BEGIN; DELETE FROM big WHERE id = -1000000; ROLLBACK", "CHECKPOINT")
	to := c.lsn("pg_current_wal_flush_lsn()")
	at, when, err := wal.LastCommit(c.source(1, nil), from, to, c.options())
	if err != nil || !when.Equal(want) || at > afterCommit || at <= from {
		t.Errorf("the last commit is at %s, %v (%v), want %v", at, when, err, want)
	}
	aborts := 0
	for r, err := range wal.NewWalker(c.source(1, nil), from, c.options()).Records(to) {
		if err != nil {
			t.Fatal(err)
		}
		if when, ok := r.AbortTime(); ok && !when.Before(want) && time.Since(when) < time.Hour {
			aborts++
		}
	}
	if aborts != 1 {
		t.Errorf("%d aborts found", aborts)
	}
}

func testBookkeeping(t *testing.T, c cluster) {
	c.Exec("CHECKPOINT")
	from := c.lsn("pg_current_wal_insert_lsn()")
	c.Exec("CHECKPOINT", "SELECT pg_switch_wal()", "CHECKPOINT")
	idle := c.lsn("pg_current_wal_insert_lsn()")
	growing := wal.BookkeepingSince(from)
	if only, err := growing.Only(c.source(1, nil), idle, c.options()); err != nil || !only {
		t.Errorf("checkpoints are a change: %v, %v", only, err)
	}
	c.Exec("CHECKPOINT")
	later := c.lsn("pg_current_wal_insert_lsn()")
	recycled := wal.NewDirSource(t.TempDir(), c.control().SegmentSize, 1, nil)
	if only, err := growing.Only(recycled, idle, c.options()); err != nil || !only {
		t.Errorf("what was looked at is read again: %v, %v", only, err)
	}
	if only, err := growing.Only(recycled, later, c.options()); err == nil {
		t.Errorf("of WAL that is not there it is said that it is only bookkeeping: %v", only)
	}
	if only, err := growing.Only(c.source(1, nil), later, c.options()); err != nil || !only {
		t.Errorf("a further checkpoint is a change: %v, %v", only, err)
	}
	c.Exec("INSERT INTO big VALUES (-2000000, 'a change')", "CHECKPOINT")
	busy := c.lsn("pg_current_wal_flush_lsn()")
	for range 2 {
		if only, err := growing.Only(c.source(1, nil), busy, c.options()); err != nil || only {
			t.Errorf("an insert is no change: %v, %v", only, err)
		}
	}
	if only, err := wal.BookkeepingSince(from).Only(c.source(1, nil), busy, c.options()); err != nil || only {
		t.Errorf("from the beginning, an insert is no change: %v, %v", only, err)
	}
	if _, err := wal.BookkeepingSince(busy).Only(c.source(1, nil), busy+1<<20, c.options()); err == nil {
		t.Error("WAL that does not exist is only bookkeeping")
	}
}

func testChecksums(t *testing.T, c cluster) {
	c.Exec("CHECKPOINT")
	blocks := 0
	err := filepath.WalkDir(filepath.Join(c.DataDir, "base"), func(path string, d os.DirEntry, err error) error {
		name := filepath.Base(path)
		if err != nil || d.IsDir() || name[0] < '0' || name[0] > '9' {
			return err
		}
		b, err := os.ReadFile(path)
		for i := 0; (i+1)*8192 <= len(b); i++ {
			page := b[i*8192 : (i+1)*8192]
			if wal.PageIsNew(page) {
				continue
			}
			blocks++
			if got, want := wal.PageChecksum(page, uint32(i)), wal.StoredChecksum(page); got != want {
				t.Errorf("block %d of %s: checksum %d, stored %d", i, path, got, want)
			}
			if l := wal.PageLSN(page); l > c.control().CheckPoint {
				t.Errorf("block %d of %s: LSN %s", i, path, l)
			}
		}
		return err
	})
	if err != nil || blocks < 500 {
		t.Errorf("%d blocks were checked: %v", blocks, err)
	}
}

// readFlush tells the flush position over and over until the server is gone.
func readFlush(ctx context.Context, c cluster, seen chan<- wal.LSN) {
	defer close(seen)
	conn, err := c.Connect(ctx)
	for err == nil {
		var s string
		if err = conn.QueryRow(ctx, "SELECT pg_current_wal_flush_lsn()::text").Scan(&s); err == nil {
			l, _ := wal.ParseLSN(s)
			seen <- l
		}
	}
}
