package restore

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// walg writes an archive as WAL-G does: nothing of ours in it, no hashes, no manifest.
type walg struct {
	t      *testing.T
	db     *pgtest.Server
	bucket *archivetest.Bucket
	ext    string
	tli    wal.Timeline
	pos    wal.LSN
}

func (g *walg) compress(raw []byte) []byte {
	g.t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch g.ext {
	case ".lz4":
		w = lz4.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	default:
		return raw
	}
	must(g.t, err)
	_, err = w.Write(raw)
	must(g.t, err)
	must(g.t, w.Close())
	return b.Bytes()
}

// ship stores all complete segments, as an archive_command does.
func (g *walg) ship() {
	g.t.Helper()
	g.db.Exec("SELECT pg_switch_wal()")
	end := parseLSN(g.t, pgtest.Query[string](g.db, "SELECT pg_current_wal_flush_lsn()::text"))
	for seg := segmentSize.SegmentAt(g.tli, g.pos); seg.End(segmentSize) <= segmentSize.Floor(end+8192); seg = seg.Next() {
		raw, err := os.ReadFile(filepath.Join(g.db.DataDir, "pg_wal", seg.Name(segmentSize)))
		must(g.t, err)
		g.bucket.SetBytes("wal_005/"+seg.Name(segmentSize)+g.ext, g.compress(raw))
		g.pos = seg.End(segmentSize)
	}
}

type walgOptions struct {
	sentinel string // "{}" or "" for WAL-G's own
	slash    bool   // member names begin with one
	files    bool   // files_metadata.json
}

// snapshot stores a full snapshot and returns its name.
func (g *walg) snapshot(o walgOptions) string {
	g.t.Helper()
	w := &writer{t: g.t, db: g.db, tli: g.tli}
	w.pos = archive.MaxLSN // nothing to ship
	c := w.copyFiles()
	files, sets := map[string]any{}, map[string]any{}
	for _, name := range c.order {
		raw := c.parts[name]
		if !o.slash {
			raw = rename(g.t, raw, func(n string) string { return strings.TrimPrefix(n, "/") })
		}
		object := name + ".tar" + g.ext
		g.bucket.SetBytes("basebackups_005/"+c.name+"/tar_partitions/"+object, g.compress(raw))
		sets[object] = []string{}
		for _, n := range memberNames(g.t, raw) {
			if !isHeld(strings.TrimPrefix(n, "/")) {
				files[n] = map[string]any{"IsIncremented": false, "IsSkipped": false}
			}
		}
	}
	if o.files {
		g.put("basebackups_005/"+c.name+"/files_metadata.json", map[string]any{"Files": files, "TarFileSets": sets})
	}
	body := o.sentinel
	if body == "" {
		b, err := json.Marshal(map[string]any{
			"LSN": uint64(c.start), "FinishLSN": uint64(c.stop), "PgVersion": g.db.Major * 10000, "Version": 2,
			"StartTime": c.began, "FinishTime": c.ended,
		})
		must(g.t, err)
		body = string(b)
	}
	g.bucket.SetBytes("basebackups_005/"+c.name+"_backup_stop_sentinel.json", []byte(body))
	g.ship()
	return c.name
}

func (g *walg) put(key string, doc any) {
	g.t.Helper()
	b, err := json.Marshal(doc)
	must(g.t, err)
	g.bucket.SetBytes(key, b)
}

func rename(t *testing.T, tarball []byte, f func(string) string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	eachMember(t, tarball, func(h *tar.Header, content []byte) {
		if h.Name = f(h.Name); h.Name == "" {
			h.Name = "./"
		}
		must(t, w.WriteHeader(h))
		_, err := w.Write(content)
		must(t, err)
	})
	must(t, w.Close())
	return b.Bytes()
}

func eachMember(t *testing.T, tarball []byte, do func(*tar.Header, []byte)) {
	t.Helper()
	for r := tar.NewReader(bytes.NewReader(tarball)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		do(h, content)
	}
}

func memberNames(t *testing.T, tarball []byte) (names []string) {
	t.Helper()
	eachMember(t, tarball, func(h *tar.Header, _ []byte) { names = append(names, h.Name) })
	return names
}

func startWALG(t *testing.T, ext string) *walg {
	t.Helper()
	db := pgtest.Start(t, pgtest.Options{Settings: serverSettings(), InitdbArgs: []string{"--wal-segsize=1"}})
	shrink(db)
	db.Exec("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)")
	g := &walg{t: t, db: db, bucket: archivetest.Memory(), ext: ext, tli: 1}
	g.pos = segmentSize.Floor(parseLSN(t, pgtest.Query[string](db, "SELECT pg_current_wal_flush_lsn()::text")))
	return g
}

