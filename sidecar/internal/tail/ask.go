package tail

import (
	"context"
	"fmt"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// ask asks the server, and notes what pg_wal looked like before: what changes from then on is news.
func (t *Tailer) ask(ctx context.Context, after wal.Position) (wal.Position, error) {
	before := t.look(t.segment(t.known))
	t.mu.Lock()
	started := time.Now()
	if before != t.seen {
		t.clock.hint(started)
	}
	t.seen = before
	t.clock.ask(started)
	t.mu.Unlock()

	t.metrics.queries.Inc()
	pos, err := t.cfg.Server.Flushed(ctx)
	if err == nil {
		err = t.check(pos, after)
	}
	if err == nil && t.segment(pos) != before.segment {
		before = t.look(t.segment(pos))
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.clock.fail()
		return pos, err
	}
	t.seen = before
	t.history.add(started, pos.LSN)
	t.metrics.flushed.WithLabelValues().Set(float64(pos.LSN))
	return pos, nil
}

func (t *Tailer) check(pos, after wal.Position) error {
	if pos.Timeline == 0 || pos.LSN == 0 {
		return fmt.Errorf("the server gave %s, which is no position", pos)
	}
	for _, p := range []wal.Position{after, t.known} {
		if pos.Timeline == p.Timeline && pos.LSN < p.LSN {
			return fmt.Errorf("%w: it is at %s, expected %s or later: its disk may have been replaced by an older copy, "+
				"or fsync is off", ErrBehind, pos, p)
		}
	}
	return nil
}
