package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// task is one object whose content is to be read.
type task struct {
	size int64 // decoded, or a guess at it
	read func(ctx context.Context) (int64, error)
}

// read does all the work there is, a few objects at a time.
func (v *verifier) read(ctx context.Context, work []task) error {
	for _, t := range work {
		v.total += t.size
	}
	var done int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(v.o.Jobs)
	for _, t := range work {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			n, err := t.read(ctx)
			if err != nil {
				return err
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			done += t.size
			v.report.Objects++
			v.report.Bytes += n
			if v.o.Progress != nil {
				v.o.Progress(done, v.total)
			}
			return nil
		})
	}
	return g.Wait()
}

// judge notes damage and passes on what is none. What has gone since it was listed has expired.
func (v *verifier) judge(k Kind, object string, err error) error {
	if errors.Is(err, archive.ErrCorrupt) {
		v.note(k, object, err.Error())
		return nil
	}
	return err
}

// walTask reads a sealed segment or a chunk.
func (v *verifier) walTask(p archive.Piece) task {
	if p.Chunk != nil {
		c := *p.Chunk
		return task{size: int64(c.To - c.From), read: func(ctx context.Context) (int64, error) { return v.readChunk(ctx, c, p.To) }}
	}
	return task{size: int64(v.w.Size), read: func(ctx context.Context) (int64, error) { return v.readSegment(ctx, p.Segment, p.To) }}
}

func (v *verifier) rules(t wal.Timeline) wal.PageRules {
	return wal.PageRules{SegmentSize: v.w.Size, MaxTimeline: t, SystemIdentifier: v.sysid}
}

// readSegment reads a sealed segment, of which counts what lies before `to`.
func (v *verifier) readSegment(ctx context.Context, s wal.Segment, to wal.LSN) (int64, error) {
	name := "wal_005/" + s.Name(v.w.Size)
	r, info, err := v.w.OpenSegment(ctx, s)
	if errors.Is(err, fs.ErrNotExist) {
		v.note(WALGap, name, "it was listed and is gone: it has expired meanwhile, or somebody deletes WAL; verify again")
		return 0, nil
	}
	if err != nil {
		return 0, v.judge(SegmentDamaged, name, err)
	}
	valid := info.End(v.w.Size)
	check := pages{rules: v.rules(s.Timeline), at: s.Start(v.w.Size), valid: valid, counts: min(valid, to)}
	n, err := io.CopyBuffer(struct{ io.Writer }{&check}, struct{ io.Reader }{r}, make([]byte, 64<<10))
	if err = errors.Join(err, r.Close()); err != nil {
		return n, v.judge(SegmentDamaged, info.Key, err)
	}
	if check.wrong != nil {
		v.notef(WrongWAL, info.Key, "its content is not the WAL of this place: %v", check.wrong)
	}
	v.remember(s, info.Key, check)
	return n, nil
}

// readChunk reads a chunk, of which counts what lies before `to`.
func (v *verifier) readChunk(ctx context.Context, c archive.Chunk, to wal.LSN) (int64, error) {
	name := fmt.Sprintf("outrider/tail/%s, %s to %s of epoch %d", c.Segment.Name(v.w.Size), c.From, c.To, c.Epoch)
	raw, err := v.w.ReadChunk(ctx, c)
	if errors.Is(err, fs.ErrNotExist) {
		// Sealed since it was listed: then the segment has it. Anything else is a gap.
		return v.sealedSince(ctx, c, name)
	}
	if err != nil {
		return 0, v.judge(ChunkDamaged, name, err)
	}
	check := pages{rules: v.rules(c.Segment.Timeline), at: c.From, valid: c.To, counts: to}
	if _, err := check.Write(raw); err != nil {
		return int64(len(raw)), err
	}
	if check.wrong != nil {
		v.notef(WrongWAL, name, "its content is not the WAL of this place: %v", check.wrong)
	}
	v.remember(c.Segment, name, check)
	return int64(len(raw)), nil
}

// zeros is what was found out about the pages of zeros of one segment, over all objects that it is read from.
type zeros struct {
	object string  // that has the first such page
	first  wal.LSN // 0 if there is none
	last   wal.LSN // of the pages that are not zero
}

// remember collects what tells whether a segment has zeros before other pages.
func (v *verifier) remember(s wal.Segment, object string, c pages) {
	v.mu.Lock()
	defer v.mu.Unlock()
	z := v.zeros[s]
	if c.zero != 0 && (z.first == 0 || c.zero < z.first) {
		z.object, z.first = object, c.zero
	}
	z.last = max(z.last, c.last)
	v.zeros[s] = z
}

// checkZeros reports zeros that are followed by WAL: they are WAL that was lost. A restore refuses them as well, and a
// server would take them for the end.
func (v *verifier) checkZeros() {
	for _, z := range v.zeros {
		if z.first != 0 && z.first < z.last {
			v.notef(WrongWAL, z.object, "its content is not the WAL of this place: zeros at %s, before the page at %s", z.first, z.last)
		}
	}
}

func (v *verifier) sealedSince(ctx context.Context, c archive.Chunk, name string) (int64, error) {
	info, err := v.w.StatSegment(ctx, c.Segment)
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.End(v.w.Size) < c.To {
		v.note(WALGap, name, "it was listed and is gone, and its segment is not sealed: somebody deletes WAL")
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return v.readSegment(ctx, c.Segment, c.To)
}

// headerSize is that of the longest page header, SizeOfXLogLongPHD in src/include/access/xlog_internal.h.
const headerSize = 40

// pages checks the header of every page in a stream of WAL that begins at `at`. Behind a WAL switch whole pages are
// zero, and so is the padding of a clean stop; anything else must say that it belongs where it is.
type pages struct {
	rules  wal.PageRules
	at     wal.LSN // of the next byte
	valid  wal.LSN // where WAL ends and padding begins
	counts wal.LSN // zero and last look at no page from here on
	head   []byte  // of the page that is being passed over
	wrong  error   // the first thing that is wrong
	zero   wal.LSN // the first page of zeros, 0 if there is none
	last   wal.LSN // the last page that is not zero
}

// Write implements io.Writer. It never fails.
func (c *pages) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		into := int64(c.at) % wal.PageSize
		if into == 0 {
			c.head = c.head[:0]
		}
		// A stream that begins in the middle of a page says nothing about that page.
		if want := headerSize - len(c.head); want > 0 && int64(len(c.head)) == min(into, headerSize) {
			take := min(want, len(p))
			c.head = append(c.head, p[:take]...)
			c.pass(&p, take)
			if len(c.head) == headerSize {
				c.check()
			}
			continue
		}
		c.pass(&p, int(min(wal.PageSize-into, int64(len(p)))))
	}
	return n, nil
}

func (c *pages) pass(p *[]byte, n int) {
	*p = (*p)[n:]
	c.at += wal.LSN(n)
}

func (c *pages) check() {
	page := c.at - headerSize
	if c.wrong != nil || page+headerSize > c.valid {
		return
	}
	err := c.rules.Check(c.head, page)
	empty := errors.Is(err, wal.ErrZeroPage) && c.rules.SegmentSize.Offset(page) != 0
	switch {
	case !empty:
		c.wrong = err
	case c.zero == 0 && page+headerSize <= c.counts:
		c.zero = page
	}
	if err == nil && page+headerSize <= c.counts {
		c.last = page
	}
}
