package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// A superseded writer's object goes on past the start of its successor, with other bytes than that one's disk has. Only
// what counts of it is held against the disk.
func TestOnlyWhatCountsIsCompared(t *testing.T) {
	w := archive.New(archivetest.Memory()).WAL(mib)
	seg := wal.Segment{Timeline: 1, Number: 3}
	raw, start := fakeSegment(seg), seg.Start(mib)
	if _, err := w.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: mib}); err != nil {
		t.Fatal(err)
	}
	c := archive.Chunk{Segment: seg, Epoch: 1, From: start + 100, To: start + 9000}
	if _, err := w.PutChunk(t.Context(), c, raw[100:9000]); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]archive.Piece{
		"a whole segment":        {Segment: seg, From: start, To: seg.End(mib)},
		"what counts of one":     {Segment: seg, From: start + 50, To: start + 5000},
		"a whole chunk":          {Segment: seg, From: start + 100, To: start + 9000, Chunk: &c},
		"what counts of a chunk": {Segment: seg, From: start + 200, To: start + 5000, Chunk: &c},
	} {
		from, to, sum, err := recorded(t.Context(), w, p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := sha256.Sum256(raw[from-start : p.To-start])
		if to != p.To || from > p.From || sum != hex.EncodeToString(want[:]) {
			t.Errorf("%s: compared is %s to %s with %.12s, want up to %s with %x", name, from, to, sum, p.To, want[:6])
		}
	}
}

// A delta counts for nothing without what it is built on: a restore cannot begin with it.
func TestDeltaWithoutItsParentIsNotUsable(t *testing.T) {
	for name, c := range map[string]struct {
		lose func(b *archivetest.Bucket, full string) error
		want int
	}{
		"all is there": {func(*archivetest.Bucket, string) error { return nil }, 2},
		"the full one is gone": {func(b *archivetest.Bucket, full string) error {
			return b.Remove(t.Context(), "basebackups_005/"+full+"_backup_stop_sentinel.json")
		}, 0},
		"the full one is damaged": {func(b *archivetest.Bucket, full string) error {
			b.SetBytes("basebackups_005/"+full+"/outrider.json", []byte("{"))
			return nil
		}, 0},
	} {
		b := archivetest.Memory()
		w := archive.New(b).WAL(mib)
		full := addSnapshot(t, w, 2, time.Now(), "")
		addSnapshot(t, w, 4, time.Now(), full)
		if err := c.lose(b, full); err != nil {
			t.Fatal(err)
		}
		inv, err := w.Inventory(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		g := &guard{arch: w.Archive, log: slog.New(slog.DiscardHandler)}
		g.dir.pgdata = t.TempDir()
		all, err := g.readableBackups(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := g.usable(inv, all, branch{size: mib, timeline: 1}, 0); len(got) != c.want {
			t.Errorf("%s: %d snapshots are usable, want %d", name, len(got), c.want)
		}
	}
}
