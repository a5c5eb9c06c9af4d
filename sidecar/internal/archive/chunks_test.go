package archive_test

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// chunkOf is the chunk of the bytes [from, to) of s, counted from its start.
func chunkOf(s wal.Segment, epoch uint64, from, to wal.LSN) archive.Chunk {
	return archive.Chunk{Segment: s, Epoch: epoch, From: s.Start(mib) + from, To: s.Start(mib) + to}
}

func TestPutChunk(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	seg, raw := segmentOf(1, 7), walBytes(1, mib)
	c := chunkOf(seg, 1, 100, 9000)
	for range 2 {
		if n, err := w.PutChunk(t.Context(), c, raw[100:9000]); err != nil || n <= 0 || n >= 8900 {
			t.Fatalf("%d bytes stored, %v", n, err)
		}
	}
	if got, err := w.ReadChunk(t.Context(), c); err != nil || !bytes.Equal(got, raw[100:9000]) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	if _, err := w.PutChunk(t.Context(), c, raw[101:9001]); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("other bytes: %v, want %v", err, archive.ErrConflict)
	}
	// Another release compresses otherwise.
	key := archive.ChunkKey(c, mib)
	bucket.SetBytes(key, compressed(t, ".zst", raw[100:9000]))
	if _, err := w.PutChunk(t.Context(), c, raw[100:9000]); err != nil {
		t.Errorf("the same bytes in another compression: %v", err)
	}
	// The range of another epoch is another chunk.
	if _, err := w.PutChunk(t.Context(), chunkOf(seg, 2, 100, 9000), raw[200:9100]); err != nil {
		t.Errorf("another epoch: %v", err)
	}
	outage(bucket, "open", ".zst")
	if _, err := w.PutChunk(t.Context(), c, raw[100:9000]); !errors.Is(err, errOutage) || errors.Is(err, archive.ErrConflict) || errors.Is(err, fs.ErrExist) {
		t.Errorf("exists, and cannot be compared: %v, want %v", err, errOutage)
	}
}

func TestChunksMustFitTheirSegment(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	seg, raw := segmentOf(1, 7), walBytes(1, 2*mib)
	for _, c := range []archive.Chunk{
		chunkOf(seg, 1, 0, 0), chunkOf(seg, 1, 10, 9), chunkOf(seg, 1, mib-10, mib+1),
		{Segment: seg, Epoch: 1, From: seg.Start(mib) - 1, To: seg.Start(mib) + 10},
		{Segment: segmentOf(1, 8), Epoch: 1, From: seg.Start(mib), To: seg.End(mib)},
	} {
		n := max(int64(c.To)-int64(c.From), 0)
		if _, err := w.PutChunk(t.Context(), c, raw[:n]); err == nil {
			t.Errorf("%+v was stored", c)
		}
	}
	if _, err := w.PutChunk(t.Context(), chunkOf(seg, 1, 0, 10), raw[:9]); err == nil {
		t.Error("9 bytes were stored as 10")
	}
	if keys := bucket.Keys(); len(keys) != 0 {
		t.Errorf("stored: %v", keys)
	}
}

func TestReadChunkRefusesDamage(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	raw := walBytes(1, mib)
	c := chunkOf(segmentOf(1, 7), 1, 0, 9000)
	if _, err := w.ReadChunk(t.Context(), c); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: %v, want %v", err, fs.ErrNotExist)
	}
	if _, err := w.PutChunk(t.Context(), c, raw[:9000]); err != nil {
		t.Fatal(err)
	}
	key := archive.ChunkKey(c, mib)
	whole := bucket.Bytes(key)
	for name, body := range map[string][]byte{
		"cut": whole[:len(whole)-1], "flipped": append(bytes.Clone(whole[:50]), append([]byte{whole[50] ^ 1}, whole[51:]...)...),
		"longer": compressed(t, ".zst", raw[:9001]), "shorter": compressed(t, ".zst", raw[:8999]), "others": compressed(t, ".zst", raw[1:9001]), "empty": nil,
	} {
		bucket.SetBytes(key, body)
		if _, err := w.ReadChunk(t.Context(), c); !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, archive.ErrCorrupt)
		}
	}
	bucket.SetBytes(key, whole)
	broken := archive.New(breaking{bucket}).WAL(mib)
	if _, err := broken.ReadChunk(t.Context(), c); !errors.Is(err, errNetwork) || errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("behind a network that fails: %v, want %v", err, errNetwork)
	}
}

func TestRemoveChunks(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	raw := walBytes(1, mib)
	a, b := chunkOf(segmentOf(1, 7), 1, 0, 9000), chunkOf(segmentOf(1, 7), 1, 9000, 10000)
	for _, c := range []archive.Chunk{a, b} {
		if _, err := w.PutChunk(t.Context(), c, raw[:c.To-c.From]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.RemoveChunks(t.Context(), nil); err != nil {
		t.Error(err)
	}
	if err := w.RemoveChunks(t.Context(), []archive.Chunk{a, a}); err != nil {
		t.Error(err)
	}
	if keys := bucket.Keys(); len(keys) != 1 || keys[0] != archive.ChunkKey(b, mib) {
		t.Errorf("left: %v", keys)
	}
}

func TestReadersOfOneArchiveDoNotMix(t *testing.T) {
	w := archive.New(archivetest.Memory()).WAL(mib)
	for n := range uint64(4) {
		if _, err := w.Seal(t.Context(), sealOf(segmentOf(1, n), 1, walBytes(n, mib))); err != nil {
			t.Fatal(err)
		}
	}
	// A reader that is closed twice must not give its decoder to two others.
	for range 4 {
		r, _, err := w.OpenSegment(t.Context(), segmentOf(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.Read(make([]byte, 10)); err == nil {
			t.Error("a closed reader goes on")
		}
	}
	done := make(chan error, 8)
	for i := range 8 {
		go func() {
			n := uint64(i % 4)
			r, _, err := w.OpenSegment(t.Context(), segmentOf(1, n))
			if err != nil {
				done <- err
				return
			}
			got := make([]byte, mib)
			for at := 0; at < mib && err == nil; {
				var m int
				m, err = r.Read(got[at:min(at+4096, mib)])
				at += m
			}
			if !bytes.Equal(got, walBytes(n, mib)) {
				err = errors.Join(err, errors.New("read another segment's bytes"))
			}
			done <- errors.Join(r.Close(), err)
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
