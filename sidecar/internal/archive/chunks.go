package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"outrider.dev/sidecar/internal/wal"
)

// ChunkInfo is what the archive says about the content of a chunk.
type ChunkInfo struct {
	Chunk
	SHA256 string
}

// PutChunk stores the WAL bytes raw of c and returns how many bytes were stored. Writing the same bytes again is
// success, other bytes are ErrConflict.
func (w *WAL) PutChunk(ctx context.Context, c Chunk, raw []byte) (int, error) {
	return w.AddChunk(ctx, nil, c, raw)
}

// AddChunk is PutChunk for a chunk that belongs to a draft, which may be nil. The draft has it once it is stored.
func (w *WAL) AddChunk(ctx context.Context, d *Draft, c Chunk, raw []byte) (int, error) {
	stored := w.buffers.get()
	defer w.buffers.put(stored)
	*stored = w.codec.compress((*stored)[:0], raw)
	if err := w.putChunk(ctx, c, raw, *stored); err != nil {
		return 0, err
	}
	d.add(c, raw, *stored)
	return len(*stored), nil
}

func (w *WAL) putChunk(ctx context.Context, c Chunk, raw, body []byte) error {
	if !c.valid(w.Size) || int64(len(raw)) != int64(c.To-c.From) {
		return fmt.Errorf("storing the chunk %s-%s of %s: %d bytes do not fit that range", c.From, c.To, c.Segment.Name(w.Size), len(raw))
	}
	key := chunkKey(c, w.Size)
	sum := sha256.Sum256(raw)
	o := PutOptions{Meta: map[string]string{
		metaLength: strconv.Itoa(len(raw)), metaSHA256: hex.EncodeToString(sum[:]), metaEpoch: strconv.FormatUint(c.Epoch, 10),
	}}
	err := w.bucket.Put(ctx, key, body, o)
	if !errors.Is(err, fs.ErrExist) {
		return wrap("storing", key, err)
	}
	damaged, err := w.compareChunk(ctx, c, raw, o.Meta[metaSHA256])
	if err != nil || !damaged {
		return err
	}
	// It was to hold just these bytes and does not: the upload of an earlier life went wrong.
	o.Replace = true
	return wrap("repairing", key, w.bucket.Put(ctx, key, body, o))
}

// compareChunk reads the chunk that is there instead of ours. damaged means that it says it is ours and is not.
func (w *WAL) compareChunk(ctx context.Context, c Chunk, raw []byte, sum string) (damaged bool, err error) {
	key := chunkKey(c, w.Size)
	there, err := w.ReadChunk(ctx, c)
	switch {
	case err == nil && bytes.Equal(there, raw):
		return false, nil
	case err == nil:
		return false, fmt.Errorf("storing %s: %w", key, ErrConflict)
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("storing %s: it existed, and was gone when it was to be compared: %s", key, err.Error())
	case !errors.Is(err, ErrCorrupt):
		return false, fmt.Errorf("comparing with the chunk that is there: %w", err)
	}
	info, serr := w.StatChunk(ctx, c)
	if serr != nil {
		return false, fmt.Errorf("comparing with the chunk that is there: %w", serr)
	}
	if info.SHA256 != sum {
		return false, fmt.Errorf("storing %s: %w: %w", key, ErrConflict, err)
	}
	return true, nil
}

// StatChunk reads the recorded hash of a chunk.
func (w *WAL) StatChunk(ctx context.Context, c Chunk) (ChunkInfo, error) {
	key := chunkKey(c, w.Size)
	o, err := w.bucket.Stat(ctx, key)
	if err != nil {
		return ChunkInfo{}, wrap("asking for", key, err)
	}
	return ChunkInfo{Chunk: c, SHA256: o.Meta[metaSHA256]}, nil
}

// ReadChunk returns the raw WAL bytes of c, checked against length and hash.
func (w *WAL) ReadChunk(ctx context.Context, c Chunk) ([]byte, error) {
	key := chunkKey(c, w.Size)
	body, o, err := w.bucket.Open(ctx, key, Range{})
	if err != nil {
		return nil, wrap("reading", key, err)
	}
	raw, err := w.codec.decompressing(key, body)
	if err != nil {
		return nil, err
	}
	want := int64(c.To - c.From)
	buf := bytes.NewBuffer(make([]byte, 0, want+bytes.MinRead))
	_, err = io.Copy(buf, io.LimitReader(raw, want+1))
	if err = errors.Join(err, raw.Close()); err != nil {
		return nil, wrap("reading", key, err)
	}
	sum := sha256.Sum256(buf.Bytes())
	if int64(buf.Len()) != want || o.Meta[metaSHA256] != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("reading %s: %w: %d bytes with sha256 %x…, recorded were %d with %.12s…", key, ErrCorrupt, buf.Len(), sum[:6], want, o.Meta[metaSHA256])
	}
	return buf.Bytes(), nil
}

// RemoveChunks deletes chunks whose segment is sealed. It is the only right to delete that a writer needs.
func (w *WAL) RemoveChunks(ctx context.Context, chunks []Chunk) error {
	keys := make([]string, len(chunks))
	for i, c := range chunks {
		keys[i] = chunkKey(c, w.Size)
	}
	if len(keys) == 0 {
		return nil
	}
	if err := w.bucket.Remove(ctx, keys...); err != nil {
		return fmt.Errorf("deleting %d chunks of sealed segments below %s: %w", len(keys), tailDir, err)
	}
	return nil
}

// PutHistory stores the .history file of t, exactly as PostgreSQL wrote it.
func (a *Archive) PutHistory(ctx context.Context, t wal.Timeline, content []byte) error {
	key := walDir + wal.HistoryName(t) + Extension
	err := a.bucket.Put(ctx, key, a.codec.compress(nil, content), PutOptions{})
	if !errors.Is(err, fs.ErrExist) {
		return wrap("storing", key, err)
	}
	there, err := a.RawHistory(ctx, key)
	if err != nil {
		return fmt.Errorf("comparing with the history that is there: %w", err)
	}
	if !bytes.Equal(there, content) {
		return fmt.Errorf("storing %s: %w", key, ErrConflict)
	}
	return nil
}

// RawHistory reads a .history object, whatever its compression, as PostgreSQL wrote it.
func (a *Archive) RawHistory(ctx context.Context, key string) ([]byte, error) {
	body, _, err := a.bucket.Open(ctx, key, Range{})
	if err != nil {
		return nil, wrap("reading", key, err)
	}
	raw, err := a.codec.decompressing(key, body)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(raw, maxDocument))
	return b, wrap("reading", key, errors.Join(err, raw.Close()))
}
