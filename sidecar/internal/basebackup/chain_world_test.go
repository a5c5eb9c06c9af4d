package basebackup

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/wal"
)

// chain is a server of which a chain of deltas is taken, with the archive that can restore it.
type chain struct {
	*world
	wal     *archive.WAL
	tli     wal.Timeline
	shipped wal.LSN
	known   []archive.Backup // of the chain
	space   string           // where the tablespace lies
	restore int
}

func newChain(t *testing.T, major int, checksums bool) *chain {
	t.Helper()
	args := []string{"--wal-segsize=1"}
	switch {
	case checksums:
		args = append(args, "-k")
	case major >= 18:
		args = append(args, "--no-data-checksums")
	}
	w := newWorld(t, pgtest.Start(t, pgtest.Options{Major: major, InitdbArgs: args, Settings: map[string]string{
		"fsync": "off", "wal_keep_size": "20GB", "autovacuum_naptime": "1s", "shared_buffers": "16MB", "max_wal_size": "8GB",
	}}))
	c := &chain{world: w, wal: w.archive.WAL(wal.MinSegmentSize), tli: 1, space: filepath.Join(publicDir(t), "space")}
	mkdirLike(t, c.space, w.DataDir)
	f, err := server{w.Server}.Facts(t.Context())
	check(t, err)
	id := archive.Identity{Instance: "pod-uid"}
	c.shipped = c.wal.Size.Floor(c.flushed(t))
	check(t, w.archive.ClaimCluster(t.Context(), archive.Cluster{SystemIdentifier: f.SystemIdentifier, SegmentSize: f.SegmentSize, CreatedBy: id}))
	check(t, w.archive.ClaimEpoch(t.Context(), archive.Epoch{Number: 1, Writer: id, ClaimedAt: time.Now(), Timeline: 1, Since: c.shipped}))
	check(t, w.archive.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 1, Epoch: 1, Switch: c.shipped, ClaimedAt: time.Now()}))
	return c
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *chain) flushed(t *testing.T) wal.LSN {
	t.Helper()
	at, err := wal.ParseLSN(pgtest.Query[string](c.Server, "SELECT pg_current_wal_flush_lsn()::text"))
	check(t, err)
	return at
}

// ship seals all WAL up to now.
func (c *chain) ship(t *testing.T) {
	t.Helper()
	c.Exec("CREATE TABLE IF NOT EXISTS switched ()", "SELECT pg_switch_wal()")
	for end := c.wal.Size.Floor(c.flushed(t)); c.shipped < end; c.shipped += wal.LSN(c.wal.Size) {
		seg := c.wal.Size.SegmentAt(c.tli, c.shipped)
		f, err := os.Open(filepath.Join(c.DataDir, "pg_wal", seg.Name(c.wal.Size)))
		check(t, err)
		_, err = c.wal.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: uint64(c.tli), Raw: f, Valid: int64(c.wal.Size)})
		check(t, errors.Join(err, f.Close()))
	}
}

func (c *chain) takeOn(t *testing.T, known []archive.Backup) archive.Backup {
	t.Helper()
	cfg := c.config()
	cfg.Known, cfg.PartSize = known, 4<<20
	taker := New(cfg)
	taker.margin = 50 * time.Millisecond // some ticks of the kernel's clock
	m, err := taker.Take(t.Context())
	check(t, err)
	if len(m.Checksums.Bad) > 0 {
		t.Fatalf("bad pages: %v", m.Checksums.Bad)
	}
	b, err := c.archive.Backup(t.Context(), m.Name)
	check(t, err)
	return b
}

// next adds a snapshot to the chain.
func (c *chain) next(t *testing.T) archive.Backup {
	t.Helper()
	b := c.takeOn(t, c.known)
	if !b.Delta() {
		c.known = nil // too much has changed
	}
	c.known = append(c.known, b)
	return b
}

