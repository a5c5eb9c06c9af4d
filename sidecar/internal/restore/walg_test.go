package restore

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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

			// A promotion under WAL-G: the parent's last segment never came, only the child's first.
			g.db.Stop(pgtest.Fast)
			h, raw := readHistory(t, r.dir, 2)
			next := &walg{t: t, db: s, bucket: g.bucket, ext: c.ext, tli: 2, pos: segmentSize.Floor(h[0].LSN)}
			next.bucket.SetBytes("wal_005/00000002.history"+c.ext, next.compress(raw))
			s.Exec("INSERT INTO t VALUES (4)")
			next.ship()
			wantRows(t, restoreTo(t, a, Request{}).start(), 1, 2, 3, 4)

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

func increment(size int64, pages map[uint32][]byte, order ...uint32) []byte {
	b := append([]byte(incrementMagic), make([]byte, 12)...)
	binary.LittleEndian.PutUint64(b[4:], uint64(size))
	binary.LittleEndian.PutUint32(b[12:], uint32(len(order)))
	for _, n := range order {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	for _, n := range order {
		b = append(b, pages[n]...)
	}
	return b
}

func TestIncrement(t *testing.T) {
	page := func(c byte) []byte { return bytes.Repeat([]byte{c}, dataPage) }
	join := func(pages ...[]byte) []byte { return bytes.Join(pages, nil) }
	apply := func(before, inc []byte) ([]byte, error) {
		f, err := os.Create(filepath.Join(t.TempDir(), "rel"))
		must(t, err)
		defer f.Close()
		_, err = f.Write(before)
		must(t, err)
		err = applyIncrement(f, bytes.NewReader(inc), int64(len(inc)), make([]byte, dataPage))
		after, rerr := os.ReadFile(f.Name())
		must(t, rerr)
		return after, err
	}
	before := join(page('a'), page('b'), page('c'))
	two := map[uint32][]byte{0: page('x'), 2: page('z'), 3: page('w')}
	for name, c := range map[string]struct{ inc, want []byte }{
		"same size":  {increment(3*dataPage, two, 0, 2), join(page('x'), page('b'), page('z'))},
		"grown":      {increment(4*dataPage, two, 3), join(page('a'), page('b'), page('c'), page('w'))},
		"shortened":  {increment(1*dataPage, two, 0), page('x')},
		"no page":    {increment(2*dataPage, two), join(page('a'), page('b'))},
		"grown wide": {increment(5*dataPage, two, 3), join(page('a'), page('b'), page('c'), page('w'), page(0))},
	} {
		if got, err := apply(before, c.inc); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: %d bytes, %v; want %d bytes", name, len(got), err, len(c.want))
		}
	}
	good := increment(3*dataPage, two, 0, 2)
	for name, inc := range map[string][]byte{
		"cut":           good[:len(good)-1],
		"cut header":    good[:10],
		"longer":        append(bytes.Clone(good), 0),
		"magic":         append([]byte("wi1x"), good[4:]...),
		"past the end":  increment(3*dataPage, two, 3),
		"odd size":      increment(3*dataPage+1, two, 0),
		"negative size": increment(-dataPage, two, 0),
	} {
		if _, err := apply(before, inc); !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", name, err)
		}
	}
}

