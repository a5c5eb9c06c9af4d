package archivetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
)

func keysOf(t *testing.T, b archive.Bucket, prefix, after string) []string {
	t.Helper()
	var keys []string
	for o, err := range b.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func wantKeys(t *testing.T, b archive.Bucket, prefix, after string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, keysOf(t, b, prefix, after)); diff != "" {
		t.Errorf("list %q after %q (-want +got):\n%s", prefix, after, diff)
	}
}

func testList(t *testing.T, b archive.Bucket) {
	wantKeys(t, b, "", "")
	wantKeys(t, b, "wal/", "")
	// In byte order, which is neither that of any language nor that of directories.
	keys := []string{"WAL", "a b", "a%20b", "a+b", "wal", "wal.x", "wal/1", "wal/10", "wal/2", "wal/2/x", "wal/é", "walz"}
	slices.Sort(keys)
	for _, key := range slices.Backward(keys) {
		mustPut(t, b, key, []byte(key), archive.PutOptions{Meta: map[string]string{"m": "v"}})
	}
	wantKeys(t, b, "", "", keys...)
	wantKeys(t, b, "wal/", "", "wal/1", "wal/10", "wal/2", "wal/2/x", "wal/é")
	wantKeys(t, b, "wal/", "wal/10", "wal/2", "wal/2/x", "wal/é")
	wantKeys(t, b, "wal/", "wal/11", "wal/2", "wal/2/x", "wal/é")
	wantKeys(t, b, "wal/", "a", "wal/1", "wal/10", "wal/2", "wal/2/x", "wal/é")
	wantKeys(t, b, "wal/", "wal/é")
	wantKeys(t, b, "wal/", "x")
	wantKeys(t, b, "wal/2", "", "wal/2", "wal/2/x")
	wantKeys(t, b, "a+", "", "a+b")
	wantKeys(t, b, "nothing", "")
	for o, err := range b.List(t.Context(), "wal/1", "") {
		if err != nil {
			t.Fatal(err)
		}
		if o.Size != int64(len(o.Key)) || o.LastModified.IsZero() || o.SeenAt.IsZero() {
			t.Errorf("list tells of %s: size %d, last modified %v, seen %v", o.Key, o.Size, o.LastModified, o.SeenAt)
		}
	}
}

func testListPages(t *testing.T, b archive.Bucket) {
	const n = 1100 // two pages
	want := make([]string, n)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 8)
	for i := range n {
		want[i] = fmt.Sprintf("wal_005/%024X.zst", i)
		gate <- struct{}{}
		wg.Go(func() {
			defer func() { <-gate }()
			if err := b.Put(t.Context(), want[i], []byte{1}, archive.PutOptions{}); err != nil {
				t.Errorf("put %s: %v", want[i], err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	wantKeys(t, b, "", "", want...)
	wantKeys(t, b, "wal_005/", want[999], want[1000:]...)
	wantKeys(t, b, "wal_005/", want[n-2], want[n-1])
	seen := 0
	for _, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 1050 {
			break // a caller that has seen enough
		}
	}
	if err := b.Remove(t.Context(), want[:n-1]...); err != nil {
		t.Fatal(err)
	}
	wantKeys(t, b, "", "", want[n-1])
}
