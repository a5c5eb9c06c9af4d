package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
)

const testBucket = "test-bucket"

func mustOpen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func allow(Bucket, *Object) error { return nil }

func newBucket(t *testing.T, s *Store) {
	t.Helper()
	must(t, s.SetBucket(testBucket, func(b *Bucket, _ bool) error { b.Class = "Standard"; return nil }))
}

func put(t *testing.T, s *Store, key, content string) {
	t.Helper()
	blob, err := s.WriteBlob(strings.NewReader(content))
	must(t, err)
	defer blob.Discard()
	must(t, s.Put(testBucket, &Object{Key: key, Extents: blob.Extents(), Size: blob.Size, CRC64: blob.CRC64}, allow))
}

func appendTo(t *testing.T, s *Store, key, content string) {
	t.Helper()
	blob, err := s.WriteBlob(strings.NewReader(content))
	must(t, err)
	defer blob.Discard()
	must(t, s.Append(testBucket, key, blob, func(_ Bucket, old *Object) (*Object, error) {
		o := &Object{Key: key, Type: "Appendable", Size: blob.Size}
		if old != nil {
			o.Size += old.Size
		}
		return o, nil
	}))
}

// contents reads everything in the bucket.
func contents(t *testing.T, s *Store) map[string]string {
	t.Helper()
	page, err := s.List(testBucket, Query{Max: 1 << 30})
	must(t, err)
	out := map[string]string{}
	for _, o := range page.Objects {
		out[o.Key] = readAll(t, s, o.Key)
	}
	return out
}

func readAll(t *testing.T, s *Store, key string) string {
	t.Helper()
	h, err := s.Open(testBucket, key)
	must(t, err)
	defer h.Close()
	var b bytes.Buffer
	must(t, h.Copy(&b, 0, h.Size))
	return b.String()
}

func blobs(t *testing.T, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "data"))
	must(t, err)
	return len(entries)
}

func TestEverythingSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	newBucket(t, s)
	odd := "a\xff\x00\n/é"
	put(t, s, odd, "binary key")
	put(t, s, "a", "1")
	put(t, s, "a/b", "overwritten")
	put(t, s, "a/b", "2")
	put(t, s, "empty", "")
	put(t, s, "gone", "3")
	must(t, s.Delete(testBucket, []string{"gone", "never there"}, allow))
	appendTo(t, s, "tail", "abc")
	appendTo(t, s, "tail", "def")
	upload := &Upload{ID: "u1", Key: "a", Initiated: time.Now().UTC(), Template: Object{Class: "IA"}}
	must(t, s.Initiate(testBucket, upload, allow))
	for n, text := range []string{1: "old", 2: "two"} {
		if n > 0 {
			blob, err := s.WriteBlob(strings.NewReader(text))
			must(t, err)
			must(t, s.PutPart(testBucket, "a", "u1", Part{Number: n, Extents: blob.Extents(), Size: blob.Size}))
			blob.Discard()
		}
	}
	want := map[string]string{odd: "binary key", "a": "1", "a/b": "2", "empty": "", "tail": "abcdef"}
	for range 2 {
		if diff := cmp.Diff(want, contents(t, s)); diff != "" {
			t.Fatal(diff)
		}
		u, err := s.Upload(testBucket, "a", "u1")
		must(t, err)
		if len(u.Parts) != 2 || u.Template.Class != "IA" || !u.Initiated.Equal(upload.Initiated) {
			t.Fatalf("upload %+v", u)
		}
		if n := blobs(t, dir); n != 6 {
			t.Errorf("%d data files, want 6: four objects that are not empty and two parts", n)
		}
		must(t, s.Close())
		s = mustOpen(t, dir)
	}
	must(t, s.Complete(testBucket, "a", "u1", func(_ Bucket, _ *Object, u *Upload) (*Object, error) {
		return &Object{Key: "a", Extents: slices.Concat(u.Parts[1].Extents, u.Parts[2].Extents), Size: 6}, nil
	}))
	must(t, s.Close())
	s = mustOpen(t, dir)
	if got := readAll(t, s, "a"); got != "oldtwo" {
		t.Errorf("completed upload holds %q", got)
	}
	if _, err := s.Upload(testBucket, "a", "u1"); !errors.Is(err, ErrNoUpload) {
		t.Errorf("completed upload: %v", err)
	}
}

// TestTornJournal cuts the journal at each byte of its last line, as a crash may.
func TestTornJournal(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	newBucket(t, s)
	put(t, s, "first", "1")
	before, err := os.Stat(filepath.Join(dir, "journal"))
	must(t, err)
	put(t, s, "second", "2")
	must(t, s.Close())
	journal, err := os.ReadFile(filepath.Join(dir, "journal"))
	must(t, err)
	for cut := int(before.Size()); cut < len(journal); cut += 7 {
		must(t, os.WriteFile(filepath.Join(dir, "journal"), journal[:cut], 0o644))
		must(t, os.WriteFile(filepath.Join(dir, "data", "0000000000000002"), []byte("2"), 0o644))
		s := mustOpen(t, dir)
		if diff := cmp.Diff(map[string]string{"first": "1"}, contents(t, s)); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
		if n := blobs(t, dir); n != 1 {
			t.Fatalf("cut at %d: %d data files", cut, n)
		}
		put(t, s, "third", "3")
		must(t, s.Close())
		s = mustOpen(t, dir)
		if diff := cmp.Diff(map[string]string{"first": "1", "third": "3"}, contents(t, s)); diff != "" {
			t.Fatalf("cut at %d, then written: %s", cut, diff)
		}
		must(t, s.Close())
	}
}

