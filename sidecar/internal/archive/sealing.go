package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"

	"outrider.dev/sidecar/internal/wal"
)

// maxBuffered is the largest segment that is sealed from memory, with one read and one pass of hashing. Larger ones
// are streamed twice: memory is to stay bounded even with segments of 1 GiB.
const maxBuffered = wal.DefaultSegmentSize

// sealing is one segment on its way into the archive.
type sealing struct {
	w      *WAL
	r      SealRequest
	sum    string
	buffer *sealBuffer // nil for a segment that is streamed
}

// sealBuffer is reused, because its two halves are most of the memory of a sidecar that ships.
type sealBuffer struct{ raw, stored []byte }

type sealBuffers struct{ pool sync.Pool }

func (p *sealBuffers) get(n int64) *sealBuffer {
	b, ok := p.pool.Get().(*sealBuffer)
	if !ok || int64(cap(b.raw)) < n {
		b = &sealBuffer{raw: make([]byte, n)}
	}
	b.raw = b.raw[:n]
	return b
}

func (w *WAL) newSealing(r SealRequest) (*sealing, error) {
	j := &sealing{w: w, r: r}
	if w.Size > maxBuffered {
		var err error
		j.sum, err = hashPrefix(r.Raw, r.Valid)
		return j, err
	}
	j.buffer = w.buffers.get(int64(w.Size))
	if _, err := io.ReadFull(io.NewSectionReader(r.Raw, 0, r.Valid), j.buffer.raw[:r.Valid]); err != nil {
		j.close()
		return nil, err
	}
	clear(j.buffer.raw[r.Valid:])
	sum := sha256.Sum256(j.buffer.raw[:r.Valid])
	j.sum = hex.EncodeToString(sum[:])
	return j, nil
}

func (j *sealing) close() {
	if j.buffer != nil {
		j.w.buffers.pool.Put(j.buffer)
		j.buffer = nil
	}
}

func (j *sealing) put(ctx context.Context, replace bool) (SegmentInfo, error) {
	r, w := j.r, j.w
	info := SegmentInfo{
		Segment: r.Segment, Key: w.segmentKey(r.Segment), Known: true, Valid: r.Valid, SHA256: j.sum, Epoch: r.Epoch,
		Padded: r.Valid < int64(w.Size),
	}
	meta := map[string]string{metaLength: strconv.FormatInt(r.Valid, 10), metaSHA256: j.sum, metaEpoch: strconv.FormatUint(r.Epoch, 10)}
	if info.Padded {
		meta[metaPadded] = "true"
	}
	options := PutOptions{Meta: meta, Replace: replace}
	if j.buffer != nil {
		j.buffer.stored = w.codec.compress(j.buffer.stored[:0], j.buffer.raw)
		info.Stored = int64(len(j.buffer.stored))
		return info, wrap("storing", info.Key, w.bucket.Put(ctx, info.Key, j.buffer.stored, options))
	}
	o, err := j.stream(ctx, info.Key, options)
	info.Stored = o.Size
	return info, wrap("storing", info.Key, err)
}

// stream compresses the segment while it is read for the second time.
func (j *sealing) stream(ctx context.Context, key string, options PutOptions) (ObjectInfo, error) {
	again := sha256.New()
	raw := io.TeeReader(io.NewSectionReader(j.r.Raw, 0, j.r.Valid), again)
	stream := j.w.codec.compressing(io.MultiReader(raw, io.LimitReader(zeros{}, int64(j.w.Size)-j.r.Valid)))
	defer stream.Close()
	return j.w.bucket.Upload(ctx, key, &sealGuard{Reader: stream, check: func() error {
		// What goes up must be what was hashed: a file that changed underneath would be sealed wrong for ever.
		if hex.EncodeToString(again.Sum(nil)) != j.sum {
			return fmt.Errorf("segment %s changed while it was being read", j.r.Segment.Name(j.w.Size))
		}
		return nil
	}}, options)
}

// reconcile compares with the object that exists already, and decides whether it is as good as ours, is to be
// replaced, or is somebody else's.
func (j *sealing) reconcile(ctx context.Context) (SegmentInfo, error) {
	there, theirs, err := j.w.readBack(ctx, j.r.Segment, j.r.Valid)
	if errors.Is(err, ErrCorrupt) && there.Known && there.Valid == j.r.Valid && there.SHA256 == j.sum {
		// It was to hold just these bytes and does not: the upload of an earlier life went wrong.
		return j.put(ctx, true)
	}
	if err != nil {
		return there, fmt.Errorf("comparing with the segment that is there: %w", err)
	}
	ours := j.sum
	if there.Valid < j.r.Valid {
		if ours, err = hashPrefix(j.r.Raw, there.Valid); err != nil {
			return there, fmt.Errorf("reading segment %s to compare it: %w", j.r.Segment.Name(j.w.Size), err)
		}
	}
	switch {
	case ours != theirs:
		return there, j.w.conflict(j.r, there)
	case there.Valid >= j.r.Valid:
		return there, nil
	case !there.Padded || !j.r.ReplacePadded:
		return there, j.w.conflict(j.r, there)
	}
	return j.put(ctx, true)
}

// sealGuard withholds the end of a stream until what was read has been checked, so that an upload cannot complete.
type sealGuard struct {
	io.Reader
	check func() error
}

func (g *sealGuard) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		if cerr := g.check(); cerr != nil {
			return n, cerr
		}
	}
	return n, err
}

func hashPrefix(r io.ReaderAt, n int64) (string, error) {
	h := sha256.New()
	m, err := io.Copy(h, io.NewSectionReader(r, 0, n))
	if err == nil && m != n {
		err = io.ErrUnexpectedEOF
	}
	return hex.EncodeToString(h.Sum(nil)), err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
