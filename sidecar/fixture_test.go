package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/oss"
	"outrider.dev/sidecar/internal/wal"
)

const (
	mib       = wal.MinSegmentSize
	testSysid = 7_000_000_000_000_000_001
	testRoot  = "shop/orders"
)

// testArchive opens a root in the cloud.
func testArchive(t *testing.T, c *devtest.Cloud, root string) *archive.WAL {
	t.Helper()
	credentials, err := oss.StaticCredentials(c.AccessKeyID, c.AccessKeySecret, "")
	if err != nil {
		t.Fatal(err)
	}
	b, err := oss.Open(t.Context(), oss.Config{
		Location: "oss://" + c.Bucket + "/" + root, Endpoint: c.Endpoint, Region: c.Region, Credentials: credentials,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return archive.New(b).WAL(mib)
}

// fakeSegment is a segment whose pages say that they belong where they are; no server would replay it.
func fakeSegment(s wal.Segment) []byte {
	raw := bytes.Repeat([]byte{byte(s.Number), 7, 1}, mib/3+1)[:mib]
	for at := 0; at < mib; at += wal.PageSize {
		clear(raw[at : at+40])
		binary.LittleEndian.PutUint16(raw[at:], 0xD110) // PostgreSQL 15
		binary.LittleEndian.PutUint32(raw[at+4:], uint32(s.Timeline))
		binary.LittleEndian.PutUint64(raw[at+8:], uint64(s.Start(mib))+uint64(at))
	}
	binary.LittleEndian.PutUint16(raw[2:], 0x02) // XLP_LONG_HEADER
	binary.LittleEndian.PutUint64(raw[24:], testSysid)
	binary.LittleEndian.PutUint32(raw[32:], mib)
	binary.LittleEndian.PutUint32(raw[36:], wal.PageSize)
	return raw
}

// fill makes a small archive: timeline 1 with segments 1 to 9, a chunk in 10, and snapshots in 2, 4 (a delta), 6 and 8,
// of which those before the last are 100, 99 and 98 days old. Two epochs: the first ended clean, the second has not ended.
func fill(t *testing.T, w *archive.WAL) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.ClaimCluster(ctx, archive.Cluster{SystemIdentifier: testSysid, SegmentSize: mib}))
	old := time.Now().Add(-2400 * time.Hour)
	must(w.ClaimEpoch(ctx, archive.Epoch{Number: 1, Timeline: 1, Since: mib, ClaimedAt: old, Writer: archive.Identity{Instance: "a", Pod: "orders-0", Namespace: "shop", Node: "n1"}}))
	must(w.ClaimTimeline(ctx, archive.TimelineClaim{Timeline: 1, Epoch: 1, Switch: mib, ClaimedAt: old}))
	must(w.ClaimEpoch(ctx, archive.Epoch{Number: 2, Timeline: 1, Since: 5*mib + 120, ClaimedAt: time.Now(), Writer: archive.Identity{Instance: "b", Pod: "orders-0", Namespace: "shop", Node: "n2"}}))
	for n := uint64(1); n <= 10; n++ {
		seg := wal.Segment{Timeline: 1, Number: n}
		raw := fakeSegment(seg)
		if n == 10 {
			_, err := w.PutChunk(ctx, archive.Chunk{Segment: seg, Epoch: 2, From: seg.Start(mib), To: seg.Start(mib) + 10_000}, raw[:10_000])
			must(err)
			continue
		}
		_, err := w.Seal(ctx, archive.SealRequest{Segment: seg, Epoch: 1 + n/6, Raw: bytes.NewReader(raw), Valid: mib})
		must(err)
	}
	full := addSnapshot(t, w, 2, old, "")
	addSnapshot(t, w, 4, old.Add(24*time.Hour), full)
	addSnapshot(t, w, 6, old.Add(48*time.Hour), "")
	addSnapshot(t, w, 8, time.Now(), "")
	must(w.PutReceipt(ctx, archive.Receipt{
		Epoch: 1, Clean: true, Reason: "shut down", State: "shut down", Timeline: 1, Durable: 5*mib + 120, Checkpoint: 5 * mib, CheckpointEnd: 5*mib + 120, FinishedAt: old.Add(time.Hour),
	}))
	for i, event := range []string{"shipping", "notice", "prepared", "finished"} {
		must(w.Record(ctx, archive.Entry{Epoch: 1, Time: old.Add(time.Duration(i) * time.Second), Event: event, Attrs: map[string]any{"step": i}}))
	}
	must(w.Record(ctx, archive.Entry{Epoch: 2, Time: time.Now(), Event: "shipping"}))
	must(w.Beat(ctx, archive.Heartbeat{Epoch: 2, Timeline: 1, Durable: 10*mib + 10_000, Interval: 3600}))
}

func addSnapshot(t *testing.T, w *archive.WAL, n uint64, at time.Time, parent string) string {
	t.Helper()
	ctx, at := context.WithoutCancel(t.Context()), at.UTC()
	seg := wal.Segment{Timeline: 1, Number: n}
	name := archive.BackupName(seg, mib)
	start, stop := seg.Start(mib)+40, seg.Start(mib)+500
	from, to := uint64(start), uint64(stop)
	s := archive.Sentinel{LSN: &from, FinishLSN: &to, StartTime: at, FinishTime: at}
	if parent != "" {
		name += "_D_" + parent[5:]
		s.DeltaFrom = &parent
	}
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	err := errors.Join(tw.WriteHeader(&tar.Header{Name: "/PG_VERSION", Mode: 0o600, Size: 3}))
	_, werr := tw.Write([]byte("15\n"))
	if err := errors.Join(err, werr, tw.Close(), w.ClaimBackup(ctx, name, archive.BackupClaim{Epoch: 1 + n/6, Instance: "a", ClaimedAt: at})); err != nil {
		t.Fatal(err)
	}
	part, err := w.UploadPart(ctx, name, "part_001", &raw)
	if err != nil {
		t.Fatal(err)
	}
	err = w.CommitBackup(ctx, archive.Manifest{
		Name: name, Epoch: 1 + n/6, Timeline: 1, Start: start, Stop: stop, StartTime: at, StopTime: at, SystemIdentifier: testSysid, SegmentSize: mib,
		Parts: []archive.Part{part}, RawSize: part.RawSize, StoredSize: part.Size, Checksums: archive.ChecksumVerdict{Enabled: true, Pages: 12},
	}, archive.Metadata{StartTime: at}, s)
	if err != nil {
		t.Fatal(err)
	}
	return name
}
