package archive_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func segmentOf(t wal.Timeline, n uint64) wal.Segment { return wal.Segment{Timeline: t, Number: n} }

func sealOf(s wal.Segment, epoch uint64, raw []byte) archive.SealRequest {
	return archive.SealRequest{Segment: s, Epoch: epoch, Raw: bytes.NewReader(raw), Valid: int64(len(raw))}
}

// walBytes is n bytes that compress somewhat, as WAL does: pages that are filled in part.
func walBytes(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), 5})
	b := make([]byte, n)
	for at := 0; at < n; at += wal.PageSize {
		_, _ = r.Read(b[at:min(at+wal.PageSize/4, n)])
	}
	return b
}

func readSealed(t *testing.T, w *archive.WAL, s wal.Segment) ([]byte, archive.SegmentInfo) {
	t.Helper()
	r, info, err := w.OpenSegment(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw, info
}

// sizes are one that is sealed from memory and one that is streamed.
var sizes = map[string]wal.SegmentSize{"small": mib, "streamed": 32 * mib}

func TestSeal(t *testing.T) {
	for name, z := range sizes {
		t.Run(name, func(t *testing.T) {
			w := archive.New(archivetest.Memory()).WAL(z)
			seg := segmentOf(1, 7)
			raw := walBytes(1, int(z))
			for range 2 {
				info, err := w.Seal(t.Context(), sealOf(seg, 3, raw))
				if err != nil {
					t.Fatal(err)
				}
				if info.Valid != int64(z) || info.Padded || !info.Known || info.Epoch != 3 || info.End(z) != seg.End(z) || info.Stored <= 0 || info.Stored >= int64(z) {
					t.Errorf("sealed: %+v", info)
				}
			}
			if got, _ := readSealed(t, w, seg); !bytes.Equal(got, raw) {
				t.Error("what was sealed is not what is read")
			}
			other := bytes.Clone(raw)
			other[len(other)-1] ^= 1
			if _, err := w.Seal(t.Context(), sealOf(seg, 4, other)); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("other content: %v, want %v", err, archive.ErrConflict)
			}
			if got, info := readSealed(t, w, seg); !bytes.Equal(got, raw) || info.Epoch != 3 {
				t.Error("the first writer has not won")
			}
		})
	}
}

// TestSealKnowsItsContentInAnyCompression: frames differ from run to run and release to release; what counts is what
// they hold.
func TestSealKnowsItsContentInAnyCompression(t *testing.T) {
	seg, raw := segmentOf(1, 7), walBytes(1, mib)
	other := bytes.Clone(raw)
	other[0] ^= 1
	framed := func(raw []byte) []byte {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if err != nil {
			t.Fatal(err)
		}
		return e.EncodeAll(raw[mib/3:], e.EncodeAll(raw[:mib/3], nil))
	}
	for name, body := range map[string]func([]byte) []byte{
		".zst": framed, ".lz4": func(b []byte) []byte { return compressed(t, ".lz4", b) },
		".gz": func(b []byte) []byte { return compressed(t, ".gz", b) }, "": func(b []byte) []byte { return b },
	} {
		t.Run("WAL-G's"+name, func(t *testing.T) {
			bucket := archivetest.Memory()
			w := archive.New(bucket).WAL(mib)
			key := "wal_005/" + seg.Name(mib) + name
			bucket.SetBytes(key, body(raw)) // without metadata
			if got, info := readSealed(t, w, seg); !bytes.Equal(got, raw) || info.Known || info.Key != key {
				t.Errorf("read %d bytes, %+v", len(got), info)
			}
			info, err := w.StatSegment(t.Context(), seg)
			if err != nil || info.Known || info.Valid != mib || info.Key != key {
				t.Errorf("stat: %+v, %v", info, err)
			}
			if name != ".zst" {
				return // ours would have another key
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw)); err != nil {
				t.Errorf("the same content: %v", err)
			}
			if !bytes.Equal(bucket.Bytes(key), body(raw)) {
				t.Error("WAL-G's object was replaced")
			}
			// A clean stop in the middle of a segment that WAL-G has stored whole.
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw[:5000])); err != nil {
				t.Errorf("a prefix of the content: %v", err)
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, other)); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("other content: %v, want %v", err, archive.ErrConflict)
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, other[:5000])); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("the prefix of other content: %v, want %v", err, archive.ErrConflict)
			}
		})
	}
}

