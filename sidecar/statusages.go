package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/page"
)

// What the status page draws: a look costs no request, neither of the archive nor of the server.
const (
	agesSpan = 10 * time.Minute
	agesStep = 2 * time.Second
)

// ages remembers how old unshipped WAL was of late. The zero value is ready. It is safe for concurrent use.
type ages struct {
	mu   sync.Mutex
	seen []page.Sample // oldest first
}

func (a *ages) note(s page.Sample) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := len(a.seen); n >= int(agesSpan/agesStep) {
		a.seen = append(a.seen[:0], a.seen[n-int(agesSpan/agesStep)+1:]...)
	}
	a.seen = append(a.seen, s)
}

func (a *ages) all() []page.Sample {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen)
}

// watchAge looks until ctx ends.
func (g *guard) watchAge(ctx context.Context) error {
	tick := time.NewTicker(agesStep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.board.ages.note(page.Sample{At: time.Now(), Age: g.age()})
		}
	}
}

// age is that of the oldest commit that is not durable in the archive; nil if it is not known.
func (g *guard) age() *time.Duration {
	v := g.current()
	if v == nil || v.ended() {
		return nil
	}
	age, known := v.tail.Age(v.ship.Durable().LSN)
	if !known {
		return nil
	}
	return &age
}
