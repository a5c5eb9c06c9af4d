package basebackup

import (
	"archive/tar"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// server is what a test's PostgreSQL says to a Taker.
type server struct {
	s *pgtest.Server
}

func (v server) Facts(ctx context.Context) (Facts, error) {
	var f Facts
	conn, err := v.s.Connect(ctx)
	if err != nil {
		return f, err
	}
	defer conn.Close(ctx)
	var system string
	var segment int64
	err = conn.QueryRow(ctx, `SELECT system_identifier::text, catalog_version_no::bigint, bytes_per_wal_segment::bigint,
		database_block_size, blocks_per_segment::bigint, data_page_checksum_version > 0,
		current_setting('server_version_num')::int, current_setting('data_directory'), 'timescaledb'
		FROM pg_control_system(), pg_control_init()`).Scan(&system, &f.CatalogVersion, &segment, &f.BlockSize, &f.RelSegSize,
		&f.DataChecksums, &f.VersionNum, &f.DataDirectory, &f.Preload)
	if err != nil {
		return f, err
	}
	f.SegmentSize = wal.SegmentSize(segment)
	f.Extensions = map[string]string{"postgres/plpgsql": "1.0"}
	f.Collations = map[string]string{"postgres": "2.36"}
	rows, err := conn.Query(ctx, "SELECT oid, xmin::text FROM pg_database")
	if err != nil {
		return f, err
	}
	f.Databases = map[uint32]string{}
	var oid uint32
	var xmin string
	if _, err = pgx.ForEachRow(rows, []any{&oid, &xmin}, func() error { f.Databases[oid] = xmin; return nil }); err != nil {
		return f, err
	}
	_, err = fmt.Sscan(system, &f.SystemIdentifier)
	return f, err
}

var errBackupRunning = errors.New("another backup is under way")

const backupLock = 17

func (v server) Begin(ctx context.Context, label string) (Session, error) {
	conn, err := v.s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	b := &session{conn: conn, major: v.s.Major}
	var locked bool
	var at, file string
	start := "SELECT x::text, pg_walfile_name(x) FROM pg_backup_start($1, true) x"
	if b.major < 15 {
		start = "SELECT x::text, pg_walfile_name(x) FROM pg_start_backup($1, true, false) x"
	}
	if err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", backupLock).Scan(&locked); err == nil && !locked {
		err = errBackupRunning
	}
	if err == nil {
		err = conn.QueryRow(ctx, start, label).Scan(&at, &file)
	}
	if err == nil {
		b.start.LSN, err = wal.ParseLSN(at)
	}
	if err != nil {
		b.Abort()
		return nil, err
	}
	digits, err := hex.DecodeString(file[:8])
	for _, d := range digits {
		b.start.Timeline = b.start.Timeline<<8 | wal.Timeline(d)
	}
	return b, err
}

type session struct {
	conn  *pgx.Conn
	major int
	start wal.Position
}

func (b *session) Start() wal.Position { return b.start }

func (b *session) InsertLSN(ctx context.Context) (wal.LSN, error) {
	var at string
	if err := b.conn.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
		return 0, err
	}
	return wal.ParseLSN(at)
}

func (b *session) Stop(ctx context.Context) (End, error) {
	defer b.Abort()
	var end End
	var at string
	stop := "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)"
	if b.major < 15 {
		stop = "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)"
	}
	err := b.conn.QueryRow(ctx, stop).Scan(&at, &end.Label, &end.TablespaceMap)
	if err == nil {
		end.Stop, err = wal.ParseLSN(at)
	}
	return end, err
}

func (b *session) Abort() {
	if !b.conn.IsClosed() {
		// The server ends a session some time after it was closed; the next attempt is not to meet its lock.
		_, _ = b.conn.Exec(context.Background(), "SELECT pg_advisory_unlock($1)", backupLock)
	}
	_ = b.conn.Close(context.Background())
}

// durable answers at once, and remembers what for.
type durable struct {
	mu sync.Mutex
	at wal.Position
}

func (d *durable) WaitDurable(ctx context.Context, p wal.Position) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = p
	return ctx.Err()
}

// world is a server and an archive to copy it into.
type world struct {
	*pgtest.Server
	bucket  *archivetest.Bucket
	archive *archive.Archive
	durable *durable
	log     *logBook
}

func newWorld(t *testing.T, s *pgtest.Server) *world {
	b := archivetest.Memory()
	return &world{Server: s, bucket: b, archive: archive.New(b), durable: &durable{}, log: &logBook{t: t}}
}

