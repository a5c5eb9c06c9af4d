package main

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/postgres"
)

// A server that hangs is asked once, whoever wants to know, and nobody who gives up takes the question back.
func TestThoseWhoOnlyLookDoNotDisturb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked, cut atomic.Int64
		answer := make(chan struct{})
		p := &positions{ask: func(ctx context.Context) (postgres.Position, error) {
			asked.Add(1)
			select {
			case <-ctx.Done():
				cut.Add(1)
			case <-answer:
			}
			return postgres.Position{Flush: 7}, nil
		}}
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if _, err := p.get(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("an answer from a server that hangs: %v", err)
				}
			})
		}
		group.Wait()
		group.Go(func() {
			if at, err := p.get(t.Context()); err != nil || at.Flush != 7 {
				t.Errorf("%v %v", at, err)
			}
		})
		synctest.Wait()
		close(answer)
		group.Wait()
		if asked.Load() != 1 || cut.Load() != 0 {
			t.Errorf("asked %d times, cut short %d times", asked.Load(), cut.Load())
		}
		p.close()
		if _, err := p.get(t.Context()); !errors.Is(err, postgres.ErrConnectionLost) {
			t.Errorf("asked after the end: %v", err)
		}
	})
}