func TestPaddedSegment(t *testing.T) {
	for name, z := range sizes {
		t.Run(name, func(t *testing.T) {
			bucket := archivetest.Memory()
			w := archive.New(bucket).WAL(z)
			seg, raw := segmentOf(1, 7), walBytes(1, int(z))
			const valid = 100_000
			info, err := w.Seal(t.Context(), sealOf(seg, 1, raw[:valid]))
			if err != nil || !info.Padded || info.Valid != valid || info.End(z) != seg.Start(z)+valid {
				t.Fatalf("%+v, %v", info, err)
			}
			got, there := readSealed(t, w, seg)
			if !bytes.Equal(got[:valid], raw[:valid]) || len(got) != int(z) || len(bytes.Trim(got[valid:], "\x00")) != 0 {
				t.Error("the object is not the bytes that were valid and zeros")
			}
			if !there.Padded || there.Valid != valid {
				t.Errorf("read back as %+v", there)
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw[:valid])); err != nil {
				t.Errorf("the same once more: %v", err)
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw[:valid-1])); err != nil {
				t.Errorf("a prefix of it: %v", err)
			}

			longer, foreign := sealOf(seg, 2, raw), sealOf(seg, 2, walBytes(2, int(z)))
			if _, err := w.Seal(t.Context(), longer); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("its continuation, by one who may not replace: %v, want %v", err, archive.ErrConflict)
			}
			foreign.Replace = true
			if _, err := w.Seal(t.Context(), foreign); !errors.Is(err, archive.ErrConflict) {
				t.Errorf("other content, by one who may replace: %v, want %v", err, archive.ErrConflict)
			}
			longer.Replace = true
			for range 2 {
				if info, err := w.Seal(t.Context(), longer); err != nil || info.Padded || info.Epoch != 2 {
					t.Fatalf("its continuation, by its owner: %+v, %v", info, err)
				}
			}
			if got, info := readSealed(t, w, seg); !bytes.Equal(got, raw) || info.Padded {
				t.Error("the padded object was not replaced by its continuation")
			}
			if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw[:valid])); err != nil {
				t.Errorf("the padded one again, too late: %v", err)
			}
			if _, info := readSealed(t, w, seg); info.Padded {
				t.Error("a whole segment was replaced by a padded one")
			}
		})
	}
}

// TestPaddedContinuedByPadded: a second clean stop in the same segment.
func TestPaddedContinuedByPadded(t *testing.T) {
	w := archive.New(archivetest.Memory()).WAL(mib)
	seg, raw := segmentOf(1, 7), walBytes(1, mib)
	for epoch, valid := range []int{1000, 1000, 50_000, mib - 1, mib} {
		r := sealOf(seg, uint64(epoch), raw[:valid])
		r.Replace = true
		if info, err := w.Seal(t.Context(), r); err != nil || info.Valid != int64(valid) {
			t.Fatalf("%d valid bytes: %+v, %v", valid, info, err)
		}
	}
}

// shifty is a segment that changes after it was read once.
type shifty struct {
	raw  []byte
	read int
}