func TestArchivesOfWALG(t *testing.T) {
	for name, c := range map[string]struct {
		ext string
		o   walgOptions
	}{
		"lz4, as WAL-G writes it":  {".lz4", walgOptions{slash: true, files: true}},
		"zstd, the least there is": {".zst", walgOptions{sentinel: "{}"}},
	} {
		t.Run(name, func(t *testing.T) {
			g := startWALG(t, c.ext)
			backup := g.snapshot(c.o)
			g.db.Exec("INSERT INTO t VALUES (2)")
			two := parseLSN(t, pgtest.Query[string](g.db, "SELECT pg_current_wal_insert_lsn()::text"))
			g.ship()
			g.db.Exec("INSERT INTO t VALUES (3)")
			g.ship()
			a := archive.New(g.bucket)
			r := restoreTo(t, a, Request{})
			if r.plan.SegmentSize != segmentSize || r.plan.SystemIdentifier == 0 {
				t.Errorf("the plan has segments of %d bytes and system identifier %d", r.plan.SegmentSize, r.plan.SystemIdentifier)
			}
			s := r.start()
			wantRows(t, s, 1, 2, 3)

			testPromotionUnderWALG(t, g, two)
			testSwappedSegments(t, g, two)

			if !c.o.files {
				return
			}
			// The list of files knows what is missing.
			for _, part := range []string{"part_002", "pg_control"} {
				b := cloneBucket(t, g.bucket)
				must(t, b.Remove(t.Context(), "basebackups_005/"+backup+"/tar_partitions/"+part+".tar"+c.ext))
				wantCorrupt(t, archive.New(b), part)
			}
			b := cloneBucket(t, g.bucket)
			key := "basebackups_005/" + backup + "/tar_partitions/part_001.tar" + c.ext
			var short bytes.Buffer
			tw := tar.NewWriter(&short)
			n := 0
			eachMember(t, g.decompress(b.Bytes(key)), func(h *tar.Header, content []byte) {
				if n++; n < 50 {
					must(t, tw.WriteHeader(h))
					_, err := tw.Write(content)
					must(t, err)
				}
			})
			must(t, tw.Close())
			b.SetBytes(key, g.compress(short.Bytes()))
			wantCorrupt(t, archive.New(b), "a part with fewer files")
		})
	}
}

// A promotion in the middle of a segment: the parent's file of that segment never came, as with WAL-G, only the child's.
func testPromotionUnderWALG(t *testing.T, g *walg, fork wal.LSN) {
	bucket := cloneBucket(t, g.bucket)
	r := restoreTo(t, archive.New(bucket), Request{Target: Target{LSN: fork}})
	s := r.start()
	h, raw := readHistory(t, r.dir, 2)
	if segmentSize.Offset(h[0].LSN) == 0 {
		t.Fatalf("the fork at %s is at the border of a segment: this tests nothing", h[0].LSN)
	}
	next := &walg{t: t, db: s, bucket: bucket, ext: g.ext, tli: 2, pos: segmentSize.Floor(h[0].LSN)}
	bucket.SetBytes("wal_005/00000002.history"+g.ext, next.compress(raw))
	s.Exec("INSERT INTO t VALUES (4)")
	next.ship()
	remove(t, bucket, func(key string) bool {
		return strings.HasPrefix(key, "wal_005/00000001") && key >= "wal_005/"+segmentSize.SegmentAt(1, fork).Name(segmentSize)
	})
	wantRows(t, restoreTo(t, archive.New(bucket), Request{}).start(), 1, 2, 4)
}

// Nothing but the pages themselves tells which segment an object of WAL-G's holds.
func testSwappedSegments(t *testing.T, g *walg, at wal.LSN) {
	key := func(l wal.LSN) string { return "wal_005/" + segmentSize.SegmentAt(1, l).Name(segmentSize) + g.ext }
	zeros := g.compress(make([]byte, segmentSize))
	for name, body := range map[string][]byte{"another segment": g.bucket.Bytes(key(at + wal.LSN(segmentSize))), "zeros": zeros} {
		b := cloneBucket(t, g.bucket)
		a := archive.New(b)
		r := recovering(t, a, Request{}, Options{})
		b.SetBytes(key(at), body)
		if _, err := Fill(t.Context(), a, FillOptions{Dir: r.dir}); !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("%s in place of a segment: %v, want ErrCorrupt", name, err)
		}
	}
}

func (g *walg) decompress(b []byte) []byte {
	g.t.Helper()
	raw, err := io.ReadAll(lz4.NewReader(bytes.NewReader(b)))
	must(g.t, err)
	return raw
}

func wantCorrupt(t *testing.T, a *archive.Archive, what string) {
	t.Helper()
	plan, err := NewPlan(t.Context(), a, Request{})
	if err == nil {
		_, err = Restore(t.Context(), a, plan, Options{Dir: filepath.Join(t.TempDir(), "data")})
	}
	if !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("%s is missing: %v, want ErrCorrupt", what, err)
	}
}

// Two siblings in an archive without epochs: a point that both have lived through is ambiguous, the latest is that of
// the higher number.
func TestSiblingsWithoutEpochs(t *testing.T) {
	g := startWALG(t, ".zst")
	g.snapshot(walgOptions{})
	g.db.Exec("INSERT INTO t VALUES (2)")
	g.ship()
	a := archive.New(g.bucket)
	fork := restoreTo(t, a, Request{})
	s := fork.start()
	g.db.Exec("INSERT INTO t VALUES (3)")
	g.ship()
	h, raw := readHistory(t, fork.dir, 2)
	next := &walg{t: t, db: s, bucket: g.bucket, ext: ".zst", tli: 2, pos: segmentSize.Floor(h[0].LSN)}
	next.bucket.SetBytes("wal_005/00000002.history.zst", next.compress(raw))
	s.Exec("INSERT INTO t VALUES (20)")
	next.ship()

	at := min(next.pos, g.pos) - 1000
	if _, err := NewPlan(t.Context(), a, Request{Target: Target{LSN: at}}); !errors.Is(err, ErrAmbiguous) {
		t.Errorf("an LSN that two timelines have: %v, want ErrAmbiguous", err)
	}
	for tli, rows := range map[wal.Timeline][]int32{0: {1, 2, 20}, 1: {1, 2, 3}, 2: {1, 2, 20}} {
		wantRows(t, restoreTo(t, a, Request{Target: Target{Timeline: tli}}).start(), rows...)
	}
}
