package basebackup

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
)

// sums is what all tables that live for ever hold.
const sums = `SELECT (SELECT md5(string_agg(concat(id, k, s), ',' ORDER BY id)) FROM w0_big) ||
	(SELECT md5(string_agg(concat(id, k, s), ',' ORDER BY id)) FROM w1_big) || (SELECT sum(n) FROM settled)`

// verify starts a server on a restored directory and has it look at itself.
func (c *chain) verify(t *testing.T, dir, want string) {
	t.Helper()
	s := pgtest.Open(t, dir, pgtest.Options{Settings: map[string]string{"fsync": "off"}})
	if got := pgtest.Query[string](s, sums); got != want {
		t.Errorf("the tables hold %s, want %s", got, want)
	}
	last := pgtest.Query[int64](c.Server, "SELECT last_value FROM seq_0")
	if got := pgtest.Query[int64](s, "SELECT nextval('seq_0')"); got <= last {
		t.Errorf("a sequence gives %d again, it was at %d", got, last)
	}
	examine(t, s)
	// A visibility map that says more than its table hides rows that are there and shows some that are gone.
	s.Exec("DELETE FROM w0_big WHERE id % 7 = 0", "VACUUM w0_big", "SET enable_seqscan = off")
	examine(t, s)
	s.Stop(pgtest.Immediate)
}

func examine(t *testing.T, s *pgtest.Server) {
	t.Helper()
	s.Exec("CREATE EXTENSION IF NOT EXISTS amcheck", "CREATE EXTENSION IF NOT EXISTS pg_visibility")
	bad := pgtest.QueryAll[string](s, `SELECT c.oid::regclass || ': ' || v.msg FROM pg_class c, verify_heapam(c.oid) v
		WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'`)
	bad = append(bad, pgtest.QueryAll[string](s, `SELECT c.oid::regclass || ' is not visible at ' || v.t_ctid::text
		FROM pg_class c, pg_check_visible(c.oid) v WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'`)...)
	bad = append(bad, pgtest.QueryAll[string](s, `SELECT c.oid::regclass || ' is marked in the map alone, page ' || m.blkno
		FROM pg_class c, pg_visibility(c.oid) m WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p' AND m.all_visible AND NOT m.pd_all_visible`)...)
	if len(bad) > 0 {
		t.Errorf("the restored database is damaged: %v", bad[:min(len(bad), 10)])
	}
	if n := pgtest.Query[int64](s, `SELECT count(bt_index_check(c.oid, true)) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
		WHERE a.amname = 'btree' AND c.relkind = 'i' AND c.relpersistence = 'p'`); n < 50 {
		t.Errorf("%d indexes were checked", n)
	}
}

func (c *chain) populate() {
	c.Exec(fmt.Sprintf("CREATE TABLESPACE outside LOCATION '%s'", c.space), "CREATE SEQUENCE seq_0", "CREATE SEQUENCE seq_1",
		"SELECT nextval('seq_0')", // one that was never asked is at the value that it gives next
		"CREATE TABLE settled AS SELECT g AS n, md5(g::text) || md5((-g)::text) || md5(g::text || 's') AS s FROM generate_series(1, 60000) g", "CREATE INDEX ON settled (n)",
		"VACUUM ANALYZE settled")
	for i := range 2 {
		c.Exec(fmt.Sprintf("CREATE TABLE w%d_big AS SELECT g AS id, 1 AS k, repeat('b', 200) AS s FROM generate_series(1, 20000) g", i),
			fmt.Sprintf("CREATE UNIQUE INDEX ON w%d_big (id)", i), fmt.Sprintf("CREATE INDEX ON w%d_big (k)", i))
	}
}

// compare takes a delta and a full snapshot of a server at rest, and compares what they become.
func (c *chain) compare(t *testing.T, checksums bool) archive.Backup {
	t.Helper()
	// Hints that a look at the catalogs would set are set before both, and autovacuum comes to rest.
	c.Exec("ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()")
	for pgtest.Query[int](c.Server, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker'") > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	_, err := server{c.Server}.Facts(t.Context())
	check(t, err)
	c.Exec("CREATE TABLE IF NOT EXISTS switched ()", "CHECKPOINT")
	delta := c.next(t)
	full := c.takeOn(t, nil)
	same(t, contents(t, c.laid(t, delta.Name, false)), contents(t, c.laid(t, full.Name, false)), checksums)
	c.Exec("ALTER SYSTEM RESET autovacuum", "SELECT pg_reload_conf()")
	return delta
}

// TestChainGoesOnElsewhere: after a restore all files are others, and a delta still holds only what changed.
func TestChainGoesOnElsewhere(t *testing.T) {
	majors := pgtest.Majors(t)
	for name, checksums := range map[string]bool{"checksums": true, "no checksums": false} {
		t.Run(name, func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			c := newChain(t, majors[len(majors)-1], checksums)
			c.populate()
			c.next(t)
			stop := c.churn(t, seed, 1)
			last := c.next(t)
			stop()
			c.moves(t, last.Name)
			stop = c.churn(t, seed+10, 1)
			c.next(t)
			stop()
			delta := c.compare(t, checksums)
			if !delta.Delta() || delta.Timeline() != 2 {
				t.Errorf("%s is no delta on timeline 2", delta.Name)
			}
			moved := c.known[len(c.known)-2].Manifest.Delta
			if moved == nil || moved.ChangedBytes > moved.DataBytes/2 || moved.UnchangedFiles > 0 || moved.PatchedFiles == 0 {
				t.Errorf("the first delta after the restore is %+v", moved)
			}
			c.verify(t, c.laid(t, delta.Name, true), pgtest.Query[string](c.Server, sums))
		})
	}
}