// laid unpacks a snapshot and starts no server on it.
func (c *chain) laid(t *testing.T, name string, fill bool) string {
	t.Helper()
	c.ship(t)
	plan, err := restore.NewPlan(t.Context(), c.archive, restore.Request{Backup: name})
	check(t, err)
	c.restore++
	dir := filepath.Join(publicDir(t), "data")
	opt := restore.Options{Dir: dir, Patience: 20 * time.Second}
	if _, err := os.Readlink(filepath.Join(c.DataDir, "pg_tblspc", c.spaceOID())); err == nil {
		opt.TablespaceMapping = map[string]string{c.space: fmt.Sprintf("%s-%d", c.space, c.restore)}
	}
	_, err = restore.Restore(t.Context(), c.archive, plan, opt)
	check(t, err)
	if fill {
		_, err = restore.Fill(t.Context(), c.archive, restore.FillOptions{Dir: dir, Patience: 20 * time.Second})
		check(t, err)
	}
	return dir
}

// moves restores a snapshot to another directory and goes on there, on a new timeline.
func (c *chain) moves(t *testing.T, name string) {
	t.Helper()
	dir := c.laid(t, name, true)
	if c.spaceOID() != "0" {
		c.space = fmt.Sprintf("%s-%d", c.space, c.restore)
	}
	c.Server.Stop(pgtest.Immediate)
	c.Server = pgtest.Open(t, dir, pgtest.Options{Settings: map[string]string{"fsync": "off", "wal_keep_size": "20GB"}})
	c.Exec("CHECKPOINT")
	c.tli = wal.Timeline(pgtest.Query[int32](c.Server, "SELECT timeline_id FROM pg_control_checkpoint()"))
	raw, err := os.ReadFile(filepath.Join(dir, "pg_wal", wal.HistoryName(c.tli)))
	check(t, err)
	h, err := wal.ParseHistory(c.tli, string(raw))
	check(t, err)
	at := h[len(h)-1]
	c.shipped = c.wal.Size.Floor(at.LSN)
	check(t, c.archive.ClaimEpoch(t.Context(), archive.Epoch{Number: uint64(c.tli), Writer: archive.Identity{Instance: "pod-2"}, ClaimedAt: time.Now()}))
	check(t, c.archive.ClaimTimeline(t.Context(), archive.TimelineClaim{
		Timeline: c.tli, Epoch: uint64(c.tli), Parent: at.Parent, Switch: at.LSN, ClaimedAt: time.Now(),
	}))
	c.ship(t)
	check(t, c.archive.PutHistory(t.Context(), c.tli, raw))
}

func (c *chain) spaceOID() string {
	return pgtest.Query[string](c.Server, "SELECT coalesce(max(oid), 0)::text FROM pg_tablespace WHERE spcname = 'outside'")
}

// contents are the files of a directory that has been laid down, by their names in it.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	var walk func(path, name string)
	walk = func(path, name string) {
		entries, err := os.ReadDir(path)
		check(t, err)
		for _, e := range entries {
			n := filepath.Join(name, e.Name())
			info, err := os.Stat(filepath.Join(path, e.Name()))
			check(t, err)
			switch n {
			case "pg_wal", "outrider", "global/pg_control", "backup_label", "tablespace_map", "recovery.signal", "postgresql.auto.conf":
				continue
			}
			if info.IsDir() {
				walk(filepath.Join(path, e.Name()), n)
				continue
			}
			all[n], err = os.ReadFile(filepath.Join(path, e.Name()))
			check(t, err)
		}
	}
	walk(dir, "")
	return all
}

