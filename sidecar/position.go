package main

import (
	"context"
	"sync"

	"outrider.dev/sidecar/internal/postgres"
)

// positions asks the server where its WAL is, for those who only want to look: scrapes and people. One question serves
// all who wait for it, and whoever gives up waiting does not cut it short: that could cost the session that ships.
type positions struct {
	ask func(context.Context) (postgres.Position, error)

	mu      sync.Mutex
	asked   *question // under way
	closed  bool
	waiting sync.WaitGroup
}

type question struct {
	done chan struct{}
	at   postgres.Position
	err  error
}

// get waits for an answer until ctx ends.
func (p *positions) get(ctx context.Context) (postgres.Position, error) {
	q, err := p.join()
	if err != nil {
		return postgres.Position{}, err
	}
	select {
	case <-q.done:
		return q.at, q.err
	case <-ctx.Done():
		return postgres.Position{}, context.Cause(ctx)
	}
}

func (p *positions) join() (*question, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, postgres.ErrConnectionLost
	}
	if p.asked == nil {
		q := &question{done: make(chan struct{})}
		p.asked = q
		p.waiting.Go(func() {
			q.at, q.err = p.ask(context.Background()) // bounded by the session's own timeout, and by its end
			p.mu.Lock()
			p.asked = nil
			p.mu.Unlock()
			close(q.done)
		})
	}
	return p.asked, nil
}

// close waits for the question that is under way; there are no more after it. The session is to be closed before.
func (p *positions) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.waiting.Wait()
}
