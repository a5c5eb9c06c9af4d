package restore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
)

func TestTablespaces(t *testing.T) {
	w := startWriter(t, 0, nil)
	old := filepath.Join(t.TempDir(), "old space")
	must(t, os.Mkdir(old, 0o777))
	must(t, os.Chmod(old, 0o777))
	must(t, os.Chmod(filepath.Dir(old), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(old)), 0o755))
	owner, err := os.Stat(w.db.DataDir)
	must(t, err)
	if os.Geteuid() == 0 {
		must(t, os.Chown(old, ownerOf(owner), ownerGroupOf(owner)))
	}
	w.db.Exec("CREATE TABLESPACE s LOCATION '"+old+"'", "CREATE TABLE in_s (n int) TABLESPACE s", "INSERT INTO in_s VALUES (7)")
	w.insert(1)
	w.snapshot()
	w.db.Exec("INSERT INTO in_s VALUES (8)")
	w.insert(2)
	oid := pgtest.Query[string](w.db, "SELECT oid::text FROM pg_tablespace WHERE spcname = 's'")
	w.db.Stop(pgtest.Fast)
	plan, err := NewPlan(t.Context(), w.a, Request{})
	must(t, err)

	t.Run("its place is taken", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "data")
		before := listing(t, old)
		_, err := Restore(t.Context(), w.a, plan, Options{Dir: dir})
		if !errors.Is(err, ErrNotEmpty) || !strings.Contains(err.Error(), old) {
			t.Errorf("%v, want ErrNotEmpty that names %s", err, old)
		}
		if after := listing(t, old); after != before {
			t.Errorf("what is in the way was changed:\n%s", after)
		}
		// Not even another try, which empties what is half restored, touches it.
		_, err = Restore(t.Context(), w.a, plan, Options{Dir: dir})
		if after := listing(t, old); !errors.Is(err, ErrNotEmpty) || after != before {
			t.Errorf("%v; what is in the way was changed:\n%s", err, after)
		}
	})
	t.Run("mapped", func(t *testing.T) {
		for _, from := range []string{old, oid} {
			to := filepath.Join(t.TempDir(), "new", "place")
			r := recovering(t, w.a, Request{}, Options{TablespaceMapping: map[string]string{from: to}})
			r.fill()
			s := r.start()
			wantRows(t, s, 1, 2)
			if got := pgtest.QueryAll[int32](s, "SELECT n FROM in_s ORDER BY n"); len(got) != 2 {
				t.Errorf("the table in the tablespace has %v, want 7 and 8", got)
			}
			if at := pgtest.Query[string](s, "SELECT pg_tablespace_location("+oid+")"); at != to {
				t.Errorf("the tablespace is in %s, want %s", at, to)
			}
			s.Stop(pgtest.Fast)
		}
	})
	t.Run("badly mapped", func(t *testing.T) {
		inUse := t.TempDir()
		must(t, os.WriteFile(filepath.Join(inUse, "x"), nil, 0o600))
		dir := filepath.Join(t.TempDir(), "data")
		for _, m := range []map[string]string{
			{old: inUse},
			{old: "relative"},
			{old: dir},
			{old: filepath.Join(dir, "pg_wal")},
			{old: filepath.Dir(dir)},
			{old: filepath.Join(t.TempDir(), "a"), "/no/such": "/b"},
		} {
			if _, err := Restore(t.Context(), w.a, plan, Options{Dir: dir, TablespaceMapping: m}); err == nil {
				t.Errorf("restored with the mapping %v", m)
			}
		}
	})
	t.Run("WAL elsewhere", func(t *testing.T) {
		walDir, space := filepath.Join(t.TempDir(), "wal"), filepath.Join(t.TempDir(), "s")
		r := recovering(t, w.a, Request{}, Options{WALDir: walDir, TablespaceMapping: map[string]string{oid: space}})
		r.fill()
		s := r.start()
		wantRows(t, s, 1, 2)
		if names, err := filepath.Glob(filepath.Join(walDir, "0000000*")); len(names) == 0 || err != nil {
			t.Errorf("there is no WAL in %s", walDir)
		}
		s.Stop(pgtest.Fast)
	})
	t.Run("at the old place", func(t *testing.T) {
		must(t, os.RemoveAll(old))
		// Half of it was unpacked when the restore was interrupted.
		b := cloneBucket(t, w.bucket)
		n := 0
		b.Fault(func(op, key string) error {
			if op == "open" && strings.Contains(key, "/part_") {
				if n++; n >= 3 {
					return fs.ErrPermission // not tried again
				}
			}
			return nil
		})
		dir := filepath.Join(t.TempDir(), "data")
		if _, err := Restore(t.Context(), archive.New(b), plan, Options{Dir: dir, Parallel: 1}); err == nil {
			t.Fatal("restored without one part")
		}
		if entries, err := os.ReadDir(old); len(entries) == 0 || err != nil {
			t.Fatalf("nothing was unpacked into %s yet: the test does not test what it says (%v)", old, err)
		}
		must(t, os.WriteFile(filepath.Join(old, "left over"), nil, 0o600))
		_, err := Restore(t.Context(), w.a, plan, Options{Dir: dir})
		must(t, err)
		if _, err := os.Stat(filepath.Join(old, "left over")); err == nil {
			t.Error("what the interrupted restore left is still there")
		}
		r := restored{t: t, a: w.a, plan: plan, dir: dir}
		r.fill()
		s := r.start()
		wantRows(t, s, 1, 2)
	})
}

func TestTablespaceMap(t *testing.T) {
	all, err := parseTablespaceMap([]byte("16384 /a b\n16385 /with\\\nnewline\\\\and backslash\n"))
	must(t, err)
	if len(all) != 2 || all[0] != (archive.Tablespace{OID: 16384, Location: "/a b"}) || all[1].Location != "/with\nnewline\\and backslash" {
		t.Errorf("%+v", all)
	}
	for _, bad := range []string{"x /a\n", "16384\n", "0 /a\n", "16384 \n"} {
		if _, err := parseTablespaceMap([]byte(bad)); !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("%q: %v, want ErrCorrupt", bad, err)
		}
	}
}
