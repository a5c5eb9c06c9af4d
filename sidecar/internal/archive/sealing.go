package archive

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"sync"

	"outrider.dev/sidecar/internal/wal"
)

// maxBuffered is the largest segment that is read once: its compressed form is held in memory until its hash, which goes
// with it, is known. Larger ones are streamed twice: memory is to stay bounded even with segments of 1 GiB.
const maxBuffered = wal.DefaultSegmentSize

// sealing is one segment on its way into the archive.
type sealing struct {
	w      *WAL
	r      SealRequest
	sum    string
	stored *[]byte // nil for a segment that is streamed
	shared bool    // whether stored is a draft's
}

// buffers are for what was compressed. They are reused because they are most of the memory of a sidecar that ships.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, 0, 1<<20)
	return &b
}

func (p *buffers) put(b *[]byte) { p.pool.Put(b) }

func (w *WAL) newSealing(r SealRequest) (*sealing, error) {
	j := &sealing{w: w, r: r}
	if d := r.Draft; d.holds(r, w.Size) {
		j.stored, j.sum, j.shared = &d.frames, d.sum(), true
		return j, nil
	}
	if w.Size > maxBuffered {
		var err error
		j.sum, err = hashPrefix(r.Raw, r.Valid)
		return j, r.counted(err)
	}
	h := sha256.New()
	padded := io.MultiReader(io.TeeReader(j.read(), h), io.LimitReader(zeros{}, int64(w.Size)-r.Valid))
	j.stored = w.buffers.get()
	var err error
	*j.stored, err = w.codec.compressFrom((*j.stored)[:0], padded, int64(w.Size))
	if err = r.counted(err); err != nil {
		j.close()
		return nil, err
	}
	j.sum = hex.EncodeToString(h.Sum(nil))
	return j, nil
}

// read reads the valid bytes.
func (j *sealing) read() io.Reader {
	return &unbroken{r: io.NewSectionReader(j.r.Raw, 0, j.r.Valid)}
}

func (j *sealing) close() {
	if j.stored != nil && !j.shared {
		j.w.buffers.put(j.stored)
		j.stored = nil
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
	if j.stored != nil {
		info.Stored = int64(len(*j.stored))
		return info, wrap("storing", info.Key, w.bucket.Put(ctx, info.Key, *j.stored, options))
	}
	o, err := j.stream(ctx, info.Key, options)
	info.Stored = o.Size
	if err != nil && !errors.Is(err, fs.ErrExist) {
		err = r.counted(err)
	}
	return info, wrap("storing", info.Key, err)
}

// counted is the outcome of reading, err, once it is known whether what was read is the segment.
func (r SealRequest) counted(err error) error {
	if r.Counts == nil {
		return err
	}
	if cerr := r.Counts(); cerr != nil {
		return cerr
	}
	return err
}

// stream compresses the segment while it is read for the second time.
func (j *sealing) stream(ctx context.Context, key string, options PutOptions) (ObjectInfo, error) {
	again := sha256.New()
	raw := io.TeeReader(j.read(), again)
	stream := j.w.codec.compressing(io.MultiReader(raw, io.LimitReader(zeros{}, int64(j.w.Size)-j.r.Valid)))
	defer stream.Close()
	return j.w.bucket.Upload(ctx, key, &sealGuard{Reader: stream, check: func() error {
		// What goes up must be what was hashed: a file that changed underneath would be sealed wrong for ever.
		if hex.EncodeToString(again.Sum(nil)) != j.sum {
			return fmt.Errorf("segment %s changed while it was being read", j.r.Segment.Name(j.w.Size))
		}
		return j.r.counted(nil)
	}}, options)
}

// reconcile compares with the object that exists already, and decides whether it is as good as ours, is to be
// replaced, or is somebody else's. One that is equal and does not count to the end is not as good: readers would still
// look for the rest elsewhere.
func (j *sealing) reconcile(ctx context.Context) (SegmentInfo, error) {
	valid := func(there SegmentInfo) int64 {
		return min(j.r.Valid, int64(j.r.Owners.End(there, j.w.Size)-j.r.Segment.Start(j.w.Size)))
	}
	there, theirs, err := j.w.readBack(ctx, j.r.Segment, valid)
	if errors.Is(err, ErrCorrupt) && there.Known && there.Valid == j.r.Valid && there.SHA256 == j.sum {
		// It was to hold just these bytes and does not: the upload of an earlier life went wrong.
		return j.put(ctx, true)
	}
	if err != nil {
		return there, fmt.Errorf("comparing with the segment that is there: %w", err)
	}
	ours, n := j.sum, valid(there)
	if n < j.r.Valid {
		ours, err = hashPrefix(j.r.Raw, n)
		if err = j.r.counted(err); err != nil {
			return there, fmt.Errorf("reading segment %s to compare it: %w", j.r.Segment.Name(j.w.Size), err)
		}
	}
	switch {
	case ours != theirs:
		return there, j.w.conflict(j.r, there)
	case n == j.r.Valid:
		return there, nil
	case !j.r.Replace:
		return there, fmt.Errorf("%w: %w", j.w.conflict(j.r, there), ErrReplaceable)
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

// unbroken refuses WAL that goes on after a page of zeros: such pages are what a switch leaves behind it, up to the end of
// the segment. A reader that checks pages sees that within one read; this sees to what comes in several.
type unbroken struct {
	r     io.Reader
	at    int64
	zeros bool
}

// Read implements io.Reader.
func (u *unbroken) Read(p []byte) (int, error) {
	n, err := u.r.Read(p)
	if u.zeros && !allZero(p[:n]) {
		return 0, fmt.Errorf("there is WAL after the page of zeros before byte %d", u.at)
	}
	u.at += int64(n)
	u.zeros = u.zeros || n >= wal.PageSize && u.at%wal.PageSize == 0 && allZero(p[n-wal.PageSize:n])
	return n, err
}

func allZero(p []byte) bool {
	for len(p) >= 8 && binary.NativeEndian.Uint64(p) == 0 {
		p = p[8:]
	}
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
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
