// Package ship moves the WAL that was flushed into the archive and knows up to where it is durable there.
//
// A Shipper works on one timeline. What is flushed goes up at once: as chunks where a segment is still growing, as a
// sealed segment where a whole one is new. A segment that went up in chunks is sealed in the background, so that
// sealing never delays durability. The durable position only ever moves over a contiguous prefix that the store has
// acknowledged.
package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// ErrGap says that WAL which is not in the archive yet is no longer there locally. Shipping cannot go on from here:
// a new snapshot is needed.
var ErrGap = errors.New("WAL that was never shipped is gone from pg_wal")

// ErrNotOwner is what Config.Owner wraps when another writer has taken over.
var ErrNotOwner = errors.New("another writer owns this archive now")

// ErrStale says that the server's data is older than the archive, or of a branch that was left: shipping it would
// mix two histories.
var ErrStale = errors.New("this disk is older than its archive")

// Source tells up to where WAL is final. Next blocks until that is beyond after, or on another timeline.
type Source interface {
	Next(ctx context.Context, after wal.Position) (wal.Position, error)
}

// Segment is one local WAL file, opened for reading. StillNamed tells, after reading, whether the file was recycled
// meanwhile: wal.ErrRecycled; any other error says that it could not be told.
type Segment interface {
	io.ReaderAt
	StillNamed() error
	Close() error
}

// Store is the part of the archive that is written to.
type Store interface {
	AddChunk(ctx context.Context, d *archive.Draft, c archive.Chunk, raw []byte) (stored int, err error)
	Seal(ctx context.Context, r archive.SealRequest) (archive.SegmentInfo, error)
	RemoveChunks(ctx context.Context, chunks []archive.Chunk) error
}

// Config is what a Shipper needs. Size, Epoch, Timeline, Durable, Store and Open are required.
type Config struct {
	Size     wal.SegmentSize
	Epoch    uint64
	Timeline wal.Timeline
	// Durable is where the archive ends: the first position of the timeline that is not in it.
	Durable wal.LSN
	// SameFrom is from where up to Durable the local WAL was found to be what the archive holds; 0 if nothing was.
	SameFrom wal.LSN
	// SealFrom is the first segment that is not sealed yet, at or before Durable's.
	SealFrom wal.Segment
	// Chunks are those that lie in the archive for segments not yet sealed; they go when their segment is sealed. Those
	// of a segment before SealFrom go at once: it has to be sealed whole.
	Chunks []archive.Chunk
	// Owners of the timeline, Epoch among them, tell what of sealed segments is a superseded writer's and does not count.
	Owners archive.Owners
	Store  Store
	Open   func(wal.Segment) (Segment, error)
	// Owner is asked before anything in place is replaced: an error says that the epoch is not ours (any more).
	Owner func(context.Context) error
	Log   *slog.Logger
	// Metrics outlives a Shipper: one set serves all timelines.
	Metrics *Metrics
}

// Shipper ships one timeline. Run may be called again after it returned; it is not to be called twice at once. All
// other methods are safe for concurrent use.
type Shipper struct {
	cfg     Config
	durable *watermark
	seal    *sealer
	buf     []byte
	draft   *archive.Draft // of the segment that chunks are made of; nil if they did not begin with it
	trail   trail
	waited  atomic.Bool // for the store, since the last look at the files

	mu      sync.Mutex
	trouble error
	since   time.Time
}

// maxChunk bounds the raw bytes of one chunk, and so the memory of a Shipper, whatever the segment size.
const maxChunk = 4 << 20

// New makes a Shipper.
func New(cfg Config) *Shipper {
	if cfg.Metrics == nil {
		cfg.Metrics = NewMetrics(nil)
	}
	s := &Shipper{cfg: cfg, durable: newWatermark(cfg.Durable)}
	s.seal = newSealer(s)
	if cfg.SameFrom != 0 {
		s.remember(cfg.SameFrom, cfg.Durable)
	}
	s.cfg.Metrics.durable.WithLabelValues().Set(float64(cfg.Durable))
	return s
}

// Durable is the end of the contiguous prefix of the timeline that the store has acknowledged.
func (s *Shipper) Durable() wal.Position {
	return wal.Position{Timeline: s.cfg.Timeline, LSN: s.durable.get()}
}

// Keep is the oldest local WAL that is still needed: a slot may be moved up to here, and no further.
func (s *Shipper) Keep() wal.LSN { return min(s.durable.get(), s.seal.from()) }

// WaitDurable blocks until everything before p is durable. A position on another timeline is an error.
func (s *Shipper) WaitDurable(ctx context.Context, p wal.Position) error {
	if p.Timeline != s.cfg.Timeline {
		return fmt.Errorf("waiting for %s while timeline %d is being shipped", p, s.cfg.Timeline)
	}
	if err := s.durable.wait(ctx, p.LSN); err != nil {
		at := s.durable.get()
		if _, t := s.Trouble(); t != nil {
			return fmt.Errorf("waiting until %s is durable, it is up to %s: %w (last trouble: %w)", p.LSN, at, err, t)
		}
		return fmt.Errorf("waiting until %s is durable, it is up to %s: %w", p.LSN, at, err)
	}
	return nil
}

// Trouble is what keeps the archive from accepting WAL right now, and since when; nil if nothing does.
func (s *Shipper) Trouble() (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since, s.trouble
}

