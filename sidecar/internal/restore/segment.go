package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// segment lays one segment: its bytes up to the cut from wherever they are, zeros behind it.
func (f *filler) segment(ctx context.Context, j job) error {
	z := f.plan.SegmentSize
	name := j.segment.Name(z)
	tmp := f.spool.path(tmpPrefix + name)
	file, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = f.assemble(ctx, file, j)
	if err == nil {
		err = file.Truncate(int64(z))
	}
	if err == nil {
		err = f.checkPages(file, j)
	}
	if err == nil {
		err = file.Chmod(0o644)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.Rename(tmp, f.spool.path(name))
}

func (f *filler) assemble(ctx context.Context, file *os.File, j job) error {
	for pieces := j.pieces; len(pieces) > 0; {
		p := pieces[0]
		pieces = pieces[1:]
		err := f.piece(ctx, file, j, p)
		if errors.Is(err, fs.ErrNotExist) && p.Chunk != nil {
			// Sealed since the inventory was read, in an archive that is still written to.
			sealed, serr := sealedPiece(ctx, f.w, j.segment, j.owners)
			if serr != nil && !errors.Is(serr, fs.ErrNotExist) {
				return serr
			}
			if serr != nil || sealed.To < min(p.To, j.cut) {
				return fmt.Errorf("%w: %w", ErrHole, err)
			}
			err, pieces = f.piece(ctx, file, j, sealed), after(pieces, sealed.To)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// piece writes one piece to its place in the file.
func (f *filler) piece(ctx context.Context, file *os.File, j job, p archive.Piece) error {
	z := f.plan.SegmentSize
	to := min(p.To, j.cut)
	if p.Chunk != nil {
		raw, err := f.w.ReadChunk(ctx, *p.Chunk)
		if err != nil {
			return err
		}
		_, err = file.WriteAt(raw[p.From-p.Chunk.From:to-p.Chunk.From], z.Offset(p.From))
		return err
	}
	r, _, err := f.w.OpenSegment(ctx, j.segment)
	if err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return errors.Join(err, r.Close())
	}
	_, err = io.CopyN(file, r, int64(to-j.segment.Start(z)))
	if err == nil {
		// What lies behind the cut belongs to another branch, but only at its end the object is known to be right.
		_, err = io.Copy(io.Discard, r)
	}
	return errors.Join(tooShort(err), r.Close())
}

// checkPages looks at the header of each page. PostgreSQL takes a page that does not belong there for the end of the
// WAL, and promotes. Objects without a recorded hash, or swapped ones, would go that way.
func (f *filler) checkPages(file io.ReaderAt, j job) error {
	const head = 40 // of the first page, the largest
	z := f.plan.SegmentSize
	rules := wal.PageRules{SegmentSize: z, MaxTimeline: j.segment.Timeline, SystemIdentifier: f.plan.SystemIdentifier}
	buf := make([]byte, head)
	zero := false
	for at := j.segment.Start(z); at+head <= j.cut; at += wal.PageSize {
		if _, err := file.ReadAt(buf, z.Offset(at)); err != nil {
			return err
		}
		err := rules.Check(buf, at)
		switch {
		case errors.Is(err, wal.ErrZeroPage) && z.Offset(at) != 0:
			zero = true // and so must be the rest, as after a switch
		case err != nil || zero:
			return fmt.Errorf("%w: %w", archive.ErrCorrupt, errors.Join(err, errZeroInside(zero && err == nil, at)))
		}
	}
	return nil
}

func errZeroInside(is bool, at wal.LSN) error {
	if !is {
		return nil
	}
	return fmt.Errorf("zeros before the page at %s", at)
}
