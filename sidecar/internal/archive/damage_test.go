package archive_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// breaking delivers half of each object and then fails as a network does.
type breaking struct{ *archivetest.Bucket }

var errNetwork = errors.New("the network is gone")

func (b breaking) Open(ctx context.Context, key string, r archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	body, o, err := b.Bucket.Open(ctx, key, r)
	if err != nil {
		return nil, o, err
	}
	half := io.MultiReader(io.LimitReader(body, o.Size/2), iotest.ErrReader(errNetwork))
	return io.NopCloser(half), o, nil
}

func compressed(t *testing.T, ext string, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch ext {
	case ".zst":
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	case ".lz4":
		w = lz4.NewWriter(&b)
	case ".gz":
		w = gzip.NewWriter(&b)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDamageIsToldFromAnOutage reads segments that were damaged in the store, and segments behind a network that fails:
// the first are damaged, the second could not be told.
func TestDamageIsToldFromAnOutage(t *testing.T) {
	raw := make([]byte, mib)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range raw {
		raw[i] = byte(r.IntN(7))
	}
	seg := wal.Segment{Timeline: 1, Number: 1}
	for _, ext := range []string{".zst", ".lz4", ".gz"} {
		whole := compressed(t, ext, raw)
		flipped := bytes.Clone(whole)
		flipped[len(flipped)/2] ^= 0x40
		for name, body := range map[string][]byte{
			"cut in the middle": whole[:len(whole)/2], "cut at the end": whole[:len(whole)-1], "a flipped bit": flipped,
			"empty": {}, "something else": []byte("<html>not found</html>"),
		} {
			bucket := archivetest.Memory()
			bucket.SetBytes("wal_005/"+seg.Name(mib)+ext, body)
			if err := readSegment(t, archive.New(bucket), seg); !errors.Is(err, archive.ErrCorrupt) {
				t.Errorf("%s, %s: error = %v, want ErrCorrupt", ext, name, err)
			}
		}
		bucket := archivetest.Memory()
		bucket.SetBytes("wal_005/"+seg.Name(mib)+ext, whole)
		if err := readSegment(t, archive.New(bucket), seg); err != nil {
			t.Errorf("%s, whole: %v", ext, err)
		}
		err := readSegment(t, archive.New(breaking{bucket}), seg)
		if !errors.Is(err, errNetwork) || errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, behind a network that fails: error = %v, want that of the network", ext, err)
		}
	}
}

func readSegment(t *testing.T, a *archive.Archive, seg wal.Segment) error {
	t.Helper()
	r, _, err := a.WAL(mib).OpenSegment(t.Context(), seg)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r)
	return errors.Join(err, r.Close())
}
