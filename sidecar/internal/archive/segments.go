package archive

import (
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

// Object metadata of chunks and segments: what the content is, independent of its compression.
const (
	metaLength = "outrider-length" // raw bytes; for a padded segment those before the padding
	metaSHA256 = "outrider-sha256" // of those bytes
	metaEpoch  = "outrider-epoch"
	metaPadded = "outrider-padded" // "true" on the zero-padded last segment of a clean stop
)

// WAL is the part of an Archive that depends on the segment size.
type WAL struct {
	*Archive
	Size wal.SegmentSize
}

// WAL returns the view of the archive for segments of z bytes.
func (a *Archive) WAL(z wal.SegmentSize) *WAL { return &WAL{Archive: a, Size: z} }

// SegmentInfo is what the archive knows about a sealed segment.
type SegmentInfo struct {
	Segment wal.Segment
	Key     string
	Stored  int64 // bytes of the object
	Known   bool  // whether length and hash below are known: WAL-G's objects have none
	Valid   int64 // raw bytes from the start of the segment that are WAL; the rest is zero padding
	SHA256  string
	Epoch   uint64
	Padded  bool
}

// End is the first position that the sealed object does not hold.
func (s SegmentInfo) End(z wal.SegmentSize) wal.LSN { return s.Segment.Start(z) + wal.LSN(s.Valid) }

func (w *WAL) segmentKey(s wal.Segment) string { return walDir + s.Name(w.Size) + Extension }

// SealRequest is one segment to be written to wal_005/.
type SealRequest struct {
	Segment wal.Segment
	Epoch   uint64
	// Raw holds the segment from its first byte. It is read more than once.
	Raw io.ReaderAt
	// Counts is asked after Raw was read and before what was read is stored or judged: an error says that it was not the
	// segment. It may be nil.
	Counts func() error
	// Valid is the number of bytes of Raw that are WAL: the segment size, or less at a clean stop, where the object is
	// padded with zeros so that tools which know no chunks lose nothing.
	Valid int64
	// Draft is used instead of Raw where it is complete: what the chunks of the segment have left. It may be nil.
	Draft *Draft
	// Owners of the timeline tell what of an object that is there counts. Without them all of it does.
	Owners Owners
	// Replace allows replacing an object of which less counts than is to be sealed, and that much is a prefix of Raw: a
	// padded one, or one that a superseded writer has sealed past its end. The caller has made sure that it owns the
	// current epoch of this very timeline.
	Replace bool
}

// ErrReplaceable says, with ErrConflict, that SealRequest.Replace would help.
var ErrReplaceable = errors.New("the owner of the timeline may replace it")

// Seal stores a segment. Equal content that is already there and counts is success, and so is a longer object that begins
// with the same bytes; other content is ErrConflict. What is there is believed only after it was read back.
func (w *WAL) Seal(ctx context.Context, r SealRequest) (SegmentInfo, error) {
	if r.Valid <= 0 || r.Valid > int64(w.Size) {
		return SegmentInfo{}, fmt.Errorf("sealing %s: %d valid bytes do not fit a segment of %d", r.Segment.Name(w.Size), r.Valid, w.Size)
	}
	j, err := w.newSealing(r)
	if err != nil {
		return SegmentInfo{}, fmt.Errorf("reading segment %s to seal it: %w", r.Segment.Name(w.Size), err)
	}
	defer j.close()
	info, err := j.put(ctx, false)
	if !errors.Is(err, fs.ErrExist) {
		return info, err
	}
	return j.reconcile(ctx)
}

// readBack reads a segment whole, which checks it, and returns the hash of as many of its first bytes as count says. One
// of which nothing counts is not read.
func (w *WAL) readBack(ctx context.Context, s wal.Segment, count func(SegmentInfo) int64) (SegmentInfo, string, error) {
	r, info, err := w.OpenSegment(ctx, s)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("it existed and is gone: %s", err.Error()) // as text: not an answer to sealing it
		}
		return info, "", err
	}
	h, n := sha256.New(), count(info)
	if n > 0 {
		_, err = io.CopyN(h, r, n)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
	}
	return info, hex.EncodeToString(h.Sum(nil)), errors.Join(err, r.Close())
}

func (w *WAL) conflict(r SealRequest, there SegmentInfo) error {
	return fmt.Errorf("sealing %s for epoch %d: epoch %d has written it with %d valid bytes and sha256 %.12s…: %w",
		there.Key, r.Epoch, there.Epoch, there.Valid, there.SHA256, ErrConflict)
}

// StatSegment asks for a sealed segment, whatever wrote it; fs.ErrNotExist if there is none under any extension.
func (w *WAL) StatSegment(ctx context.Context, s wal.Segment) (SegmentInfo, error) {
	key := w.segmentKey(s)
	o, err := w.bucket.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		for found, lerr := range w.bucket.List(ctx, walDir+s.Name(w.Size), "") {
			if lerr != nil {
				return SegmentInfo{}, wrap("looking for", key, lerr)
			}
			if _, _, ok := splitSegmentKey(found.Key); ok {
				o, err = w.bucket.Stat(ctx, found.Key)
				break
			}
		}
	}
	if err != nil {
		return SegmentInfo{}, wrap("asking for", key, err)
	}
	return segmentInfo(s, o, w.Size)
}

func segmentInfo(s wal.Segment, o ObjectInfo, z wal.SegmentSize) (SegmentInfo, error) {
	info := SegmentInfo{Segment: s, Key: o.Key, Stored: o.Size, Valid: int64(z)}
	length, ok := o.Meta[metaLength]
	if !ok {
		return info, nil
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil || n <= 0 || n > int64(z) {
		return info, fmt.Errorf("reading the metadata of %s: %w: length %q", o.Key, ErrCorrupt, length)
	}
	info.Known, info.Valid, info.SHA256, info.Padded = true, n, o.Meta[metaSHA256], o.Meta[metaPadded] == "true"
	info.Epoch, _ = strconv.ParseUint(o.Meta[metaEpoch], 10, 64)
	return info, nil
}

// OpenSegment reads a sealed segment as Size raw bytes. Fewer or more, or another hash than its metadata promises, is
// ErrCorrupt at the end of the stream.
func (w *WAL) OpenSegment(ctx context.Context, s wal.Segment) (io.ReadCloser, SegmentInfo, error) {
	key := w.segmentKey(s)
	body, o, err := w.bucket.Open(ctx, key, Range{})
	if errors.Is(err, fs.ErrNotExist) {
		found, serr := w.StatSegment(ctx, s)
		if serr != nil {
			return nil, found, serr
		}
		key = found.Key
		body, o, err = w.bucket.Open(ctx, key, Range{})
	}
	if err != nil {
		return nil, SegmentInfo{}, wrap("reading", key, err)
	}
	o.Key = key
	info, err := segmentInfo(s, o, w.Size)
	if err != nil {
		return nil, info, errors.Join(err, body.Close())
	}
	raw, err := w.codec.decompressing(key, body)
	if err != nil {
		return nil, info, err
	}
	return newVerifiedReader(raw, key, int64(w.Size), info), info, nil
}
