package basebackup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/time/rate"
)

func write(t *testing.T, path string, size int) []byte {
	t.Helper()
	content := bytes.Repeat([]byte(filepath.Base(path)+"."), size/len(filepath.Base(path)+".")+1)[:size]
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o640); err != nil {
		t.Fatal(err)
	}
	return content
}

func openTree(t *testing.T, dir string) *tree {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return &tree{root: root}
}

func newReading() *reading {
	return &reading{progress: &progress{}, metrics: NewMetrics(nil), register: newRegister(false)}
}

type file struct {
	header  *tar.Header
	content []byte
}

func untar(t *testing.T, r io.Reader) map[string]file {
	t.Helper()
	all := map[string]file{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := all[h.Name]; twice {
			t.Errorf("%s is there twice", h.Name)
		}
		all[h.Name] = file{h, content}
	}
}

func TestStreamIsATar(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	want := map[string][]byte{}
	var p part
	long := strings.Repeat("d", 90) + "/" + strings.Repeat("ä", 60)
	sizes := map[string]int{"zero": 0, "one": 1, "block": 512, "over": 513, "chunk": chunkSize, "more": chunkSize + 8192 + 7, long: 10}
	p.entries = append(p.entries, entry{tree: tree, rel: ".", dir: true}, entry{tree: tree, rel: "hollow", dir: true})
	if err := os.Mkdir(filepath.Join(dir, "hollow"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, size := range sizes {
		want["/"+name] = write(t, filepath.Join(dir, name), size)
		p.entries = append(p.entries, entry{tree: tree, rel: name, size: int64(size), segment: noRelation})
	}
	p.entries = append(p.entries, entry{tree: tree, rel: "one", as: "elsewhere/two", segment: noRelation})
	want["/elsewhere/two"] = want["/one"]
	if err := iotest.TestReader(newReading().stream(t.Context(), p), readAll(t, newReading().stream(t.Context(), p))); err != nil {
		t.Error(err)
	}
	raw := readAll(t, newReading().stream(t.Context(), p))
	if len(raw)%512 != 0 || !bytes.HasSuffix(raw, make([]byte, 1024)) {
		t.Errorf("%d bytes do not end as a tar does", len(raw))
	}
	got := untar(t, bytes.NewReader(raw))
	for name, content := range want {
		f := got[name]
		if f.header == nil || !bytes.Equal(f.content, content) || f.header.Typeflag != tar.TypeReg || f.header.Mode != 0o640 {
			t.Errorf("%s: %+v with %d bytes, want %d", name, f.header, len(f.content), len(content))
		}
		if f.header != nil && (f.header.Format == tar.FormatUSTAR) == (name == "/"+long) {
			t.Errorf("%s has format %s", name, f.header.Format)
		}
	}
	for name, mode := range map[string]int64{"/": -1, "/hollow": 0o700} {
		h := got[name].header
		if h == nil || h.Typeflag != tar.TypeDir || mode >= 0 && h.Mode != mode {
			t.Errorf("%s: %+v", name, h)
		}
	}
	if len(got) != len(want)+2 {
		t.Errorf("%d members, want %d", len(got), len(want)+2)
	}
}

func readAll(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// changing reads until the header of each file is out, changes the file, and reads on.
func TestFilesThatChangeWhileTheyAreRead(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	const size = 3*chunkSize + 100
	for _, test := range []struct {
		name   string
		change func(path string) error
		want   func(content []byte) []byte
	}{
		{"grows", func(path string) error { return os.Truncate(path, 5*chunkSize) }, func(c []byte) []byte { return c }},
		{"shrinks", func(path string) error { return os.Truncate(path, chunkSize+5) }, func(c []byte) []byte {
			return append(bytes.Clone(c[:chunkSize+5]), make([]byte, size-chunkSize-5)...)
		}},
		{"is emptied", func(path string) error { return os.Truncate(path, 0) }, func([]byte) []byte { return make([]byte, size) }},
		{"is removed", os.Remove, func(c []byte) []byte { return c }},
	} {
		path := filepath.Join(dir, test.name)
		content := write(t, path, size)
		after := entry{tree: tree, rel: "after", segment: noRelation}
		tail := write(t, filepath.Join(dir, "after"), 700)
		s := newReading().stream(t.Context(), part{entries: []entry{{tree: tree, rel: test.name, segment: noRelation}, after}})
		head := make([]byte, 512)
		if _, err := io.ReadFull(s, head); err != nil {
			t.Fatal(err)
		}
		if err := test.change(path); err != nil {
			t.Fatal(err)
		}
		got := untar(t, io.MultiReader(bytes.NewReader(head), s))
		if !bytes.Equal(got["/"+test.name].content, test.want(content)) {
			t.Errorf("a file that %s: %d bytes, not the expected ones", test.name, len(got["/"+test.name].content))
		}
		if !bytes.Equal(got["/after"].content, tail) {
			t.Errorf("what comes after a file that %s is damaged", test.name)
		}
	}
}

func TestWhatIsGoneBeforeItIsOpenedIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, filepath.Join(dir, "here"), 10)
	r := newReading()
	r.progress.totalFiles.Store(2)
	r.progress.totalBytes.Store(15)
	s := r.stream(t.Context(), part{entries: []entry{
		{tree: tree, rel: "gone", size: 5}, {tree: tree, rel: "gonedir", dir: true}, {tree: tree, rel: "here", segment: noRelation},
	}})
	if got := untar(t, s); len(got) != 1 || got["/here"].header == nil {
		t.Errorf("the members are %v", got)
	}
	if got, want := r.progress.now(), (Progress{Files: 1, TotalFiles: 1, Bytes: 10, TotalBytes: 10}); got != want || s.members != 1 {
		t.Errorf("progress %+v, want %+v; %d members", got, want, s.members)
	}
}

func TestUnreadableIsNotGone(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	// What stands where a file was is no reason to leave it out in silence.
	if err := os.Mkdir(filepath.Join(dir, "file"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := io.ReadAll(newReading().stream(t.Context(), part{entries: []entry{{tree: tree, rel: "file"}}}))
	if err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "file") {
		t.Errorf("a directory in the place of a file: %v", err)
	}
}

func TestReadingStopsWithItsContextAndKeepsItsRate(t *testing.T) {
	dir := t.TempDir()
	tree := openTree(t, dir)
	write(t, filepath.Join(dir, "f"), 4*chunkSize)
	ctx, cancel := context.WithCancel(t.Context())
	r := newReading()
	r.limiter = rate.NewLimiter(rate.Every(time.Hour), chunkSize) // the first chunk, and no second one
	s := r.stream(ctx, part{entries: []entry{{tree: tree, rel: "f", segment: noRelation}}})
	if _, err := io.CopyN(io.Discard, s, 512+chunkSize); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(s); !errors.Is(err, context.Canceled) {
		t.Errorf("after cancelling: %v", err)
	}
	s.close()
}

func TestPlan(t *testing.T) {
	inv := &inventory{}
	for i := range 100 {
		inv.add(entry{rel: fmt.Sprint(i), size: 1 << 20})
	}
	inv.add(entry{rel: "huge", size: 1 << 30})
	parts := plan(inv, 10<<20, false)
	var n int
	for i, p := range parts {
		if p.name != fmt.Sprintf("part_%03d", i+1) || len(p.entries) == 0 || p.size > 10<<20 && len(p.entries) > 1 {
			t.Errorf("%s has %d files with %d bytes", p.name, len(p.entries), p.size)
		}
		for _, e := range p.entries {
			if e.rel != inv.entries[n].rel {
				t.Fatalf("entry %d is %s, want %s", n, e.rel, inv.entries[n].rel)
			}
			n++
		}
	}
	if n != 101 || len(parts) != 13 {
		t.Errorf("%d entries in %d parts", n, len(parts))
	}
	if first := largestFirst(parts)[0]; first.entries[0].rel != "huge" {
		t.Errorf("the first part to be read begins with %s", first.entries[0].rel)
	}
	if n := len(plan(inv, 0, false)); n < 2 {
		t.Errorf("%d parts by default", n)
	}
	if got := plan(&inventory{}, 0, true); len(got) != 0 {
		t.Errorf("nothing makes %d parts", len(got))
	}
}
