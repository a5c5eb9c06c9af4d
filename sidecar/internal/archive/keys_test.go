package archive_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// segmentName is what WAL-G's delete looks for anywhere in a key.
var segmentName = regexp.MustCompile(`[0-9A-F]{24}`)

// TestOnlyWhatExpiresWithASegmentLooksLikeOne writes everything that there is to write, under extreme numbers, and
// demands that WAL-G's delete takes nothing of ours but what belongs to the segment or snapshot that expires.
func TestOnlyWhatExpiresWithASegmentLooksLikeOne(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var keys []string
	for range 50 {
		bucket := archivetest.Memory()
		// With 1 MiB segments the last positions of all are 0xFFFFFFFFFFF00000 and up.
		seg := wal.Segment{Timeline: wal.Timeline(r.Uint32() | 1), Number: r.Uint64N(1<<44 - 2)}
		epoch := r.Uint64() >> r.IntN(64)
		writeEverything(t, archive.New(bucket), seg, epoch, time.Unix(r.Int64N(200*365*86400), r.Int64N(1e9)))
		keys = append(keys, bucket.Keys()...)
	}
	if len(keys) < 50*10 {
		t.Fatalf("only %d keys were written", len(keys))
	}
	for _, key := range keys {
		found := segmentName.FindAllString(key, -1)
		if len(key) > 500 {
			t.Errorf("%s has %d bytes: a prefix of half of what OSS takes does not fit", key, len(key))
		}
		switch {
		case strings.HasPrefix(key, "basebackups_005/base_"), strings.HasPrefix(key, "wal_005/"):
			// WAL-G's own places.
		case strings.HasPrefix(key, "outrider/tail/"):
			if len(found) != 1 || !strings.HasPrefix(key, "outrider/tail/"+found[0]+"/") {
				t.Errorf("%s: WAL-G sees %q, want the name of its segment alone", key, found)
			}
		case len(found) > 0:
			t.Errorf("%s: WAL-G would delete it with segment %s", key, found[0])
		case strings.ToLower(key) != key:
			t.Errorf("%s: has upper-case letters", key)
		}
	}
}

func writeEverything(t *testing.T, a *archive.Archive, seg wal.Segment, epoch uint64, now time.Time) {
	t.Helper()
	ctx, w := t.Context(), a.WAL(mib)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.ClaimCluster(ctx, archive.Cluster{SystemIdentifier: math.MaxUint64, SegmentSize: mib}))
	must(a.ClaimEpoch(ctx, archive.Epoch{Number: epoch, ClaimedAt: now}))
	must(a.ClaimTimeline(ctx, archive.TimelineClaim{Timeline: seg.Timeline, Epoch: epoch, ClaimedAt: now}))
	must(a.PutReceipt(ctx, archive.Receipt{Epoch: epoch, FinishedAt: now}))
	must(a.Beat(ctx, archive.Heartbeat{Epoch: epoch}))
	must(a.Record(ctx, archive.Entry{Epoch: epoch, Time: now, Event: "snapshot_taken"}))
	raw := make([]byte, mib)
	_, err := w.Seal(ctx, archive.SealRequest{Segment: seg, Epoch: epoch, Raw: bytes.NewReader(raw), Valid: mib})
	must(err)
	_, err = w.PutChunk(ctx, archive.Chunk{Segment: seg, Epoch: epoch, From: seg.Start(mib) + 8192, To: seg.End(mib)}, raw[8192:])
	must(err)
	must(a.PutHistory(ctx, seg.Timeline, []byte("1\t0/1000000\tx\n")))
	name := archive.BackupName(seg, mib)
	must(a.ClaimBackup(ctx, name, archive.BackupClaim{Epoch: epoch, ClaimedAt: now}))
	_, err = a.UploadPart(ctx, name, "part_001", strings.NewReader("tar"))
	must(err)
	must(a.CommitBackup(ctx, archive.Manifest{Name: name}, archive.Metadata{}, archive.Sentinel{}))
	_, err = a.MarkExpiry(ctx, archive.Expiry{Time: now})
	must(err)
}

func TestChunkKeys(t *testing.T) {
	seg := wal.Segment{Timeline: 0xABCDEF01, Number: 0x16}
	c := archive.Chunk{Segment: seg, Epoch: 42, From: seg.Start(mib) + 1, To: seg.End(mib)}
	const want = "outrider/tail/ABCDEF010000000000000016/0000000042/0000000001600001-0000000001700000.zst"
	if got := archive.ChunkKey(c, mib); got != want {
		t.Errorf("key %s, want %s: the archive of yesterday must stay readable", got, want)
	}
	for _, key := range []string{
		"", "outrider/tail/", strings.Replace(want, "outrider/tail", "outrider/tails", 1), strings.TrimSuffix(want, ".zst"), want + ".zst",
		strings.ToLower(want), strings.Replace(want, "0000000042", "42", 1), strings.Replace(want, "0000000042", "00000000042", 1),
		strings.Replace(want, "0000000042", "+000000042", 1), strings.Replace(want, "-", "/", 1), strings.Replace(want, "1600001", "1700000", 1),
		strings.Replace(want, "1600001", "15fffff", 1), strings.Replace(want, "1700000.", "1700001.", 1), strings.Replace(want, "/0000000042/", "//", 1),
		"/" + want, want + "/x", strings.Replace(want, "0000000001600001", "000000000160000A", 1),
	} {
		if got, ok := archive.ParseChunkKey(key, mib); ok {
			t.Errorf("%q was taken for chunk %+v", key, got)
		}
	}
	if got, ok := archive.ParseChunkKey(want, 2*mib); ok {
		t.Errorf("with another segment size %q is %+v", want, got)
	}
}

