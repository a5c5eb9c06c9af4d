package basebackup

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

func TestTakeAndRestoreOnEachMajor(t *testing.T) {
	for _, major := range pgtest.Majors(t) {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			w := newWorld(t, pgtest.Start(t, pgtest.Options{Major: major, InitdbArgs: []string{"-k", "--wal-segsize=4"}, Settings: map[string]string{
				"fsync": "off", "wal_keep_size": "10GB", "autovacuum_naptime": "1s",
			}}))
			w.Exec("CREATE UNLOGGED TABLE fleeting (i int PRIMARY KEY)", "INSERT INTO fleeting SELECT generate_series(1, 1000)")
			stop := load(t, w.Server, 3)
			cfg := w.config()
			cfg.PartSize = 4 << 20
			var seen Progress
			cfg.Progress = func(p Progress) { seen = p }
			m, err := New(cfg).Take(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			committed := stop()
			if committed == 0 {
				t.Fatal("there was no load")
			}
			checkDocuments(t, w, m)
			if seen.Files == 0 || seen.Files != seen.TotalFiles || seen.Bytes == 0 {
				t.Errorf("progress ended with %+v", seen)
			}
			if len(m.Checksums.Bad) > 0 || m.Checksums.Pages == 0 || !m.Checksums.Enabled {
				t.Errorf("page checksums: %+v", m.Checksums)
			}
			walDir := saveWAL(t, w.Server)
			sum := pgtest.Query[int64](w.Server, "SELECT sum(balance) FROM accounts")
			rows := pgtest.Query[int64](w.Server, "SELECT count(*) FROM ledger")
			w.Kill()

			dir := filepath.Join(t.TempDir(), "restored")
			unpack(t, dir, w.members(t, m), nil)
			r := recoverFrom(t, dir, walDir, major)
			if got := pgtest.Query[int64](r, "SELECT sum(balance) FROM accounts"); got != sum || got != 2000*1000 {
				t.Errorf("the balances sum up to %d, want %d", got, sum)
			}
			if got := pgtest.Query[int64](r, "SELECT count(*) FROM ledger"); got != rows {
				t.Errorf("%d rows, want %d", got, rows)
			}
			if got := pgtest.Query[int64](r, "SELECT count(*) FROM fleeting"); got != 0 {
				t.Errorf("an unlogged table has %d rows", got)
			}
			r.Exec("INSERT INTO fleeting VALUES (1)", "REINDEX DATABASE postgres", "SET enable_seqscan = off; SELECT count(*) FROM accounts")
		})
	}
}

// checkDocuments compares what a snapshot says of itself with what lies in the archive.
func checkDocuments(t *testing.T, w *world, m archive.Manifest) {
	t.Helper()
	b, err := w.archive.Backup(t.Context(), m.Name)
	if err != nil {
		t.Fatal(err)
	}
	m.Format = archive.Format
	if diff := cmp.Diff(m, *b.Manifest); diff != "" {
		t.Errorf("the manifest in the archive differs: %s", diff)
	}
	facts, err := server{w.Server}.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b.Start() != m.Start || b.Stop() != m.Stop || m.Stop <= m.Start || b.Timeline() != 1 || m.Timeline != 1 || m.Epoch != 7 ||
		m.SystemIdentifier != facts.SystemIdentifier || m.ServerVersion != facts.VersionNum || m.CatalogVersion != facts.CatalogVersion ||
		m.SegmentSize != facts.SegmentSize || m.Preload != "timescaledb" || m.Collations["postgres"] != "2.36" || m.StopTime.Before(m.StartTime) {
		t.Errorf("the manifest is %+v", m)
	}
	if (w.durable.at != wal.Position{Timeline: 1, LSN: m.Stop}) {
		t.Errorf("waited until %v is durable, the snapshot ends at %v", w.durable.at, m.Stop)
	}
	s := b.Sentinel
	if !s.FilesMetadataDisabled || *s.SystemIdentifier != facts.SystemIdentifier || s.DataDir != w.DataDir || s.Hostname != "db-0" ||
		s.CompressedSize != m.StoredSize || s.UncompressedSize != m.RawSize || s.DeltaFrom != nil {
		t.Errorf("the sentinel is %+v", s)
	}
	keys := w.bucket.Keys()
	dir := "basebackups_005/" + m.Name
	for _, p := range m.Parts {
		body := w.bucket.Bytes(dir + "/tar_partitions/" + p.Name)
		if int64(len(body)) != p.Size || p.CRC64 == 0 || p.RawSize == 0 {
			t.Errorf("part %+v has %d bytes", p, len(body))
		}
		keys = slices.DeleteFunc(keys, func(k string) bool { return k == dir+"/tar_partitions/"+p.Name })
	}
	want := []string{dir + "/metadata.json", dir + "/outrider-claim.json", dir + "/outrider-files.json.zst", dir + "/outrider.json", dir + "_backup_stop_sentinel.json"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Errorf("beside its parts the snapshot consists of other objects: %s", diff)
	}
	names := partNames(m)
	if len(names) < 4 || names[0] != "backup_label.tar.zst" || names[1] != "part_001.tar.zst" || names[len(names)-1] != "pg_control.tar.zst" {
		t.Errorf("the parts are %v", names)
	}
	checkMembers(t, w, m)
}

func partNames(m archive.Manifest) []string {
	var names []string
	for _, p := range m.Parts {
		names = append(names, p.Name)
	}
	return names
}

func checkMembers(t *testing.T, w *world, m archive.Manifest) {
	t.Helper()
	for _, p := range m.Parts {
		r, err := w.archive.OpenPart(t.Context(), m.Name, p)
		if err != nil {
			t.Fatal(err)
		}
		got := untar(t, r)
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		files := 0
		for name, f := range got {
			if f.header.Typeflag == '0' {
				files++
			}
			if name != "/" && strings.HasSuffix(name, "/") {
				t.Errorf("%s ends with a slash", name)
			}
			switch p.Name {
			case "pg_control.tar.zst":
				if c, err := wal.ParseControl(f.content); name != "/global/pg_control" || err != nil || c.SystemIdentifier != m.SystemIdentifier {
					t.Errorf("%s in %s: %v", name, p.Name, err)
				}
			case "backup_label.tar.zst":
				if name != "backup_label" && name != "tablespace_map" || f.header.Mode != 0o600 {
					t.Errorf("%s in %s with mode %o", name, p.Name, f.header.Mode)
				}
			default:
				if name == "/global/pg_control" || !strings.HasPrefix(name, "/") {
					t.Errorf("%s in %s", name, p.Name)
				}
			}
		}
		if files != p.Files {
			t.Errorf("%s has %d files, the manifest says %d", p.Name, files, p.Files)
		}
	}
}

func start(t *testing.T, opt pgtest.Options) *world {
	t.Helper()
	if opt.Settings == nil {
		opt.Settings = map[string]string{}
	}
	opt.Settings["fsync"] = "off"
	return newWorld(t, pgtest.Start(t, opt))
}
