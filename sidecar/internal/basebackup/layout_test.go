package basebackup

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
)

func TestTablespacesAndLinks(t *testing.T) {
	outside := publicDir(t)
	majors := pgtest.Majors(t)
	if majors[len(majors)-1] < 15 {
		pgtest.Binaries(t, 15) // there are no tablespaces in place before; this skips or fails
	}
	w := start(t, pgtest.Options{InitdbArgs: []string{"-X", filepath.Join(outside, "wal")}, Settings: map[string]string{
		"allow_in_place_tablespaces": "on", "wal_keep_size": "1GB",
	}})
	place := filepath.Join(outside, "space")
	mkdirLike(t, place, w.DataDir)
	w.Exec(fmt.Sprintf("CREATE TABLESPACE linked LOCATION '%s'", place), "CREATE TABLESPACE inplace LOCATION ''", "CREATE TABLESPACE unused LOCATION ''",
		"CREATE TABLE a TABLESPACE linked AS SELECT generate_series(1, 1000) AS i", "CREATE TABLE b TABLESPACE inplace AS SELECT generate_series(1, 2000) AS i",
		"CREATE TEMP TABLE gone TABLESPACE linked AS SELECT 1")
	oid := pgtest.Query[uint32](w.Server, "SELECT oid FROM pg_tablespace WHERE spcname = 'linked'")
	inPlace := pgtest.Query[uint32](w.Server, "SELECT oid FROM pg_tablespace WHERE spcname = 'inplace'")
	// What an older server left in the tablespace is not this one's.
	writeLike(t, filepath.Join(place, "PG_9.6_201608131", "5", "16385"), "old", place)
	// A configuration file that lies elsewhere, one of nobody's business, and a foreign directory.
	writeLike(t, filepath.Join(outside, "extra.conf"), "work_mem = '7MB'\n", place)
	links := map[string]string{"extra.conf": filepath.Join(outside, "extra.conf"), "secret.conf": "/proc/self/environ", "foreign": outside, "dangling.conf": "/nowhere"}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(w.DataDir, name)); err != nil {
			t.Fatal(err)
		}
	}
	m := w.take(t)
	members := w.members(t, m)
	b, err := w.archive.Backup(t.Context(), m.Name)
	if err != nil {
		t.Fatal(err)
	}
	want := &archive.TablespaceSpec{BasePrefix: w.DataDir, Tablespaces: []archive.Tablespace{{OID: oid, Location: place}}}
	if diff := cmp.Diff(want, b.Sentinel.Spec); diff != "" {
		t.Errorf("the sentinel's tablespaces: %s", diff)
	}
	for name, f := range members {
		if f.header.Typeflag != '0' && f.header.Typeflag != '5' || f.header.Linkname != "" {
			t.Errorf("%s is a link", name)
		}
		if strings.Contains(name, "PG_9.6") || strings.HasPrefix(name, "/foreign/") || strings.HasPrefix(name, "/pg_wal/") {
			t.Errorf("%s is in the snapshot", name)
		}
	}
	if _, ok := members[fmt.Sprintf("/pg_tblspc/%d", oid)]; ok {
		t.Error("the link of a tablespace is in the snapshot")
	}
	for _, name := range []string{fmt.Sprintf("/pg_tblspc/%d", inPlace), "/foreign", "/pg_wal"} {
		if f := members[name]; f.header == nil || f.header.Typeflag != '5' {
			t.Errorf("%s is no directory in the snapshot", name)
		}
	}
	if got := string(members["/extra.conf"].content); got != "work_mem = '7MB'\n" {
		t.Errorf("the linked file holds %q", got)
	}
	for _, name := range []string{"/secret.conf", "/dangling.conf"} {
		if _, ok := members[name]; ok || !strings.Contains(w.log.String(), "path="+name[1:]) {
			t.Errorf("%s is in the snapshot, or was left out in silence", name)
		}
	}
	walDir := saveWAL(t, w.Server)
	w.Kill()
	dir := filepath.Join(t.TempDir(), "restored")
	unpack(t, dir, members, map[string]string{fmt.Sprint(oid): place + "2"})
	if err := os.WriteFile(filepath.Join(dir, "tablespace_map"), fmt.Appendf(nil, "%d %s2\n", oid, place), 0o600); err != nil {
		t.Fatal(err)
	}
	r := recoverFrom(t, dir, walDir, w.Major)
	if got := pgtest.Query[int](r, "SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b)"); got != 3000 {
		t.Errorf("%d rows in the tablespaces", got)
	}
}

