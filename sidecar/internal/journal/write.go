package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

const (
	// attemptTimeout bounds one attempt: a call that hangs is made again.
	attemptTimeout = 30 * time.Second
	logEvery       = time.Minute
)

// Run stores entries in the order in which they were noted, each until it is stored, until ctx ends, which is no
// error.
func (j *Journal) Run(ctx context.Context) error {
	pause := newBackoff(time.Second, 30*time.Second)
	var logged time.Time
	for failures := 0; ctx.Err() == nil; {
		_, changed := j.waiting(0)
		more, err := j.writeNext(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			failures++
			if time.Since(logged) >= logEvery {
				j.log.Warn("the journal cannot be stored, its entries wait", "error", err, "failures", failures)
				logged = time.Now()
			}
			pause.wait(ctx)
		case err == nil && more:
			if failures > 0 {
				j.log.Info("the journal is being stored again", "failures", failures)
			}
			failures = 0
			pause.reset()
		case err == nil:
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// writeNext stores the oldest entry. It is false when there is none that could be stored now.
func (j *Journal) writeNext(ctx context.Context) (bool, error) {
	select {
	case j.writing <- struct{}{}:
		defer func() { <-j.writing }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	e, ok := j.take()
	if !ok {
		return false, nil
	}
	err := j.record(ctx, e)
	j.mu.Lock()
	defer j.mu.Unlock()
	// Nobody else takes from the queue, and what was attempted is not dropped: the first one still is e.
	switch {
	case err == nil:
		j.queue = j.queue[1:]
		j.wake()
	case errors.Is(err, fs.ErrExist), errors.Is(err, archive.ErrConflict):
		// The place in time is taken, by an earlier run whose clock was ahead.
		j.queue[0].Time = e.Time.Add(time.Microsecond)
	default:
		return true, err
	}
	return true, nil
}

func (j *Journal) take() (archive.Entry, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 || j.queue[0].Epoch == 0 {
		return archive.Entry{}, false
	}
	j.queue[0].attempted = true
	return j.queue[0].Entry, true
}

func (j *Journal) record(ctx context.Context, e archive.Entry) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	if err := j.store.Record(ctx, e); err != nil {
		return fmt.Errorf("recording %s: %w", e.Event, err)
	}
	return nil
}

// backoff doubles the pauses between attempts, give or take a quarter.
type backoff struct{ first, most, next time.Duration }

func newBackoff(first, most time.Duration) *backoff { return &backoff{first, most, first} }

func (b *backoff) reset() { b.next = b.first }

func (b *backoff) wait(ctx context.Context) {
	timer := time.NewTimer(b.next*3/4 + rand.N(b.next/2))
	defer timer.Stop()
	b.next = min(2*b.next, b.most)
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
