package tail

import (
	"context"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// fillShare is into how many parts an interval is cut to see whether a whole segment has been filled.
const fillShare = 5

// await returns when the server is to be asked. It listens to events only while nothing happens: under load there is
// one for each write, the kernel merges those that nobody takes, and this process sleeps. Nobody else changes the
// clock, so it is read unlocked.
func (t *Tailer) await(ctx context.Context, after wal.Position) error {
	switch now := time.Now(); {
	case !t.clock.asked:
		return ctx.Err()
	case t.clock.failed:
		return sleep(ctx, t.clock.askedAt.Add(t.cfg.Interval))
	case t.clock.pacing(now):
		return t.awaitFull(ctx)
	case beyond(t.known, after):
		return ctx.Err()
	case t.clock.wait < t.cfg.Interval:
		return sleep(ctx, t.clock.due())
	}
	hinted, err := t.listen(ctx)
	if !hinted || err != nil {
		return err
	}
	t.mu.Lock()
	now := time.Now()
	t.clock.hint(now)
	t.clock.wait = t.clock.settle()
	t.mu.Unlock()
	return sleep(ctx, now.Add(t.clock.wait))
}

// awaitFull sleeps until the pace allows an answer, or until a segment after the one being filled at the last answer is
// over. The file after that one tells: it is not written to before. A pace that has become faster meanwhile, because the
// end is near, holds at once.
func (t *Tailer) awaitFull(ctx context.Context) error {
	for {
		t.quicken()
		step, until := time.Now().Add(t.cfg.Interval/fillShare), t.clock.next()
		if !step.Before(until) {
			return sleep(ctx, until)
		}
		if err := sleep(ctx, step); err != nil {
			return err
		}
		if now := t.stat(t.segment(t.full())); now != t.filling {
			t.filling = now
			return nil
		}
	}
}

// quicken asks for the pace once more.
func (t *Tailer) quicken() {
	if t.cfg.Pace == nil {
		return
	}
	pace := t.cfg.Pace()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock.quicken(pace)
}

// listen waits for a sign of a write (true) or until the server is to be asked anyway.
func (t *Tailer) listen(ctx context.Context) (hinted bool, err error) {
	// What piled up may be older than the last question. The files tell.
	t.drain()
	if t.changed() {
		return true, nil
	}
	tick := time.NewTicker(t.cfg.Interval)
	defer tick.Stop()
	due := time.NewTimer(time.Until(t.clock.due()))
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-due.C:
			return false, nil
		case e, ok := <-t.notify.events:
			if t.heard(e, ok) {
				t.metrics.hints.WithLabelValues("event").Inc()
				return true, nil
			}
		case err, ok := <-t.notify.errors:
			t.trouble(err, ok)
			return true, nil
		case <-tick.C:
			// Not every file system tells about writes; a look costs next to nothing.
			if t.changed() {
				return true, nil
			}
		}
	}
}

// changed looks at the files. As long as they stay the same after a quiet time, there is nothing that the server could
// have flushed meanwhile.
func (t *Tailer) changed() bool {
	now := time.Now()
	if t.look(t.seen.segment) != t.seen {
		t.metrics.hints.WithLabelValues("look").Inc()
		return true
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clock.quiet {
		t.history.extend(now)
	}
	return false
}

func sleep(ctx context.Context, until time.Time) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
