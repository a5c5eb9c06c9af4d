package ship

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// sealer turns segments that went up in chunks into sealed ones, in order and off the path of durability, and then
// deletes their chunks.
type sealer struct {
	ship *Shipper
	wake chan struct{}

	mu     sync.Mutex
	next   wal.Segment          // the first segment that is not sealed
	done   map[wal.Segment]bool // sealed ones after next
	chunks map[wal.Segment][]archive.Chunk
	drafts map[wal.Segment]*archive.Draft // of segments in chunks, as far as there is room
	// spent holds chunks of sealed segments; they are deleted in batches, because each deletion is a request.
	spent []archive.Chunk
}

// spentBatch is how many chunks are let lie before they are deleted. They expire with their segment in any case.
const spentBatch = 200

// maxDrafts is how many segments may wait for being sealed with what their chunks have left. More are read once more.
const maxDrafts = 2

func newSealer(s *Shipper) *sealer {
	q := &sealer{
		ship: s, wake: make(chan struct{}, 1), next: s.cfg.SealFrom, done: map[wal.Segment]bool{},
		chunks: map[wal.Segment][]archive.Chunk{}, drafts: map[wal.Segment]*archive.Draft{},
	}
	if q.next == (wal.Segment{}) {
		q.next = s.cfg.Size.SegmentAt(s.cfg.Timeline, s.cfg.Durable)
	}
	for _, c := range s.cfg.Chunks {
		if c.Segment.Timeline != s.cfg.Timeline {
			continue
		}
		if c.Segment.Number < q.next.Number {
			q.spent = append(q.spent, c)
			continue
		}
		q.chunks[c.Segment] = append(q.chunks[c.Segment], c)
	}
	return q
}

// from is the start of the first segment that is not sealed.
func (q *sealer) from() wal.LSN {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.next.Start(q.ship.cfg.Size)
}

// add remembers a chunk until its segment is sealed.
func (q *sealer) add(c archive.Chunk) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks[c.Segment] = append(q.chunks[c.Segment], c)
}

// keep remembers what the chunks of a segment have left.
func (q *sealer) keep(seg wal.Segment, d *archive.Draft) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if d.Complete() && len(q.drafts) < maxDrafts {
		q.drafts[seg] = d
	}
}

// skip notes that seg is sealed: its chunks are spent.
func (q *sealer) skip(seg wal.Segment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.done[seg] = true
	for q.done[q.next] {
		delete(q.done, q.next)
		q.next = q.next.Next()
	}
	q.spent = append(q.spent, q.chunks[seg]...)
	delete(q.chunks, seg)
	delete(q.drafts, seg)
}

func (q *sealer) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *sealer) run(ctx context.Context) error {
	for {
		if err := q.work(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-q.wake:
		}
	}
}

// work seals all complete segments and deletes what is spent.
func (q *sealer) work(ctx context.Context) error {
	for {
		q.mu.Lock()
		seg, draft := q.next, q.drafts[q.next]
		q.mu.Unlock()
		if seg.End(q.ship.cfg.Size) > q.ship.durable.get() {
			break
		}
		err := q.ship.sealOne(ctx, seg, int64(q.ship.cfg.Size), draft)
		if errors.Is(err, ErrGap) {
			// Its bytes are durable as chunks, so nothing is lost; only stock tools will miss the segment.
			q.ship.cfg.Log.Warn("a segment cannot be sealed any more, its chunks stay", "segment", seg.Name(q.ship.cfg.Size), "error", err)
			q.mu.Lock()
			delete(q.chunks, seg)
			q.mu.Unlock()
		} else if err != nil {
			return err
		}
		q.skip(seg)
	}
	return q.sweep(ctx, spentBatch)
}

// sweep deletes the chunks of sealed segments once there are at least atLeast of them.
func (q *sealer) sweep(ctx context.Context, atLeast int) error {
	q.mu.Lock()
	spent := q.spent
	if len(spent) < atLeast || len(spent) == 0 {
		q.mu.Unlock()
		return nil
	}
	q.spent = nil
	q.mu.Unlock()
	if err := q.ship.cfg.Store.RemoveChunks(ctx, spent); err != nil {
		q.ship.cfg.Log.Warn("chunks of sealed segments stay for now", "chunks", len(spent), "error", err)
		q.mu.Lock()
		q.spent = append(q.spent, spent...)
		q.mu.Unlock()
	}
	return nil
}

// Sweep deletes the chunks of sealed segments that were let lie. It is called at a quiet moment and at a stop.
func (s *Shipper) Sweep(ctx context.Context) error { return s.seal.sweep(ctx, 1) }

// sealOne stores seg with its first valid bytes, until it is stored or cannot be. A draft spares reading them.
func (s *Shipper) sealOne(ctx context.Context, seg wal.Segment, valid int64, d *archive.Draft) error {
	f, err := s.open(seg)
	if err != nil {
		return err
	}
	defer f.Close()
	r := archive.SealRequest{Segment: seg, Epoch: s.cfg.Epoch, Raw: f, Valid: valid, Draft: d, Owners: s.cfg.Owners}
	r.Counts = func() error { return s.named(f, seg) }
	started, stored := time.Now(), int64(0)
	err = s.retry(ctx, "sealing a segment", func(ctx context.Context) error {
		r.Replace = false // an answer of before an outage says nothing about now
		info, err := s.cfg.Store.Seal(ctx, r)
		if errors.Is(err, archive.ErrReplaceable) {
			// Our predecessor on this timeline stopped cleanly here, or went on without knowing of us. Replacing its object
			// is ours alone to do.
			if oerr := s.cfg.Owner(ctx); oerr != nil {
				return oerr
			}
			r.Replace = true
			info, err = s.cfg.Store.Seal(ctx, r)
		}
		stored = info.Stored
		return err
	})
	if err == nil {
		s.cfg.Metrics.observe(kindSegment, valid, stored, time.Since(started))
	}
	return err
}

func (s *Shipper) open(seg wal.Segment) (Segment, error) {
	f, err := s.cfg.Open(seg)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("opening segment %s: %w: %w", seg.Name(s.cfg.Size), ErrGap, err)
	}
	return f, err
}

// named tells whether what was read of a file is the segment: a file that was recycled meanwhile is another one. Where
// that cannot be told, it is no gap.
func (s *Shipper) named(f Segment, seg wal.Segment) error {
	err := f.StillNamed()
	switch {
	case errors.Is(err, wal.ErrRecycled):
		return fmt.Errorf("reading segment %s: %w: %w", seg.Name(s.cfg.Size), ErrGap, err)
	case err != nil:
		return fmt.Errorf("reading segment %s: %w", seg.Name(s.cfg.Size), err)
	}
	return nil
}