// TestDatabaseMadeAgain: pages of a template are older than the parent of a delta, and still they are new.
func TestDatabaseMadeAgain(t *testing.T) {
	majors := pgtest.Majors(t)
	major := majors[len(majors)-1]
	if major < 15 {
		pgtest.Binaries(t, 15) // older ones choose the object id themselves
	}
	for name, elsewhere := range map[string]bool{"in place": false, "elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			c := newChain(t, major, true)
			c.populate()
			c.Exec("CREATE DATABASE first OID 77777 STRATEGY file_copy TEMPLATE template0")
			inside, err := pgx.Connect(t.Context(), c.ConnString("first"))
			check(t, err)
			_, err = inside.Exec(t.Context(), "UPDATE pg_proc SET procost = procost + 1 WHERE oid::int % 50 = 0")
			check(t, err)
			check(t, inside.Close(t.Context()))
			last := c.next(t)
			c.Exec("DROP DATABASE first", "CREATE DATABASE second OID 77777 STRATEGY file_copy TEMPLATE template0")
			if elsewhere {
				c.moves(t, last.Name)
			}
			if delta := c.compare(t, true); !delta.Delta() {
				t.Errorf("%s is no delta", delta.Name)
			}
		})
	}
}

// TestChainBecomesWhatAFullSnapshotIs has everything change while deltas are taken, and compares what they add up to
// with full snapshots: of the newest major with checksums and of 15 without, and of all, both ways, where
// OUTRIDER_LONG is set.
func TestChainBecomesWhatAFullSnapshotIs(t *testing.T) {
	majors := pgtest.Majors(t)
	long := os.Getenv("OUTRIDER_LONG") != ""
	for i, major := range majors {
		for name, checksums := range map[string]bool{"checksums": true, "no checksums": false} {
			chosen := checksums && i == len(majors)-1 || !checksums && major == 15
			if !long && !chosen {
				continue
			}
			t.Run(fmt.Sprintf("%d %s", major, name), func(t *testing.T) { testChain(t, major, checksums) })
		}
	}
}

func testChain(t *testing.T, major int, checksums bool) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newChain(t, major, checksums)
	c.populate()
	var total archive.Delta
	for round := range 2 {
		stop := c.churn(t, seed+uint64(round)*10, 2)
		time.Sleep(300 * time.Millisecond) // some churn before the snapshot; what comes of it is not timed
		b := c.next(t)
		if round == 1 {
			c.ship(t)
			stop()
			c.verify(t, c.laid(t, b.Name, true), pgtest.Query[string](c.Server, sums))
		}
		stop()
		delta := c.compare(t, checksums)
		for _, k := range []archive.Backup{b, delta} {
			if d := k.Manifest.Delta; d != nil {
				total.Count++
				total.PatchedFiles += d.PatchedFiles
				total.WholeFiles += d.WholeFiles
				total.UnchangedFiles += d.UnchangedFiles
				total.ChangedPages += d.ChangedPages
				t.Logf("%s: %d whole, %d patched with %d pages, %d unchanged; %d of %d bytes", k.Name, d.WholeFiles, d.PatchedFiles, d.ChangedPages,
					d.UnchangedFiles, d.ChangedBytes, d.DataBytes)
			}
		}
		if t.Failed() {
			return
		}
	}
	if total.Count < 2 || total.PatchedFiles == 0 || total.UnchangedFiles == 0 || total.WholeFiles == 0 || total.ChangedPages == 0 {
		t.Errorf("the chain tested nothing: %+v", total)
	}
	last := c.known[len(c.known)-1]
	c.verify(t, c.laid(t, last.Name, true), pgtest.Query[string](c.Server, sums))
}
