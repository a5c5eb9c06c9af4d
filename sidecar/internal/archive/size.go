package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"outrider.dev/sidecar/internal/wal"
)

// SegmentSize tells how large the root's WAL segments are: from outrider/cluster.json, or where WAL-G alone wrote, from
// the header of a segment. A root without either holds no WAL; it is fs.ErrNotExist.
func (a *Archive) SegmentSize(ctx context.Context) (wal.SegmentSize, error) {
	c, err := a.Cluster(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		if err == nil && !c.SegmentSize.Valid() {
			err = fmt.Errorf("reading %s: %w: a WAL segment cannot have %d bytes", clusterKey, ErrCorrupt, c.SegmentSize)
		}
		return c.SegmentSize, err
	}
	for o, err := range a.bucket.List(ctx, walDir, "") {
		if err != nil {
			return 0, fmt.Errorf("looking for a WAL segment, to learn its size: %w", err)
		}
		if _, _, ok := splitSegmentKey(o.Key); ok {
			return a.readSegmentSize(ctx, o.Key)
		}
	}
	return 0, fmt.Errorf("looking for a WAL segment, to learn its size: %w", fs.ErrNotExist)
}

// readSegmentSize reads the first header of a segment object.
func (a *Archive) readSegmentSize(ctx context.Context, key string) (z wal.SegmentSize, err error) {
	body, _, err := a.bucket.Open(ctx, key, Range{})
	if err != nil {
		return 0, wrap("reading", key, err)
	}
	raw, err := a.codec.decompressing(key, body)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, raw.Close()) }()
	page := make([]byte, wal.PageSize)
	if _, err := io.ReadFull(raw, page); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: it ends within its first page", ErrCorrupt)
		}
		return 0, wrap("reading", key, err)
	}
	h, err := wal.ParsePageHeader(page)
	if err != nil || !h.Long() || !h.SegmentSize.Valid() {
		return 0, fmt.Errorf("reading %s: %w: it does not begin like a WAL segment", key, ErrCorrupt)
	}
	return h.SegmentSize, nil
}