func FuzzParseChunkKey(f *testing.F) {
	f.Add("outrider/tail/ABCDEF010000000000000016/0000000042/0000000001600001-0000000001700000.zst", int64(mib))
	f.Add("outrider/tail/00000001FFFFFFFF00000FFF/18446744073709551615/fffffffffff00000-ffffffffffffffff.zst", int64(mib))
	f.Add("outrider/tail/000000010000000000000000/0000000001/0000000000000000-0000000001000000.zst", int64(16*mib))
	f.Fuzz(func(t *testing.T, key string, size int64) {
		z := wal.SegmentSize(size)
		if !z.Valid() {
			return
		}
		c, ok := archive.ParseChunkKey(key, z)
		if !ok {
			return
		}
		if back := archive.ChunkKey(c, z); back != key {
			t.Errorf("%q is %+v, whose key is %q", key, c, back)
		}
		if c.From >= c.To || z.SegmentAt(c.Segment.Timeline, c.From) != c.Segment || z.SegmentBefore(c.Segment.Timeline, c.To) != c.Segment {
			t.Errorf("%q: %s to %s is not in segment %+v", key, c.From, c.To, c.Segment)
		}
	})
}

func FuzzParseOtherKeys(f *testing.F) {
	for _, key := range []string{
		"wal_005/000000010000000000000016.zst", "wal_005/000000010000000000000016", "wal_005/00000002.history.zst", "wal_005/00000002.history",
		"outrider/epochs/0000000001.json", "outrider/timelines/18446744073709551615.json", "wal_005/000000010000000000000016.partial.zst",
		"wal_005/000000010000000000000010_delta.zst", "wal_005/00000001000000000000000B.00000028.backup.zst",
	} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if name, ext, ok := archive.SplitSegmentKey(key); ok && (!wal.IsSegmentName(name) || "wal_005/"+name+ext != key) {
			t.Errorf("%q is segment %q with extension %q", key, name, ext)
		}
		if tli, ok := archive.SplitHistoryKey(key); ok && (tli == 0 || !strings.HasPrefix(key, "wal_005/"+wal.HistoryName(tli))) {
			t.Errorf("%q is the history of timeline %d", key, tli)
		}
		for _, dir := range []string{"outrider/epochs/", "outrider/timelines/"} {
			if n, ok := archive.ParseNumberedKey(dir, key); ok && archive.NumberedKey(dir, n) != key {
				t.Errorf("%q is number %d, whose key is %q", key, n, archive.NumberedKey(dir, n))
			}
		}
	})
}

func TestSegmentAndHistoryKeys(t *testing.T) {
	seg := "000000010000000000000016"
	for key, want := range map[string]string{
		"wal_005/" + seg + ".zst": ".zst", "wal_005/" + seg + ".lz4": ".lz4", "wal_005/" + seg + ".gz": ".gz", "wal_005/" + seg: "",
	} {
		if name, ext, ok := archive.SplitSegmentKey(key); !ok || name != seg || ext != want {
			t.Errorf("%s: %q, %q, %v", key, name, ext, ok)
		}
	}
	// What WAL-G puts beside segments.
	for _, suffix := range []string{".partial.zst", "_delta.zst", ".json", ".00000028.backup.zst", ".zst.tmp", ".lzma", ".br"} {
		if _, _, ok := archive.SplitSegmentKey("wal_005/" + seg + suffix); ok {
			t.Errorf("%s was taken for a segment", seg+suffix)
		}
	}
	for key, want := range map[string]wal.Timeline{"wal_005/00000002.history.zst": 2, "wal_005/0000000A.history.lz4": 10, "wal_005/00000002.history": 2} {
		if tli, ok := archive.SplitHistoryKey(key); !ok || tli != want {
			t.Errorf("%s: %d, %v", key, tli, ok)
		}
	}
	for _, key := range []string{"wal_005/00000000.history.zst", "wal_005/2.history", "wal_005/00000002.history.json", "00000002.history"} {
		if tli, ok := archive.SplitHistoryKey(key); ok {
			t.Errorf("%s was taken for the history of %d", key, tli)
		}
	}
}

func TestNumberedKeysSortByNumber(t *testing.T) {
	var last string
	for _, n := range []uint64{0, 1, 9, 10, 99, 1000, 999_999_999, 9_999_999_999} {
		key := archive.NumberedKey("d/", n)
		if key <= last {
			t.Errorf("%s does not come after %s", key, last)
		}
		if got, ok := archive.ParseNumberedKey("d/", key); !ok || got != n {
			t.Errorf("%s: %d, %v", key, got, ok)
		}
		last = key
	}
	for _, key := range []string{"d/1.json", "d/0000000001", "d/0000000001.json.zst", "e/0000000001.json", "d/-000000001.json", fmt.Sprintf("d/%011d.json", 1)} {
		if n, ok := archive.ParseNumberedKey("d/", key); ok {
			t.Errorf("%s was taken for %d", key, n)
		}
	}
}