func TestDamageIsNotOverlooked(t *testing.T) {
	for name, damage := range map[string]func(dir string) error{
		"journal": func(dir string) error {
			path := filepath.Join(dir, "journal")
			data, err := os.ReadFile(path)
			data[len(data)/2] ^= 1
			return errors.Join(err, os.WriteFile(path, data, 0o644))
		},
		"data file missing": func(dir string) error { return os.Remove(filepath.Join(dir, "data", "0000000000000001")) },
		"foreign file":      func(dir string) error { return os.WriteFile(filepath.Join(dir, "data", "x"), nil, 0o644) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, dir)
			newBucket(t, s)
			put(t, s, "a", "1")
			put(t, s, "b", "2")
			must(t, s.Close())
			must(t, damage(dir))
			if s, err := Open(dir, Options{Log: slog.New(slog.DiscardHandler)}); err == nil {
				t.Error("opened in spite of the damage")
				_ = s.Close()
			}
		})
	}
}

func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	if _, err := Open(dir, Options{}); err == nil {
		t.Fatal("opened twice")
	}
	must(t, s.Close())
	mustOpen(t, dir)
}

func TestFailedUploadLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	newBucket(t, s)
	broken := errors.New("connection lost")
	if _, err := s.WriteBlob(io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	blob, err := s.WriteBlob(strings.NewReader("refused"))
	must(t, err)
	refusal := errors.New("no")
	err = s.Put(testBucket, &Object{Key: "k", Extents: blob.Extents(), Size: blob.Size}, func(Bucket, *Object) error { return refusal })
	if !errors.Is(err, refusal) {
		t.Errorf("got %v", err)
	}
	blob.Discard()
	if n := blobs(t, dir); n != 0 || len(contents(t, s)) != 0 {
		t.Errorf("%d data files, objects %v", n, contents(t, s))
	}
}

func TestReaderKeepsItsObject(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir)
	newBucket(t, s)
	put(t, s, "k", "old content")
	h, err := s.Open(testBucket, "k")
	must(t, err)
	put(t, s, "k", "new")
	must(t, s.Delete(testBucket, []string{"k"}, allow))
	var b bytes.Buffer
	must(t, h.Copy(&b, 4, 7))
	if b.String() != "content" {
		t.Errorf("read %q", b.String())
	}
	h.Close()
	if n := blobs(t, dir); n != 0 {
		t.Errorf("%d data files are left", n)
	}
}

func TestJournalIsCompacted(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{NoSync: true, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	newBucket(t, s)
	for i := range 1500 {
		put(t, s, "k", fmt.Sprint(i))
	}
	must(t, s.Close())
	s = mustOpen(t, dir)
	info, err := os.Stat(filepath.Join(dir, "journal"))
	must(t, err)
	if info.Size() > 1000 || readAll(t, s, "k") != "1499" {
		t.Errorf("journal of %d bytes, content %q", info.Size(), readAll(t, s, "k"))
	}
}

func TestIndexAgainstModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 2))
	var x index
	model := map[string]*Object{}
	for range 30000 {
		key := fmt.Sprint(random.IntN(5000))
		if random.IntN(3) == 0 {
			if got := x.remove(key); got != model[key] {
				t.Fatalf("removed %v, want %v", got, model[key])
			}
			delete(model, key)
			continue
		}
		o := &Object{Key: key, Size: int64(random.IntN(100))}
		if got := x.put(o); got != model[key] {
			t.Fatalf("replaced %v, want %v", got, model[key])
		}
		model[key] = o
	}
	var want, got []string
	var bytes int64
	for k, o := range model {
		want = append(want, k)
		bytes += o.Size
		if x.get(k) != o {
			t.Fatalf("get %s: %v", k, x.get(k))
		}
	}
	slices.Sort(want)
	x.ascend("", func(o *Object) (string, bool) { got = append(got, o.Key); return "", true })
	if diff := cmp.Diff(want, got); diff != "" || x.count != len(model) || x.bytes != bytes {
		t.Errorf("count %d, bytes %d, want %d, %d; order: %s", x.count, x.bytes, len(model), bytes, diff)
	}
	at, _ := slices.BinarySearch(want, "25")
	got = nil
	x.ascend("25", func(o *Object) (string, bool) { got = append(got, o.Key); return "", true })
	if diff := cmp.Diff(want[at:], got); diff != "" {
		t.Error(diff)
	}
}

func TestAfterPrefix(t *testing.T) {
	for in, want := range map[string]string{"a/": "a0", "a\xff": "b", "a\xff\xff": "b"} {
		if got, ok := afterPrefix(in); got != want || !ok {
			t.Errorf("%q: %q", in, got)
		}
	}
	if _, ok := afterPrefix("\xff\xff"); ok {
		t.Error("something is above everything")
	}
}
