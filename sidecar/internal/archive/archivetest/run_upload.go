package archivetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"testing"

	"outrider.dev/sidecar/internal/archive"
)

const mib = 1 << 20

func testUploadSizes(t *testing.T, b archive.Bucket) {
	for i, size := range []int{0, 1, 8*mib - 1, 8 * mib, 8*mib + 1, 16 * mib, 27*mib + 5} {
		key := string(rune('a' + i))
		body := random(uint64(size), size)
		info, err := b.Upload(t.Context(), key, &stutter{Reader: bytes.NewReader(body)}, archive.PutOptions{Meta: map[string]string{"size": "x"}})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if info.Key != key || info.Size != int64(size) || info.CRC64 != crc64.Checksum(body, crcTable) {
			t.Errorf("%d bytes: the answer is key %q, size %d, CRC64 %d", size, info.Key, info.Size, info.CRC64)
		}
		got, there := read(t, b, key, archive.Range{})
		if !bytes.Equal(got, body) || there.Meta["size"] != "x" || there.CRC64 != info.CRC64 {
			t.Errorf("%d bytes: read back %d, metadata %v, CRC64 %d", size, len(got), there.Meta, there.CRC64)
		}
	}
}

// stutter hands out odd pieces, as a compressor does.
type stutter struct {
	io.Reader
	n int
}

func (s *stutter) Read(p []byte) (int, error) {
	s.n++
	if s.n%7 == 0 {
		return 0, nil
	}
	return s.Reader.Read(p[:min(len(p), 100_003+s.n)])
}

func testUploadOnce(t *testing.T, b archive.Bucket) {
	for key, size := range map[string]int{"small": 10, "big": 17 * mib} {
		first, second := random(1, size), random(2, size)
		if _, err := b.Upload(t.Context(), key, bytes.NewReader(first), archive.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Upload(t.Context(), key, bytes.NewReader(second), archive.PutOptions{}); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%d bytes again: %v, want %v", size, err, fs.ErrExist)
		}
		wantContent(t, b, key, first)
		if _, err := b.Upload(t.Context(), key, bytes.NewReader(second), archive.PutOptions{Replace: true}); err != nil {
			t.Fatal(err)
		}
		wantContent(t, b, key, second)
	}
}

// hook runs a function when the stream has been read up to a place.
type hook struct {
	io.Reader
	left int
	run  func() error
}

func (h *hook) Read(p []byte) (int, error) {
	if h.left <= 0 && h.run != nil {
		run := h.run
		h.run = nil
		if err := run(); err != nil {
			return 0, err
		}
	}
	n, err := h.Reader.Read(p)
	h.left -= n
	return n, err
}

func testUploadInvisible(t *testing.T, b archive.Bucket) {
	asked := false
	body := &hook{Reader: bytes.NewReader(random(1, 26*mib)), left: 25 * mib, run: func() error {
		asked = true
		wantMissing(t, b, "k")
		wantKeys(t, b, "", "")
		return nil
	}}
	if _, err := b.Upload(t.Context(), "k", body, archive.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if !asked {
		t.Error("the stream was not read as expected")
	}
	wantKeys(t, b, "", "", "k")
}

// failing is a stream that ends with an error.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func testUploadGivenUp(t *testing.T, b archive.Bucket) {
	broken := errors.New("the source is broken")
	content := random(1, 25*mib)
	// What sounds like an end and is none must not make a whole object of half a stream.
	for _, end := range []error{io.ErrUnexpectedEOF, fmt.Errorf("reading a file: %w", io.EOF)} {
		for _, at := range []int{0, 5, 9 * mib, 24 * mib} {
			body := io.MultiReader(bytes.NewReader(content[:at]), failing{end})
			if _, err := b.Upload(t.Context(), "k", body, archive.PutOptions{}); !errors.Is(err, end) {
				t.Errorf("source ends with %q at %d: %v", end, at, err)
			}
			wantMissing(t, b, "k")
		}
	}
	for _, at := range []int{0, 5, 9 * mib, 24 * mib} {
		body := &hook{Reader: bytes.NewReader(content), left: at, run: func() error { return broken }}
		if _, err := b.Upload(t.Context(), "k", body, archive.PutOptions{}); !errors.Is(err, broken) {
			t.Errorf("source broken at %d: %v, want %v", at, err, broken)
		}
		wantMissing(t, b, "k")

		ctx, cancel := context.WithCancel(t.Context())
		body = &hook{Reader: bytes.NewReader(content), left: at, run: func() error { cancel(); return nil }}
		if _, err := b.Upload(ctx, "k", body, archive.PutOptions{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d: %v, want %v", at, err, context.Canceled)
		}
		cancel()
		wantMissing(t, b, "k")
	}
	wantKeys(t, b, "", "")
	if _, err := b.Upload(t.Context(), "k", bytes.NewReader([]byte("fine")), archive.PutOptions{}); err != nil {
		t.Errorf("after uploads that were given up: %v", err)
	}
}