// Run ships what src says until ctx ends or something happens that retrying cannot heal: src's own error, ErrGap,
// archive.ErrConflict, an error of Owner, or a position on another timeline (which is returned as nil: the timeline is
// over). The store's being away is retried for ever.
func (s *Shipper) Run(ctx context.Context, src Source) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	sealed := make(chan struct{})
	go func() {
		defer close(sealed)
		if err := s.seal.run(ctx); err != nil && ctx.Err() == nil {
			cancel(err)
		}
	}()
	err := s.follow(ctx, src)
	if cause := context.Cause(ctx); cause != nil && errors.Is(err, context.Canceled) {
		err = cause
	}
	cancel(nil)
	<-sealed
	return err
}

func (s *Shipper) follow(ctx context.Context, src Source) error {
	for {
		to, err := src.Next(ctx, s.Durable())
		if err != nil {
			return err
		}
		if to.Timeline != s.cfg.Timeline {
			return nil
		}
		if err := s.ShipTo(ctx, to.LSN); err != nil {
			return err
		}
	}
}

// ShipTo makes everything before to durable. It is what Run does with each position, and what a stop calls once
// more when the server is gone; not to be called while Run runs.
func (s *Shipper) ShipTo(ctx context.Context, to wal.LSN) error {
	for at := s.durable.get(); at < to; at = s.durable.get() {
		if s.waited.Swap(false) {
			// While the store was away, the directory may have been replaced.
			if err := s.Compare(); err != nil {
				return err
			}
		}
		seg := s.cfg.Size.SegmentAt(s.cfg.Timeline, at)
		if at == seg.Start(s.cfg.Size) && seg.End(s.cfg.Size) <= to && s.cfg.Size <= maxWhole {
			if err := s.whole(ctx, seg, to); err != nil {
				return err
			}
			continue
		}
		if err := s.chunk(ctx, seg, at, min(to, seg.End(s.cfg.Size), at+maxChunk)); err != nil {
			return err
		}
	}
	return nil
}

// maxWhole is the largest segment that goes up whole without chunks; larger ones would make commits wait too long.
const maxWhole = 64 << 20

// chunk makes [from, to) of seg durable as one chunk.
func (s *Shipper) chunk(ctx context.Context, seg wal.Segment, from, to wal.LSN) error {
	started := time.Now()
	raw, err := s.read(seg, from, to)
	if err != nil {
		return err
	}
	c := archive.Chunk{Segment: seg, Epoch: s.cfg.Epoch, From: from, To: to}
	if from == seg.Start(s.cfg.Size) {
		s.draft = archive.NewDraft(seg, s.cfg.Size)
	}
	stored := 0
	err = s.retry(ctx, "shipping a chunk", func(ctx context.Context) (err error) {
		stored, err = s.cfg.Store.AddChunk(ctx, s.draft, c, raw)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Metrics.observe(kindChunk, int64(len(raw)), int64(stored), time.Since(started))
	s.seal.add(c)
	s.trail.add(from, raw)
	if to < seg.End(s.cfg.Size) {
		s.publish(to)
		return nil
	}
	s.seal.keep(seg, s.draft)
	s.draft = nil
	// The sealer is woken last: it seals what is durable. It has to know all chunks by then, and may be awake anyway.
	s.publish(to)
	s.seal.poke()
	return nil
}

// whole seals seg and the whole segments after it that lie before to, two at a time, publishing in order.
func (s *Shipper) whole(ctx context.Context, seg wal.Segment, to wal.LSN) error {
	first := s.sealAsync(ctx, seg)
	for {
		next := seg.Next()
		var second <-chan error
		if next.End(s.cfg.Size) <= to && !s.waited.Load() {
			second = s.sealAsync(ctx, next)
		}
		if err := <-first; err != nil {
			if second != nil {
				err = errors.Join(err, <-second)
			}
			return err
		}
		s.seal.skip(seg)
		s.remember(seg.Start(s.cfg.Size), seg.End(s.cfg.Size))
		s.publish(seg.End(s.cfg.Size))
		if second == nil {
			return nil
		}
		seg, first = next, second
	}
}

func (s *Shipper) sealAsync(ctx context.Context, seg wal.Segment) <-chan error {
	done := make(chan error, 1)
	go func() { done <- s.sealOne(ctx, seg, int64(s.cfg.Size), nil) }()
	return done
}

// SealRest seals what went up in chunks: all complete segments and, after a clean stop, the one that holds the durable
// end, zero-padded, so that stock tools lose nothing. The chunks of that one stay: they are what a successor on this
// timeline continues. Not to be called while Run runs.
func (s *Shipper) SealRest(ctx context.Context, clean bool) error {
	if err := s.seal.work(ctx); err != nil {
		return err
	}
	at := s.durable.get()
	valid := s.cfg.Size.Offset(at)
	if valid == 0 || !clean {
		return nil
	}
	return s.sealOne(ctx, s.cfg.Size.SegmentAt(s.cfg.Timeline, at), valid, nil)
}

func (s *Shipper) publish(to wal.LSN) {
	s.durable.set(to)
	s.cfg.Metrics.durable.WithLabelValues().Set(float64(to))
	s.cfg.Metrics.lastSuccess.WithLabelValues().SetToCurrentTime()
}

// read returns the bytes [from, to) of seg, valid until the next call.
func (s *Shipper) read(seg wal.Segment, from, to wal.LSN) ([]byte, error) {
	f, err := s.open(seg)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n := int(to - from)
	if cap(s.buf) < n {
		s.buf = make([]byte, max(n, 256<<10))
	}
	raw := s.buf[:n]
	_, err = f.ReadAt(raw, s.cfg.Size.Offset(from))
	if gone := s.named(f, seg); gone != nil {
		return nil, errors.Join(gone, err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s-%s of segment %s: %w", from, to, seg.Name(s.cfg.Size), err)
	}
	return raw, nil
}