func TestTablespaceOutOfSight(t *testing.T) {
	w := start(t, pgtest.Options{})
	if err := os.Symlink("/nowhere/to/be/seen", filepath.Join(w.DataDir, "pg_tblspc", "16999")); err != nil {
		t.Fatal(err)
	}
	_, err := New(w.config()).Take(t.Context())
	if err == nil || !strings.Contains(err.Error(), "16999") || !strings.Contains(err.Error(), "/nowhere/to/be/seen") {
		t.Errorf("a tablespace that cannot be seen: %v", err)
	}
	if keys := strings.Join(w.bucket.Keys(), " "); strings.Contains(keys, "sentinel") {
		t.Errorf("there is a snapshot: %s", keys)
	}
}

func TestWhatIsLeftOut(t *testing.T) {
	w := start(t, pgtest.Options{})
	db := pgtest.Query[string](w.Server, "SELECT 'base/' || oid FROM pg_database WHERE datname = 'postgres'")
	w.Exec("CREATE UNLOGGED TABLE u (i int PRIMARY KEY)", "INSERT INTO u SELECT generate_series(1, 1000)")
	unlogged := pgtest.Query[string](w.Server, "SELECT pg_relation_filepath('u')")
	conn := w.Conn()
	if _, err := conn.Exec(t.Context(), "CREATE TEMP TABLE tt AS SELECT generate_series(1, 1000)"); err != nil {
		t.Fatal(err)
	}
	out := []string{
		"base/pgsql_tmp/pgsql_tmp1.0", db + "/pg_internal.init.99", "global/pg_internal.init.98", "standby.signal.signal", "backup_label.old",
		"tablespace_map.old", "backup_manifest", "current_logfiles.tmp", "postgresql.auto.conf.tmp", "outrider/spool/x", "pg_wal/summaries/x.summary",
		"pg_replslot/s/state", "pg_notify/0001", "pg_stat_tmp/x", "pg_dynshmem/x", "pg_snapshots/x", "pg_subtrans/0FFF", "pg_serial/x", unlogged,
		"postmaster.pid", "postmaster.opts",
	}
	in := []string{"log/postgresql.log", db + "/999999_other", "conf.d/postmaster.pid", unlogged + "_init", "conf.d/pg_wal/x", "PG_VERSION"}
	for _, name := range append(slices.Clone(out), in...) {
		if path := filepath.Join(w.DataDir, name); !exists(path) {
			writeLike(t, path, "x", w.DataDir)
		}
	}
	members := w.members(t, w.take(t))
	for _, name := range out {
		if _, ok := members["/"+name]; ok {
			t.Errorf("%s is in the snapshot", name)
		}
	}
	for _, name := range in {
		if _, ok := members["/"+name]; !ok {
			t.Errorf("%s is not in the snapshot", name)
		}
	}
	for _, dir := range []string{"pg_wal", "pg_replslot", "pg_notify", "pg_stat_tmp", "pg_dynshmem", "pg_snapshots", "pg_subtrans", "pg_serial", "pg_twophase", "pg_commit_ts"} {
		if f := members["/"+dir]; f.header == nil || f.header.Typeflag != '5' {
			t.Errorf("the directory %s is not in the snapshot", dir)
		}
	}
	temporary := newRelationNames().temporary
	for name := range members {
		if temporary.MatchString(filepath.Base(name)) {
			t.Errorf("the temporary relation %s is in the snapshot", name)
		}
	}
}

func TestDamagedPagesAreNamed(t *testing.T) {
	w := start(t, pgtest.Options{InitdbArgs: []string{"-k"}})
	w.Exec("CREATE TABLE d AS SELECT i, repeat('x', 500) FROM generate_series(1, 1000) i", "VACUUM d", "CHECKPOINT")
	rel := pgtest.Query[string](w.Server, "SELECT pg_relation_filepath('d')")
	w.Stop(pgtest.Fast)
	path := filepath.Join(w.DataDir, rel)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 8192
	content[3*page+4000] ^= 1                                // one bit
	copy(content[5*page:], []byte{0xff, 0, 0, 0})            // newer than all WAL
	clear(content[7*page : 8*page])                          // a new page: fine
	copy(content[9*page:10*page], make([]byte, page))        // a page that claims to be new
	content[9*page+5000] = 7                                 // and is not
	copy(content[11*page:12*page], content[12*page:13*page]) // a page in another's place
	writeOver(t, path, content)
	w.Start()
	m := w.take(t)
	want := []string{}
	for _, block := range []int{3, 5, 9, 11} {
		want = append(want, fmt.Sprintf("%s:%d", rel, block))
	}
	slices.Sort(m.Checksums.Bad)
	slices.Sort(want)
	if diff := cmp.Diff(want, m.Checksums.Bad); diff != "" {
		t.Errorf("the bad pages: %s", diff)
	}
	if !strings.Contains(w.log.String(), "damaged") {
		t.Error("the log says nothing")
	}
	if got := w.members(t, m)["/"+rel].content; !bytes.Equal(got, content) {
		t.Error("the damaged file is not in the snapshot as it is")
	}
}
