package ship

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// Waiting times between tries while the store is away. The store's adapter has retried for a while by itself before
// it reports an error, so these are about outages.
const (
	firstWait = 200 * time.Millisecond
	maxWait   = 10 * time.Second
	sayAgain  = 30 * time.Second
)

// retry repeats do until it succeeds, ctx ends, or the error is one that time does not heal.
func (s *Shipper) retry(ctx context.Context, doing string, do func(context.Context) error) error {
	wait := firstWait
	var said time.Time
	for tries := 1; ; tries++ {
		err := do(ctx)
		switch {
		case err == nil:
			if tries > 1 {
				s.waited.Store(true)
				s.cfg.Log.Info("the archive accepts WAL again", "doing", doing, "tries", tries)
			}
			s.note(nil)
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, archive.ErrConflict), errors.Is(err, ErrGap), errors.Is(err, ErrNotOwner):
			return err
		}
		s.note(err)
		s.cfg.Metrics.retries.Inc()
		if time.Since(said) >= sayAgain {
			said = time.Now()
			s.cfg.Log.Warn("the archive does not accept WAL, Postgres keeps it meanwhile", "doing", doing, "tries", tries, "error", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(wait*2, maxWait)
	}
}

func (s *Shipper) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.trouble == nil {
		s.since = time.Now()
	}
	s.trouble = err
}
