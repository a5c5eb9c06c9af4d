package archivetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
)

// Breakable is implemented by a bucket under test that can be taken its rights, or its service, for the rest of the
// test. The parts of the contract about errors are tested only with these.
type Breakable interface {
	Deny(t *testing.T)
	Down(t *testing.T)
}

// Run is the acceptance test of the archive.Bucket contract. open returns a new, empty bucket.
func Run(t *testing.T, open func(t *testing.T) archive.Bucket) {
	t.Helper()
	for _, c := range []struct {
		name string
		test func(*testing.T, archive.Bucket)
	}{
		{"put and read back", testPut},
		{"created once", testCreateOnce},
		{"replaced on request", testReplace},
		{"not found", testNotFound},
		{"ranges", testRanges},
		{"list", testList},
		{"list pages", testListPages},
		{"upload sizes", testUploadSizes},
		{"upload created once", testUploadOnce},
		{"upload invisible until done", testUploadInvisible},
		{"upload given up", testUploadGivenUp},
		{"concurrent creates", testConcurrentCreates},
		{"remove", testRemove},
		{"cancelled", testCancelled},
		{"denied", testDenied},
		{"down", testDown},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open(t)) })
	}
}

// random is reproducible content.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	src := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = src.Read(b)
	return b
}

func mustPut(t *testing.T, b archive.Bucket, key string, body []byte, o archive.PutOptions) {
	t.Helper()
	if err := b.Put(t.Context(), key, body, o); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

func read(t *testing.T, b archive.Bucket, key string, r archive.Range) ([]byte, archive.ObjectInfo) {
	t.Helper()
	body, info, err := b.Open(t.Context(), key, r)
	if err != nil {
		t.Fatalf("open %s: %v", key, err)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("read %s: %v", key, err)
	}
	if err := body.Close(); err != nil {
		t.Fatalf("close %s: %v", key, err)
	}
	return raw, info
}

func wantContent(t *testing.T, b archive.Bucket, key string, want []byte) {
	t.Helper()
	if got, _ := read(t, b, key, archive.Range{}); !bytes.Equal(got, want) {
		t.Errorf("%s holds %d bytes (%.20q…), want %d (%.20q…)", key, len(got), got, len(want), want)
	}
}

func wantMissing(t *testing.T, b archive.Bucket, key string) {
	t.Helper()
	if _, err := b.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat %s: %v, want %v", key, err, fs.ErrNotExist)
	}
}

func testPut(t *testing.T, b archive.Bucket) {
	body := []byte("some bytes")
	meta := map[string]string{"outrider-length": "10", "outrider-sha256": "abc0", "Mixed-Case": "Value with blanks"}
	mustPut(t, b, "a/b.json", body, archive.PutOptions{Meta: meta})
	stat, err := b.Stat(t.Context(), "a/b.json")
	if err != nil {
		t.Fatal(err)
	}
	got, opened := read(t, b, "a/b.json", archive.Range{})
	if !bytes.Equal(got, body) {
		t.Errorf("read %q, want %q", got, body)
	}
	want := map[string]string{"outrider-length": "10", "outrider-sha256": "abc0", "mixed-case": "Value with blanks"}
	for name, info := range map[string]archive.ObjectInfo{"Stat": stat, "Open": opened} {
		if info.Key != "a/b.json" || info.Size != 10 || info.CRC64 != crc64.Checksum(body, crcTable) {
			t.Errorf("%s says key %q, size %d, CRC64 %d", name, info.Key, info.Size, info.CRC64)
		}
		if diff := cmp.Diff(want, info.Meta); diff != "" {
			t.Errorf("%s: metadata (-want +got):\n%s", name, diff)
		}
		if info.LastModified.IsZero() || info.SeenAt.IsZero() || info.SeenAt.Before(info.LastModified) {
			t.Errorf("%s: last modified %v, seen at %v", name, info.LastModified, info.SeenAt)
		}
	}
	mustPut(t, b, "empty", nil, archive.PutOptions{})
	wantContent(t, b, "empty", nil)
}

func testCreateOnce(t *testing.T, b archive.Bucket) {
	mustPut(t, b, "k", []byte("first"), archive.PutOptions{})
	for _, body := range []string{"second", "first"} {
		if err := b.Put(t.Context(), "k", []byte(body), archive.PutOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("creating it again with %q: %v, want %v", body, err, fs.ErrExist)
		}
	}
	wantContent(t, b, "k", []byte("first"))
}