func (s *shifty) ReadAt(p []byte, off int64) (int, error) {
	n := copy(p, s.raw[off:])
	s.read += n
	if off+int64(n) == int64(len(s.raw)) {
		s.raw[len(s.raw)/2] ^= 1
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// TestSealAsksBeforeItStores: what was read counts only once somebody has said so, and nothing is stored before.
func TestSealAsksBeforeItStores(t *testing.T) {
	for name, z := range sizes {
		t.Run(name, func(t *testing.T) {
			bucket := archivetest.Memory()
			w := archive.New(bucket).WAL(z)
			gone := errors.New("it is another file now")
			raw := walBytes(1, int(z))
			for n := range 3 { // each time that it is asked but the last
				asked := 0
				r := sealOf(segmentOf(1, 7), 1, raw)
				r.Counts = func() error {
					if asked++; asked > n {
						return gone
					}
					return nil
				}
				_, err := w.Seal(t.Context(), r)
				if keys := bucket.Keys(); errors.Is(err, gone) != (len(keys) == 0) {
					t.Fatalf("asked %d times, %v: there are %v", asked, err, keys)
				}
				if n == 0 && err == nil {
					t.Error("it was not asked at all")
				}
				if err == nil {
					break
				}
			}
			// Other content is a conflict only if it is this segment's.
			other := sealOf(segmentOf(1, 7), 1, walBytes(2, int(z)))
			other.Counts = func() error { return gone }
			if _, err := w.Seal(t.Context(), other); !errors.Is(err, gone) || errors.Is(err, archive.ErrConflict) {
				t.Errorf("another file's bytes: %v, want %v", err, gone)
			}
		})
	}
}

func TestSegmentThatChangesIsNotSealed(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(32 * mib)
	seg := segmentOf(1, 7)
	_, err := w.Seal(t.Context(), archive.SealRequest{Segment: seg, Raw: &shifty{raw: walBytes(1, 32*mib)}, Valid: 32 * mib})
	if err == nil || !strings.Contains(err.Error(), "changed while it was being read") {
		t.Errorf("%v, want an error that says so", err)
	}
	if keys := bucket.Keys(); len(keys) != 0 {
		t.Errorf("stored all the same: %v", keys)
	}
	// A small segment is read once, so it is whatever was there.
	small := archive.New(bucket).WAL(mib)
	raw := &shifty{raw: walBytes(1, mib)}
	if _, err := small.Seal(t.Context(), archive.SealRequest{Segment: seg, Raw: raw, Valid: mib}); err != nil || raw.read != mib {
		t.Errorf("%v after %d bytes were read, want each once", err, raw.read)
	}
	readSealed(t, small, seg) // what is stored has the hash that is recorded
}

// TestSegmentWithAHoleIsNotSealed: zeros follow a switch, and nothing follows them.
func TestSegmentWithAHoleIsNotSealed(t *testing.T) {
	for name, z := range sizes {
		for _, at := range []int{wal.PageSize, mib / 8, mib - 2*wal.PageSize} {
			bucket := archivetest.Memory()
			w := archive.New(bucket).WAL(z)
			raw := walBytes(1, int(z))
			clear(raw[at : at+wal.PageSize])
			// Readers of files see what is inside of one read; it is between two reads that they see nothing.
			r := archive.SealRequest{Segment: segmentOf(1, 7), Epoch: 1, Raw: pagewise{bytes.NewReader(raw)}, Valid: int64(z)}
			if _, err := w.Seal(t.Context(), r); err == nil || errors.Is(err, archive.ErrConflict) {
				t.Errorf("%s: sealed with a page of zeros at %d: %v", name, at, err)
			}
			if keys := bucket.Keys(); len(keys) != 0 {
				t.Errorf("%s: stored all the same: %v", name, keys)
			}
			clear(raw[at:])
			if _, err := w.Seal(t.Context(), sealOf(segmentOf(1, 7), 1, raw)); err != nil {
				t.Errorf("%s: a segment that was switched away from at %d: %v", name, at, err)
			}
		}
	}
}

// pagewise reads a page at a time.
type pagewise struct{ *bytes.Reader }

func (p pagewise) ReadAt(b []byte, off int64) (int, error) {
	if len(b) > wal.PageSize {
		b = b[:wal.PageSize]
	}
	return p.Reader.ReadAt(b, off)
}

func TestSegmentThatIsTooShortIsNotSealed(t *testing.T) {
	for name, z := range sizes {
		bucket := archivetest.Memory()
		w := archive.New(bucket).WAL(z)
		raw := walBytes(1, int(z)-1)
		for _, valid := range []int64{int64(z), 0, -1, int64(z) + 1} {
			r := sealOf(segmentOf(1, 7), 1, raw)
			r.Valid = valid
			if _, err := w.Seal(t.Context(), r); err == nil {
				t.Errorf("%s: sealed with %d valid bytes of %d", name, valid, len(raw))
			}
		}
		if keys := bucket.Keys(); len(keys) != 0 {
			t.Errorf("%s: stored all the same: %v", name, keys)
		}
	}
}

// TestDamagedObjectsAreRepairedByTheirWriter: the upload of an earlier life was damaged on its way, its writer died
// before it could repair it, and its metadata promise the right content. Taking it for a success would delete the
// chunks that still hold the WAL.
func TestDamagedObjectsAreRepairedByTheirWriter(t *testing.T) {
	seg, raw := segmentOf(1, 7), walBytes(1, mib)
	c := chunkOf(seg, 1, 0, 9000)
	for name, damage := range map[string]func([]byte) []byte{
		"cut": func(b []byte) []byte { return b[:len(b)/2] }, "empty": func([]byte) []byte { return nil },
		"flipped": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)/2] ^= 1; return b },
		"swapped": func([]byte) []byte { return compressed(t, ".zst", walBytes(9, mib)) },
	} {
		bucket := archivetest.Memory()
		w := archive.New(bucket).WAL(mib)
		put := func(epoch uint64, raw []byte) error {
			_, serr := w.Seal(t.Context(), sealOf(seg, epoch, raw))
			_, cerr := w.PutChunk(t.Context(), c, raw[:9000])
			return errors.Join(serr, cerr)
		}
		if err := put(1, raw); err != nil {
			t.Fatal(err)
		}
		for _, key := range bucket.Keys() {
			bucket.SetBytes(key, damage(bucket.Bytes(key)))
		}
		other := walBytes(2, mib)
		if _, err := w.Seal(t.Context(), sealOf(seg, 2, other)); err == nil {
			t.Errorf("%s: other content was stored over damaged content", name)
		}
		if _, err := w.PutChunk(t.Context(), c, other[:9000]); !errors.Is(err, archive.ErrConflict) {
			t.Errorf("%s: another chunk over a damaged one: %v, want %v", name, err, archive.ErrConflict)
		}
		if err := put(1, raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got, _ := readSealed(t, w, seg); !bytes.Equal(got, raw) {
			t.Errorf("%s: the segment is not repaired", name)
		}
		if got, err := w.ReadChunk(t.Context(), c); err != nil || !bytes.Equal(got, raw[:9000]) {
			t.Errorf("%s: the chunk is not repaired: %v", name, err)
		}
	}
}

