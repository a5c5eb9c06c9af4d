// Package tail says how far a server has flushed its WAL, soon after it did and without asking all the time.
//
// A change in pg_wal is only a hint that there may be news: WAL is written before it is flushed, and only what is
// flushed is final. A timer is the floor under the hints, and the server is asked for the truth.
package tail

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// ErrBehind says that the server's flush position is before one that was known to be flushed on the same timeline.
// Bytes that were final would be written once more, so nothing that was taken from this server can be continued.
var ErrBehind = errors.New("the server's WAL ends before a position that was already flushed")

// Tailer follows one server. Next is for one goroutine at a time, Age is safe at any time.
type Tailer struct {
	cfg     Config
	notify  notifier
	metrics *metrics

	known    wal.Position // the server's last answer
	answered wal.Position // what Next returned last
	filling  fileState    // the file that tells when a whole segment has been filled since

	mu      sync.Mutex // guards what Age reads as well
	clock   clock
	seen    view // pg_wal as it was before the server was asked last
	history history
}

// New makes a Tailer and begins to watch cfg.Dir. Where the system cannot watch it, a warning is logged and the files
// are looked at once each Interval instead. Close it.
func New(cfg Config) (*Tailer, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	n, err := watch(cfg.Dir)
	if err != nil {
		cfg.Log.Warn("cannot watch pg_wal, looking at its files instead", "dir", cfg.Dir, "interval", cfg.Interval, "error", err)
	}
	return newTailer(cfg, n), nil
}

func newTailer(cfg Config, n notifier) *Tailer {
	t := &Tailer{cfg: cfg, notify: n, metrics: newMetrics(cfg.Registerer), clock: newClock(cfg.Interval, cfg.Floor)}
	t.metrics.watching(n.events != nil)
	return t
}

// Close ends the watching. Next must have returned.
func (t *Tailer) Close() error {
	if t.notify.close == nil {
		return nil
	}
	if err := t.notify.close(); err != nil {
		return fmt.Errorf("ending to watch %s: %w", t.cfg.Dir, err)
	}
	return nil
}

// Next blocks until the server has flushed WAL beyond after, or is on another timeline, and returns its flush
// position. After a quiet time that is as soon as the server has flushed; otherwise answers are Interval apart, or what
// Pace says, unless a whole segment has been filled since the last one.
//
// An error of the server is returned as it is; the next call asks again, Interval after the one that failed.
// ErrBehind is returned if the server's position is before after or one that it has given before.
//
// While nothing is written the server is asked once each Floor, and the files are looked at once each Interval.
// After a write it is asked up to seven times until the flush shows, then each Interval for four Intervals, then in
// doubling distances until Floor is reached: about a dozen questions at the default settings.
func (t *Tailer) Next(ctx context.Context, after wal.Position) (wal.Position, error) {
	for {
		if err := t.await(ctx, after); err != nil {
			return wal.Position{}, fmt.Errorf("waiting for WAL beyond %s: %w", after, err)
		}
		pos, err := t.ask(ctx, after)
		if err != nil {
			return wal.Position{}, fmt.Errorf("asking for the flush position: %w", err)
		}
		t.known = pos
		switch {
		case !beyond(pos, after):
			t.fruitless()
		case t.mayAnswer(pos):
			t.answer(pos)
			return pos, nil
		}
	}
}

func beyond(p, after wal.Position) bool { return p.Timeline != after.Timeline || p.LSN > after.LSN }

func (t *Tailer) fruitless() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock.fruitless()
}

func (t *Tailer) answer(pos wal.Position) {
	t.answered = pos
	t.filling = t.stat(t.segment(t.full()))
	var pace time.Duration
	if t.cfg.Pace != nil {
		pace = t.cfg.Pace()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clock.answer(time.Now(), pace)
}

// full is where a whole segment has been filled since the last answer.
func (t *Tailer) full() wal.Position {
	p := t.answered
	p.LSN = t.cfg.Size.Ceil(p.LSN) + wal.LSN(t.cfg.Size)
	return p
}

func (t *Tailer) mayAnswer(pos wal.Position) bool {
	full := t.full()
	return !t.clock.pacing(time.Now()) || pos.Timeline != full.Timeline || pos.LSN >= full.LSN
}
