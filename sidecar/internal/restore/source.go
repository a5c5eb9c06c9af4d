package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// source reads the WAL of a branch from the archive. It implements wal.Source and is made for reading forwards. WAL
// that is missing before end is ErrHole, never an end. It is for one goroutine; close it.
type source struct {
	ctx  context.Context //nolint:containedctx // wal.Source has none, and a source lives as long as one call
	w    *archive.WAL
	inv  *archive.Inventory
	legs []archive.Leg
	end  wal.LSN

	segment wal.Segment
	pieces  []archive.Piece
	stream  io.ReadCloser // of the sealed segment
	pos     wal.LSN       // of the stream
	chunk   *archive.Chunk
	raw     []byte // of the chunk
}

// ReadWAL implements wal.Source.
func (s *source) ReadWAL(p []byte, at wal.LSN) (int, error) {
	done := 0
	for done < len(p) {
		n, err := s.read(p[done:], at+wal.LSN(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (s *source) read(p []byte, at wal.LSN) (int, error) {
	if at >= s.end {
		return 0, fmt.Errorf("reading WAL at %s: %w", at, io.EOF)
	}
	z := s.inv.Size
	seg := z.SegmentAt(timelineOf(s.legs, z.Floor(at), z), at)
	if seg != s.segment || s.pieces == nil {
		if err := s.enter(seg); err != nil {
			return 0, err
		}
	}
	p = p[:min(uint64(len(p)), uint64(s.end-at))]
	for _, piece := range s.pieces {
		if piece.From <= at && at < piece.To {
			p = p[:min(uint64(len(p)), uint64(piece.To-at))]
			n, err := s.readPiece(p, piece, at)
			if errors.Is(err, fs.ErrNotExist) {
				n, err = s.sealedMeanwhile(p, at, err)
			}
			return n, noEnd(err)
		}
	}
	return 0, fmt.Errorf("%w: timeline %d at %s", ErrHole, seg.Timeline, at)
}

func (s *source) enter(seg wal.Segment) error {
	if err := s.Close(); err != nil {
		return fmt.Errorf("reading segment %s: %w", s.segment.Name(s.inv.Size), err)
	}
	s.segment, s.chunk = seg, nil
	s.pieces = s.inv.Follow(seg.Timeline, seg.Start(s.inv.Size), seg.End(s.inv.Size))
	return nil
}

// noEnd keeps the error of a transfer that broke off, and of an object that is gone, from looking like the end of the
// WAL.
func noEnd(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist) {
		return opaque{err.Error()}
	}
	return err
}

type opaque struct{ text string }

func (o opaque) Error() string { return o.text }

// sealedMeanwhile reads from the sealed segment when a chunk is gone that was there before.
func (s *source) sealedMeanwhile(p []byte, at wal.LSN, missing error) (int, error) {
	piece, err := sealedPiece(s.ctx, s.w, s.segment, s.inv.Owners(s.segment.Timeline))
	if err == nil && piece.From <= at && at < piece.To {
		s.pieces = append([]archive.Piece{piece}, after(s.pieces, piece.To)...)
		n, err := s.readPiece(p[:min(uint64(len(p)), uint64(piece.To-at))], piece, at)
		if !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	return 0, fmt.Errorf("%w: %w", ErrHole, opaque{missing.Error()})
}

// sealedPiece asks whether a segment whose chunk is gone was sealed, and how far that counts; fs.ErrNotExist if it was
// not.
func sealedPiece(ctx context.Context, w *archive.WAL, seg wal.Segment, owners archive.Owners) (archive.Piece, error) {
	info, err := w.StatSegment(ctx, seg)
	if err != nil {
		return archive.Piece{}, err
	}
	return archive.Piece{Segment: seg, From: seg.Start(w.Size), To: owners.End(info, w.Size)}, nil
}

// after is what of the pieces lies past a position.
func after(pieces []archive.Piece, at wal.LSN) []archive.Piece {
	var rest []archive.Piece
	for _, p := range pieces {
		if p.To > at {
			p.From = max(p.From, at)
			rest = append(rest, p)
		}
	}
	return rest
}

func (s *source) readPiece(p []byte, piece archive.Piece, at wal.LSN) (int, error) {
	if piece.Chunk != nil {
		if s.chunk == nil || *s.chunk != *piece.Chunk {
			raw, err := s.w.ReadChunk(s.ctx, *piece.Chunk)
			if err != nil {
				return 0, err
			}
			s.chunk, s.raw = piece.Chunk, raw
		}
		return copy(p, s.raw[at-s.chunk.From:]), nil
	}
	if s.stream == nil || s.pos > at {
		if err := s.Close(); err != nil {
			return 0, err
		}
		r, _, err := s.w.OpenSegment(s.ctx, piece.Segment)
		if err != nil {
			return 0, err
		}
		s.stream, s.pos = r, piece.Segment.Start(s.inv.Size)
	}
	skipped, err := io.CopyN(io.Discard, s.stream, int64(at-s.pos))
	s.pos += wal.LSN(skipped)
	if err != nil {
		return 0, fmt.Errorf("reading segment %s: %w", piece.Segment.Name(s.inv.Size), tooShort(err))
	}
	n, err := io.ReadFull(s.stream, p)
	s.pos += wal.LSN(n)
	if err != nil {
		return n, fmt.Errorf("reading segment %s: %w", piece.Segment.Name(s.inv.Size), tooShort(err))
	}
	return n, nil
}

// tooShort says of an object that was read to its end and has too little in it that it is damaged. Errors of the
// transfer are wrapped, those of io.ReadFull and io.CopyN are not.
func tooShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF { //nolint:errorlint // as above
		return fmt.Errorf("%w: it ends early", archive.ErrCorrupt)
	}
	return err
}

// Close lets go of the object that is being read. The source may be used again.
func (s *source) Close() error {
	if s.stream == nil {
		return nil
	}
	err := s.stream.Close()
	s.stream = nil
	return err
}