// same compares what a chain of deltas has become with a full snapshot of the same moment. Without page checksums hints
// may differ, and what hints are is told from the LSN and the mark of the page.
func same(t *testing.T, delta, full map[string][]byte, exact bool) {
	t.Helper()
	for name := range delta {
		if _, ok := full[name]; !ok {
			t.Errorf("%s is in the chain alone", name)
		}
	}
	names := newRelationNames()
	compared := 0
	for name, want := range full {
		got, ok := delta[name]
		main := names.permanent.MatchString(filepath.Base(name)) && isDatabase(filepath.Dir(name)) && !strings.Contains(filepath.Base(name), "_")
		switch {
		case !ok:
			t.Errorf("%s is not in the chain", name)
		case len(got) != len(want):
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		case exact || !main:
			if string(got) != string(want) {
				t.Errorf("%s differs at byte %d of %d", name, firstDifference(got, want), len(want))
			}
		default:
			for o := 0; o < len(want); o += incrementPage {
				a, b := got[o:o+incrementPage], want[o:o+incrementPage]
				if wal.PageLSN(a) != wal.PageLSN(b) || wal.PageAllVisible(a) != wal.PageAllVisible(b) || string(a[12:20]) != string(b[12:20]) {
					t.Errorf("page %d of %s differs: %x and %x", o/incrementPage, name, a[:24], b[:24])
				}
			}
		}
		compared++
	}
	if compared < 100 {
		t.Errorf("only %d files were compared", compared)
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// churn does everything that changes files, at random, until stop is called.
func (c *chain) churn(t *testing.T, seed uint64, workers int) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range workers {
		conn, err := c.Connect(t.Context())
		check(t, err)
		wg.Go(func() {
			defer conn.Close(context.Background())
			r := rand.New(rand.NewPCG(seed, uint64(i)))
			for ctx.Err() == nil {
				sql := c.deed(r, i)
				_, err := conn.Exec(context.Background(), sql)
				var pe *pgconn.PgError
				if errors.As(err, &pe) && slices.Contains([]string{"42P01", "42P07", "3D000", "42P04", "42704", "55006", "40P01"}, pe.Code) {
					continue // what is to be changed is not there, or is already
				}
				if err != nil {
					t.Errorf("%s: %v", sql, err)
					return
				}
			}
		})
	}
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); wg.Wait() }) }
	t.Cleanup(stop)
	return stop
}

func (c *chain) deed(r *rand.Rand, i int) string {
	n, k := r.IntN(3), r.IntN(4000)
	strategy := ""
	if c.Major >= 15 && r.IntN(2) == 0 {
		strategy = " STRATEGY file_copy"
	}
	table := fmt.Sprintf("w%d_%d", i, n)
	deeds := []string{
		fmt.Sprintf("CREATE TABLE %s (id int, k int, p point, s text)", table),
		fmt.Sprintf("INSERT INTO %s SELECT g, g %% 97, point(g, g), repeat('x', 50 + g %% 100) FROM generate_series(1, %d) g", table, k),
		fmt.Sprintf("INSERT INTO %s SELECT g, g %% 97, point(g, g), repeat('y', 20) FROM generate_series(1, %d) g", table, k/10),
		fmt.Sprintf("UPDATE %s SET k = k + 1 WHERE id %% 311 = %d", table, k%311),
		fmt.Sprintf("UPDATE w%d_big SET k = k + 1 WHERE id = %d", i, k),
		fmt.Sprintf("UPDATE w%d_big SET k = k + 1 WHERE id BETWEEN %d AND %d", i, k, k+20),
		fmt.Sprintf("DELETE FROM %s WHERE id > %d", table, k),
		fmt.Sprintf("VACUUM %s", table),
		fmt.Sprintf("VACUUM w%d_big", i),
		fmt.Sprintf("VACUUM (FREEZE) w%d_big", i),
		fmt.Sprintf("VACUUM FULL %s", table),
		fmt.Sprintf("SELECT count(*) FROM w%d_big WHERE k > 5", i),
		fmt.Sprintf("SELECT nextval('seq_%d') FROM generate_series(1, %d)", i, k%50),
		"CHECKPOINT",
	}
	rare := []string{
		"TRUNCATE " + table, "DROP TABLE " + table,
		fmt.Sprintf("CREATE INDEX g_%s ON %s USING gist (p)", table, table), "DROP INDEX g_" + table,
		fmt.Sprintf("CREATE INDEX b_%s ON %s (k)", table, table), "DROP INDEX b_" + table,
		fmt.Sprintf("CREATE DATABASE d%d TEMPLATE template0%s", i, strategy), fmt.Sprintf("DROP DATABASE d%d", i),
		fmt.Sprintf("ALTER TABLE %s SET TABLESPACE outside", table), fmt.Sprintf("ALTER TABLE %s SET TABLESPACE pg_default", table),
		fmt.Sprintf("CREATE UNLOGGED TABLE u%d AS SELECT generate_series(1, 500) AS i", i), fmt.Sprintf("DROP TABLE u%d", i),
		fmt.Sprintf("ALTER TABLE u%d SET LOGGED", i), "VACUUM",
	}
	if r.IntN(8) == 0 {
		return rare[r.IntN(len(rare))]
	}
	return deeds[r.IntN(len(deeds))]
}
