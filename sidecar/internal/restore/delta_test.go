package restore

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

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
	gone := pgtest.Query[string](g.db, "SELECT pg_relation_filepath('gone')")
	chain := []*delta{}
	for step := range 3 {
		d := g.delta(chain)
		chain = append(chain, d)
		g.db.Exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", step+2), fmt.Sprintf("UPDATE big SET s = 'step %d' WHERE n %% 500 = %d", step, step))
		switch step {
		case 0:
			g.db.Exec("DROP TABLE gone", "CHECKPOINT", "CREATE TABLE fresh AS SELECT 1 AS n")
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
	if _, err := os.Stat(filepath.Join(r.dir, gone)); err == nil {
		t.Errorf("%s is there again, a file that the last snapshot does not have", gone)
	}

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