func (w *world) config() Config {
	return Config{
		PGDATA: w.DataDir, Epoch: 7, Instance: "pod-uid", Hostname: "db-0", Server: server{w.Server},
		Archive: w.archive, Lists: w.archive, WAL: w.durable, Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
}

func (w *world) take(t *testing.T) archive.Manifest {
	t.Helper()
	m, err := New(w.config()).Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// members reads all parts of a snapshot as its manifest lists them.
func (w *world) members(t *testing.T, m archive.Manifest) map[string]file {
	t.Helper()
	all := map[string]file{}
	for _, p := range m.Parts {
		r, err := w.archive.OpenPart(t.Context(), m.Name, p)
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range untar(t, r) {
			if _, twice := all[name]; twice {
				t.Errorf("%s is in two parts", name)
			}
			all[name] = f
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	return all
}

// logBook passes a log on to the test and keeps it.
type logBook struct {
	t  *testing.T
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// unpack lays a snapshot down as a plain tar would. places tells where tablespaces go that are links.
func unpack(t *testing.T, dir string, members map[string]file, places map[string]string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(os.MkdirAll(filepath.Join(dir, "pg_tblspc"), 0o700))
	for oid, place := range places {
		check(os.MkdirAll(place, 0o700))
		check(os.Symlink(place, filepath.Join(dir, "pg_tblspc", oid)))
	}
	for name, f := range members {
		path := filepath.Join(dir, name)
		if f.header.Typeflag == tar.TypeDir {
			check(os.MkdirAll(path, 0o700))
			continue
		}
		if f.header.Typeflag != tar.TypeReg {
			t.Fatalf("%s is a member of type %c", name, f.header.Typeflag)
		}
		check(os.MkdirAll(filepath.Dir(path), 0o700))
		check(os.WriteFile(path, f.content, os.FileMode(f.header.Mode)))
	}
}

// recover starts a server on an unpacked snapshot, with WAL from a directory.
func recoverFrom(t *testing.T, dir, walDir string, major int) *pgtest.Server {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "recovery.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return pgtest.Open(t, dir, pgtest.Options{Major: major, Settings: map[string]string{
		"restore_command": fmt.Sprintf("cp %s/%%f %%p", walDir), "archive_mode": "off", "hot_standby": "off",
	}})
}

// saveWAL copies the finished WAL of a server that is about to be thrown away to where another can read it.
func saveWAL(t *testing.T, s *pgtest.Server) string {
	t.Helper()
	s.Exec("SELECT pg_switch_wal()")
	dir := publicDir(t)
	names, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", "0*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("WAL files %v, %v", names, err)
	}
	for _, name := range names {
		from, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		to, err := os.OpenFile(filepath.Join(dir, filepath.Base(name)), os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(to, from)
		if err := errors.Join(err, from.Close(), to.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load writes to the server until stop is called, which returns how many transactions were committed.
func load(t *testing.T, s *pgtest.Server, workers int) (stop func() int64) {
	t.Helper()
	s.Exec(`CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL, filler text) WITH (fillfactor = 70)`,
		`CREATE TABLE ledger (id bigserial PRIMARY KEY, a int, b int, amount int, note text)`,
		`INSERT INTO accounts SELECT i, 1000, repeat('x', 200) FROM generate_series(1, 2000) i`)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var n atomic.Int64
	for i := range workers {
		conn, err := s.Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer conn.Close(context.Background())
			for k := 0; ctx.Err() == nil; k++ {
				a, b := (k*7+i)%2000+1, (k*13+i*31)%2000+1
				_, err := conn.Exec(context.Background(), fmt.Sprintf(`BEGIN;
					UPDATE accounts SET balance = balance - 5 WHERE id = %d; UPDATE accounts SET balance = balance + 5 WHERE id = %d;
					INSERT INTO ledger (a, b, amount, note) VALUES (%d, %d, 5, repeat('n', 300));
					COMMIT`, min(a, b), max(a, b), a, b))
				var pe interface{ SQLState() string }
				if errors.As(err, &pe) && pe.SQLState() == "40P01" {
					_, err = conn.Exec(context.Background(), "ROLLBACK")
				}
				if err != nil {
					t.Errorf("the load stopped: %v", err)
					return
				}
				if k%500 == 499 {
					// Files that shrink, vanish and appear.
					_, _ = conn.Exec(context.Background(), fmt.Sprintf(`DROP TABLE IF EXISTS scratch%d;
						CREATE TABLE scratch%d AS SELECT repeat('s', 1000) FROM generate_series(1, 500); DELETE FROM scratch%d; VACUUM`, i, i, i))
				}
				n.Add(1)
			}
		})
	}
	var once sync.Once
	stop = func() int64 {
		once.Do(func() { cancel(); wg.Wait() })
		return n.Load()
	}
	t.Cleanup(func() { stop() })
	return stop
}
