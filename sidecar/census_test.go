package main

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/oss"
)

// What is counted is what the store itself says, and nothing is said of what was not listed.
func TestCensusCountsWhatIsThere(t *testing.T) {
	cloud := devtest.Start(t)
	credentials, err := oss.StaticCredentials(cloud.AccessKeyID, cloud.AccessKeySecret, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := oss.Open(t.Context(), oss.Config{
		Location: "oss://" + cloud.Bucket + "/" + testRoot, Endpoint: cloud.Endpoint, Region: cloud.Region, Credentials: credentials,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	c := newCensus(b, "")
	w := archive.New(c).WAL(mib)
	fill(t, w)
	counts := func() map[objectKind]int64 {
		got := map[objectKind]int64{}
		c.each(func(k objectKind, class string, h holding) {
			if class != standardClass {
				t.Errorf("%s has the class %q", k, class)
			}
			got[k] += h.objects
		})
		return got
	}
	if got := counts(); len(got) != 0 {
		t.Errorf("counted without being listed: %v", got)
	}
	if _, err := w.Inventory(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(map[objectKind]int64{kindSegment: 9, kindChunk: 1}, counts()); d != "" {
		t.Errorf("after a look at the WAL (-want +got):\n%s", d)
	}
	if _, err := w.BackupNames(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.countRecords(t.Context()); err != nil {
		t.Fatal(err)
	}
	same := func(when string) {
		t.Helper()
		var sum holding
		c.each(func(_ objectKind, _ string, h holding) { sum.objects += h.objects; sum.bytes += h.bytes })
		if u := cloud.OSS.Requests().Buckets[cloud.Bucket]; sum.objects != int64(u.Objects) || sum.bytes != u.Bytes {
			t.Errorf("%s: counted %+v, the store holds %+v", when, sum, u)
		}
	}
	same("after all was listed")
	chunk := archive.Chunk{Segment: w.Size.SegmentAt(1, 10*mib), Epoch: 2, From: 10*mib + 10_000, To: 10*mib + 20_000}
	if _, err := w.PutChunk(t.Context(), chunk, bytes.Repeat([]byte{1}, 10_000)); err != nil {
		t.Fatal(err)
	}
	same("after a chunk")
	all, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, chunks := range all.Chunks {
		if err := w.RemoveChunks(t.Context(), chunks); err != nil {
			t.Fatal(err)
		}
	}
	same("after all chunks went")
}