func TestSealDuringAnOutage(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	seg, raw := segmentOf(1, 7), walBytes(1, mib)
	if _, err := w.Seal(t.Context(), sealOf(seg, 1, raw)); err != nil {
		t.Fatal(err)
	}
	outage(bucket, "open", ".zst")
	_, err := w.Seal(t.Context(), sealOf(seg, 1, raw))
	if !errors.Is(err, errOutage) || errors.Is(err, archive.ErrConflict) || errors.Is(err, fs.ErrExist) {
		t.Errorf("exists, and cannot be compared: %v, want %v", err, errOutage)
	}
}

func TestStatSegment(t *testing.T) {
	bucket := archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	seg := segmentOf(1, 7)
	name := seg.Name(mib)
	for _, beside := range []string{".partial.zst", ".00000028.backup.zst", "_delta.zst", ".json"} {
		bucket.SetBytes("wal_005/"+name+beside, []byte("x"))
	}
	if _, err := w.StatSegment(t.Context(), seg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("only others' objects: %v, want %v", err, fs.ErrNotExist)
	}
	if _, _, err := w.OpenSegment(t.Context(), seg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("only others' objects: %v, want %v", err, fs.ErrNotExist)
	}
	outage(bucket, "list", name)
	if _, err := w.StatSegment(t.Context(), seg); !errors.Is(err, errOutage) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("could not tell: %v, want %v", err, errOutage)
	}
	bucket.Fault(nil)
	sum := sha256.Sum256(nil)
	for _, length := range []string{"x", "0", "-1", strconv.Itoa(mib + 1), ""} {
		meta := map[string]string{"outrider-length": length, "outrider-sha256": hex.EncodeToString(sum[:])}
		if err := bucket.Put(t.Context(), "wal_005/"+name+".zst", []byte("x"), archive.PutOptions{Replace: true, Meta: meta}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.StatSegment(t.Context(), seg); !errors.Is(err, archive.ErrCorrupt) {
			t.Errorf("length %q: %v, want %v", length, err, archive.ErrCorrupt)
		}
	}
}

// TestSealOverASupersededWriter: what was sealed past the start of the owner counts only up to there, equal or not.
func TestSealOverASupersededWriter(t *testing.T) {
	for name, z := range sizes {
		for what, change := range map[string]int{"equal": -1, "differs after the owner's start": 6000, "differs before it": 4000} {
			t.Run(name+", "+what, func(t *testing.T) {
				w := archive.New(archivetest.Memory()).WAL(z)
				seg, ours := segmentOf(1, 7), walBytes(1, int(z))
				theirs := bytes.Clone(ours)
				if change >= 0 {
					theirs[change] ^= 1
				}
				if _, err := w.Seal(t.Context(), sealOf(seg, 1, theirs)); err != nil {
					t.Fatal(err)
				}
				r := sealOf(seg, 2, ours)
				r.Owners = archive.Owners{}.With(archive.Epoch{Number: 1}).With(archive.Epoch{Number: 2, Since: seg.Start(z) + 5000, Replaces: true})
				_, err := w.Seal(t.Context(), r)
				if change == 4000 {
					if !errors.Is(err, archive.ErrConflict) || errors.Is(err, archive.ErrReplaceable) {
						t.Errorf("another history: %v, want %v", err, archive.ErrConflict)
					}
					return
				}
				if !errors.Is(err, archive.ErrConflict) || !errors.Is(err, archive.ErrReplaceable) {
					t.Errorf("not asked whether it owns the timeline: %v, want %v", err, archive.ErrReplaceable)
				}
				r.Replace = true
				for range 2 {
					if _, err := w.Seal(t.Context(), r); err != nil {
						t.Fatal(err)
					}
				}
				if got, info := readSealed(t, w, seg); !bytes.Equal(got, ours) || info.Epoch != 2 {
					t.Errorf("it is epoch %d's", info.Epoch)
				}
				if _, err := w.Seal(t.Context(), sealOf(seg, 1, theirs)); (err == nil) != (change < 0) {
					t.Errorf("the superseded writer seals it again: %v", err)
				}
			})
		}
	}
}
