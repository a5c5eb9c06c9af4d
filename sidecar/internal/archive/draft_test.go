package archive_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// unreadable is a segment that cannot be read any more.
type unreadable struct{ error }

func (u unreadable) ReadAt([]byte, int64) (int, error) { return 0, u.error }

// addChunks puts raw in chunks that end at the given offsets.
func addChunks(t *testing.T, w *archive.WAL, d *archive.Draft, raw []byte, ends ...int) {
	t.Helper()
	from := 0
	for _, to := range ends {
		c := chunkOf(segmentOf(1, 7), 3, wal.LSN(from), wal.LSN(to))
		if _, err := w.AddChunk(t.Context(), d, c, raw[from:to]); err != nil {
			t.Fatal(err)
		}
		from = to
	}
}

func TestSealFromDraft(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	seg, raw := segmentOf(1, 7), walBytes(seed, mib)
	d := archive.NewDraft(seg, mib)
	var ends []int
	for at := 0; at < mib; {
		at = min(at+1+rng.IntN(300_000), mib)
		ends = append(ends, at)
	}
	addChunks(t, w, d, raw, ends...)
	if !d.Complete() {
		t.Fatalf("all chunks are there, up to %v, and the draft is not complete", ends)
	}
	r := archive.SealRequest{Segment: seg, Epoch: 3, Raw: unreadable{errors.New("read once more")}, Valid: mib, Draft: d}
	info, err := w.Seal(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	if got, there := readSealed(t, w, seg); !bytes.Equal(got, raw) || there.SHA256 != info.SHA256 || there.Epoch != 3 || there.Padded {
		t.Errorf("sealed %+v, there is %+v, the same bytes: %t", info, there, bytes.Equal(got, raw))
	}
	// A reader that knows nothing of us.
	stock, err := zstd.NewReader(bytes.NewReader(bucket.Bytes(w.SegmentKey(seg))))
	if err != nil {
		t.Fatal(err)
	}
	defer stock.Close()
	if got, err := io.ReadAll(stock); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("a stock reader gets %d bytes, %v", len(got), err)
	}
	// The same in one piece is the same.
	if again, err := w.Seal(t.Context(), sealOf(seg, 3, raw)); err != nil || again.SHA256 != info.SHA256 {
		t.Errorf("sealed from the file afterwards: %+v, %v", again, err)
	}
}

func TestDraftThatDoesNotFitIsNotUsed(t *testing.T) {
	raw := walBytes(1, mib)
	for name, build := range map[string]func(w *archive.WAL) *archive.Draft{
		"unfinished": func(w *archive.WAL) *archive.Draft {
			d := archive.NewDraft(segmentOf(1, 7), mib)
			addChunks(t, w, d, raw, 1000, mib-1)
			return d
		},
		"other segment": func(w *archive.WAL) *archive.Draft {
			d := archive.NewDraft(segmentOf(1, 8), mib)
			addChunks(t, w, d, raw, mib)
			return d
		},
		"gap": func(w *archive.WAL) *archive.Draft {
			d := archive.NewDraft(segmentOf(1, 7), mib)
			addChunks(t, w, nil, raw, 1000)
			c := chunkOf(segmentOf(1, 7), 3, 1000, mib)
			if _, err := w.AddChunk(t.Context(), d, c, raw[1000:]); err != nil {
				t.Fatal(err)
			}
			return d
		},
		"too many": func(w *archive.WAL) *archive.Draft {
			d := archive.NewDraft(segmentOf(1, 7), mib)
			var ends []int
			for at := wal.PageSize; at <= mib; at += wal.PageSize {
				ends = append(ends, at)
			}
			addChunks(t, w, d, raw, ends...)
			return d
		},
		"stored nothing": func(w *archive.WAL) *archive.Draft {
			d := archive.NewDraft(segmentOf(1, 7), mib)
			if _, err := w.AddChunk(t.Context(), d, chunkOf(segmentOf(1, 7), 3, 0, mib), raw[1:]); err == nil {
				t.Error("a chunk of the wrong length was stored")
			}
			return d
		},
		"none": func(*archive.WAL) *archive.Draft { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w := archive.New(archivetest.Memory()).WAL(mib)
			r := sealOf(segmentOf(1, 7), 3, raw)
			r.Draft = build(w)
			if _, err := w.Seal(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			if got, _ := readSealed(t, w, segmentOf(1, 7)); !bytes.Equal(got, raw) {
				t.Error("what was sealed is not what is in the file")
			}
			if name != "other segment" && r.Draft.Complete() {
				t.Error("the draft says that it is complete")
			}
		})
	}
}

func TestDraftOfOtherContentConflicts(t *testing.T) {
	w := archive.New(archivetest.Memory()).WAL(mib)
	seg := segmentOf(1, 7)
	if _, err := w.Seal(t.Context(), sealOf(seg, 2, walBytes(2, mib))); err != nil {
		t.Fatal(err)
	}
	raw := walBytes(1, mib)
	r := sealOf(seg, 3, raw)
	r.Draft = archive.NewDraft(seg, mib)
	addChunks(t, w, r.Draft, raw, 500_000, mib)
	if _, err := w.Seal(t.Context(), r); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("%v, want %v", err, archive.ErrConflict)
	}
}
