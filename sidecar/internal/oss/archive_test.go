package oss

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// The rules of the archive over the real protocol, with answers that are lost.

const mib = wal.MinSegmentSize

func readSealed(t *testing.T, w *archive.WAL, s wal.Segment) ([]byte, error) {
	t.Helper()
	r, _, err := w.OpenSegment(t.Context(), s)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(r)
	return raw, errors.Join(err, r.Close())
}

func TestArchiveUnderLostAnswers(t *testing.T) {
	for _, c := range []struct {
		size wal.SegmentSize
		op   string
		kind devoss.Kind
	}{
		{mib, "put", devoss.ResetAfter},
		{mib, "put", devoss.ResetBefore},
		{32 * mib, "initiate", devoss.ResetAfter}, // larger ones are streamed
		{32 * mib, "part", devoss.ResetAfter},
		{32 * mib, "complete", devoss.ResetAfter},
	} {
		t.Run(fmt.Sprint(c.op, c.kind), func(t *testing.T) {
			cloud := devtest.Start(t)
			w := archive.New(open(t, cloud)).WAL(c.size)
			seg, raw := wal.Segment{Timeline: 1, Number: 3}, random(3, int(c.size))
			cloud.SetFaults(devoss.Fault{Op: c.op, Kind: c.kind, Count: 2})
			for epoch := range 2 { // the second time after a restart that knew nothing of the first
				r := archive.SealRequest{Segment: seg, Epoch: uint64(epoch + 1), Raw: bytes.NewReader(raw), Valid: int64(c.size)}
				if _, err := w.Seal(t.Context(), r); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := readSealed(t, w, seg); err != nil || !bytes.Equal(got, raw) {
				t.Errorf("read back %d bytes, %v", len(got), err)
			}
			chunk := archive.Chunk{Segment: seg, Epoch: 1, From: seg.Start(c.size), To: seg.Start(c.size) + 9000}
			cloud.SetFaults(devoss.Fault{Op: c.op, Kind: c.kind, Count: 2})
			for range 2 {
				if _, err := w.PutChunk(t.Context(), chunk, raw[:9000]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.ClaimEpoch(t.Context(), archive.Epoch{Number: 1}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDamageInTransferIsNotBlamedOnTheObject: a bit that flips on the way is found by the decoder long before the
// checksum of the object is, and must not make anybody throw the object away.
func TestDamageInTransferIsNotBlamedOnTheObject(t *testing.T) {
	cloud := devtest.Start(t)
	b := open(t, cloud)
	w := archive.New(b).WAL(mib)
	seg, raw := wal.Segment{Timeline: 1, Number: 3}, random(3, mib)
	if _, err := w.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: mib}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int64{1, 5, 100, 0, -1, -3} {
		cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Corrupt, At: at})
		if _, err := readSealed(t, w, seg); err == nil || errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("a bit flips at byte %d on the way: %v, want an error that is not %v", at, err, archive.ErrCorrupt)
		}
	}
	cloud.SetFaults(devoss.Fault{Op: "get", Kind: devoss.Truncate, Count: 3})
	if got, err := readSealed(t, w, seg); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("broken off three times: %v", err)
	}
	// What lies in the store and is not what was written, is.
	key := "ns/db/wal_005/" + seg.Name(mib) + ".zst"
	stored, info, err := cloud.OSS.ReadObject(cloud.Bucket, key)
	if err != nil {
		t.Fatal(err)
	}
	stored[len(stored)/2] ^= 1
	meta := map[string]string{}
	for _, name := range []string{"outrider-length", "outrider-sha256", "outrider-epoch"} {
		meta[name] = info.Header["x-oss-meta-"+name]
	}
	if err := b.Put(t.Context(), "wal_005/"+seg.Name(mib)+".zst", stored, archive.PutOptions{Replace: true, Meta: meta}); err != nil {
		t.Fatal(err)
	}
	if _, err := readSealed(t, w, seg); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("damaged in the store: %v, want %v", err, archive.ErrCorrupt)
	}
}