// A full snapshot and two deltas on it, as WAL-G makes them.
func TestDeltas(t *testing.T) {
	g := startWALG(t, ".lz4")
	g.db.Exec("CREATE TABLE big AS SELECT g AS n, repeat('x', 200) AS s FROM generate_series(1, 3000) g", "CREATE TABLE gone (n int)",
		"INSERT INTO gone VALUES (1)")
	chain := []*delta{}
	for step := range 3 {
		d := g.delta(chain)
		chain = append(chain, d)
		g.db.Exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", step+2), fmt.Sprintf("UPDATE big SET s = 'step %d' WHERE n %% 500 = %d", step, step))
		switch step {
		case 0:
			g.db.Exec("DROP TABLE gone", "CREATE TABLE fresh AS SELECT 1 AS n")
		case 1:
			g.db.Exec("DELETE FROM big WHERE n > 2000", "VACUUM big")
		}
	}
	g.ship()
	sum := "SELECT md5(string_agg(n || s, ',' ORDER BY n)) FROM big"
	want := pgtest.Query[string](g.db, sum)
	increments, skipped := 0, 0
	for _, d := range chain[1:] {
		increments += d.increments
		skipped += d.skipped
	}
	if increments == 0 || skipped == 0 {
		t.Fatalf("the deltas have %d increments and %d unchanged files: they test nothing", increments, skipped)
	}
	a := archive.New(g.bucket)
	r := restoreTo(t, a, Request{})
	if len(r.plan.Snapshot.Links) != 3 {
		t.Fatalf("the plan has a chain of %d, want 3", len(r.plan.Snapshot.Links))
	}
	s := r.start()
	wantRows(t, s, 1, 2, 3, 4)
	if got := pgtest.Query[string](s, sum); got != want {
		t.Error("the restored table differs")
	}
	if n := pgtest.Query[int64](s, "SELECT count(*) FROM pg_class WHERE relname IN ('gone', 'fresh')"); n != 1 {
		t.Errorf("%d of the tables gone and fresh are there, want fresh alone", n)
	}
	s.Exec("SELECT count(*) FROM fresh")

	b := cloneBucket(t, g.bucket)
	must(t, b.Remove(t.Context(), "basebackups_005/"+chain[0].name+"_backup_stop_sentinel.json"))
	_, err := NewPlan(t.Context(), archive.New(b), Request{})
	if !errors.Is(err, ErrNoSnapshot) || !strings.Contains(err.Error(), "is gone") {
		t.Errorf("deltas without their full snapshot: %v, want ErrNoSnapshot that says why", err)
	}
	b = cloneBucket(t, g.bucket)
	must(t, b.Remove(t.Context(), "basebackups_005/"+chain[1].name+"/files_metadata.json"))
	wantCorrupt(t, archive.New(b), "files_metadata.json")
}

type delta struct {
	name                string
	start               wal.LSN
	content             map[string][]byte
	increments, skipped int
}

// delta stores the next snapshot of a chain: files that are as they were are left out, of others only the pages that
// differ are stored.
func (g *walg) delta(chain []*delta) *delta {
	g.t.Helper()
	w := &writer{t: g.t, db: g.db, tli: g.tli, pos: archive.MaxLSN}
	c := w.copyFiles()
	d := &delta{name: c.name, start: c.start, content: map[string][]byte{}}
	var parent *delta
	doc := map[string]any{"LSN": uint64(c.start), "FinishLSN": uint64(c.stop), "FinishTime": c.ended}
	if len(chain) > 0 {
		parent = chain[len(chain)-1]
		d.name += "_D_" + parent.name[5:29]
		doc["DeltaFrom"], doc["DeltaFullName"] = parent.name, chain[0].name
		doc["DeltaLSN"], doc["DeltaCount"] = uint64(parent.start), len(chain)
	}
	files := map[string]any{}
	for _, name := range c.order {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		eachMember(g.t, c.parts[name], func(h *tar.Header, content []byte) {
			if isHeld(strings.TrimPrefix(h.Name, "/")) {
				must(g.t, tw.WriteHeader(h))
				_, err := tw.Write(content)
				must(g.t, err)
				return
			}
			inc, skip := d.member(parent, h, &content)
			files[h.Name] = map[string]any{"IsIncremented": inc, "IsSkipped": skip}
			if skip {
				return
			}
			h.Size = int64(len(content))
			must(g.t, tw.WriteHeader(h))
			_, err := tw.Write(content)
			must(g.t, err)
		})
		must(g.t, tw.Close())
		g.bucket.SetBytes("basebackups_005/"+d.name+"/tar_partitions/"+name+".tar"+g.ext, g.compress(b.Bytes()))
	}
	g.put("basebackups_005/"+d.name+"/files_metadata.json", map[string]any{"Files": files})
	g.put("basebackups_005/"+d.name+"_backup_stop_sentinel.json", doc)
	g.ship()
	return d
}

func (d *delta) member(parent *delta, h *tar.Header, content *[]byte) (inc, skip bool) {
	if h.Typeflag != tar.TypeReg {
		return false, false
	}
	now := *content
	d.content[h.Name] = now
	if parent == nil {
		return false, false
	}
	before, known := parent.content[h.Name]
	if known && bytes.Equal(before, now) {
		d.skipped++
		return false, true
	}
	if !known || !strings.HasPrefix(h.Name, "/base/") || len(now) == 0 || len(now)%dataPage != 0 || strings.Contains(filepath.Base(h.Name), "_") {
		return false, false
	}
	pages := map[uint32][]byte{}
	var order []uint32
	for n := 0; n*dataPage < len(now); n++ {
		page := now[n*dataPage : (n+1)*dataPage]
		if (n+1)*dataPage > len(before) || !bytes.Equal(page, before[n*dataPage:(n+1)*dataPage]) {
			pages[uint32(n)] = page
			order = append(order, uint32(n))
		}
	}
	d.increments++
	*content = increment(int64(len(now)), pages, order...)
	return true, false
}