func testReplace(t *testing.T, b archive.Bucket) {
	mustPut(t, b, "k", []byte("first"), archive.PutOptions{Meta: map[string]string{"a": "1", "b": "2"}})
	mustPut(t, b, "k", []byte("the second"), archive.PutOptions{Replace: true, Meta: map[string]string{"a": "3"}})
	wantContent(t, b, "k", []byte("the second"))
	info, err := b.Stat(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "3"}, info.Meta); diff != "" {
		t.Errorf("metadata are replaced with the object (-want +got):\n%s", diff)
	}
	mustPut(t, b, "new", []byte("x"), archive.PutOptions{Replace: true})
	wantContent(t, b, "new", []byte("x"))
}

func testNotFound(t *testing.T, b archive.Bucket) {
	mustPut(t, b, "dir/k", []byte("x"), archive.PutOptions{})
	for _, key := range []string{"nothing", "dir", "dir/", "dir/k2", "DIR/K"} {
		wantMissing(t, b, key)
		if body, _, err := b.Open(t.Context(), key, archive.Range{}); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			t.Errorf("open %s: %v, %v, want %v", key, body, err, fs.ErrNotExist)
		}
	}
}

func testRanges(t *testing.T, b archive.Bucket) {
	body := random(1, 1000)
	mustPut(t, b, "k", body, archive.PutOptions{Meta: map[string]string{"m": "v"}})
	for _, c := range []struct{ from, to, want int64 }{
		{0, 0, 1000}, {0, 1, 1}, {0, 1000, 1000}, {0, 5000, 1000}, {10, 0, 1000}, {10, 11, 11}, {999, 0, 1000}, {990, 2000, 1000},
	} {
		got, info := read(t, b, "k", archive.Range{From: c.from, To: c.to})
		if !bytes.Equal(got, body[c.from:c.want]) {
			t.Errorf("range %d-%d: %d bytes that are not bytes %d to %d", c.from, c.to, len(got), c.from, c.want)
		}
		if info.Size != 1000 || info.Meta["m"] != "v" || info.CRC64 != crc64.Checksum(body, crcTable) {
			t.Errorf("range %d-%d: the information is not that of the whole object: %+v", c.from, c.to, info)
		}
	}
	for _, r := range []archive.Range{{From: 1000}, {From: 5000, To: 6000}, {From: -1}, {From: 5, To: 5}, {From: 5, To: 4}, {To: -1}} {
		body, _, err := b.Open(t.Context(), "k", r)
		if err == nil {
			t.Errorf("range %v was served", r)
			_ = body.Close()
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Errorf("range %v: %v, but the object exists", r, err)
		}
	}
}

func testRemove(t *testing.T, b archive.Bucket) {
	for _, key := range []string{"a", "b", "c & <d>'é+ %41", "e"} {
		mustPut(t, b, key, []byte(key), archive.PutOptions{})
	}
	if err := b.Remove(t.Context(), "a", "c & <d>'é+ %41", "not there"); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "", "", "b", "e")
	if err := b.Remove(t.Context()); err != nil {
		t.Errorf("removing nothing: %v", err)
	}
	mustPut(t, b, "a", []byte("again"), archive.PutOptions{})
	wantContent(t, b, "a", []byte("again"))
}

func testConcurrentCreates(t *testing.T, b archive.Bucket) {
	for round := range 5 {
		key := fmt.Sprintf("epochs/%d", round)
		race(t, b, key, 8, func(ctx context.Context, body []byte) error {
			return b.Put(ctx, key, body, archive.PutOptions{})
		}, 100)
	}
	race(t, b, "big", 3, func(ctx context.Context, body []byte) error {
		_, err := b.Upload(ctx, "big", bytes.NewReader(body), archive.PutOptions{})
		return err
	}, 17<<20)
}

// race lets n writers create one key at once and demands exactly one winner, whose content stays.
func race(t *testing.T, b archive.Bucket, key string, n int, create func(context.Context, []byte) error, size int) {
	t.Helper()
	errs := make([]error, n)
	bodies := make([][]byte, n)
	var wg sync.WaitGroup
	for i := range n {
		bodies[i] = random(uint64(i)+1, size)
		wg.Go(func() { errs[i] = create(t.Context(), bodies[i]) })
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Errorf("%s was created by both %d and %d", key, winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("creating %s: %v, want %v", key, err, fs.ErrExist)
		}
	}
	if winner < 0 {
		t.Fatalf("nobody has created %s: %v", key, errs)
	}
	wantContent(t, b, key, bodies[winner])
}
