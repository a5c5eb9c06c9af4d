package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/tail"
	"outrider.dev/sidecar/internal/wal"
)

// What ends a voyage without being a fault.
var (
	errStopping = errors.New("the sidecar was told to go")
	errBack     = errors.New("the server is back")
)

// source says up to where WAL is final: as long as the server answers it is asked, and once it is gone or going the
// files are read, so that the age of unshipped WAL stays small while Postgres shuts down.
type source struct {
	soft    context.Context //nolint:containedctx // the signal, which must not end uploads under the other context
	tail    *tail.Tailer
	conn    *postgres.Conn
	files   branch
	same    func() error // whether the files are still those that were shipped
	log     *slog.Logger
	offline bool
}

// offlineInterval is how often the files are looked at while the server does not answer.
const offlineInterval = 100 * time.Millisecond

// Next implements ship.Source.
func (s *source) Next(ctx context.Context, after wal.Position) (wal.Position, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.soft, func() { cancel(errStopping) })()
	if s.soft.Err() != nil {
		return wal.Position{}, errStopping
	}
	if !s.offline {
		at, err := s.tail.Next(ctx, after)
		if err == nil {
			return at, nil
		}
		if s.soft.Err() != nil {
			return at, errStopping
		}
		if !s.gone(err) {
			return at, err
		}
		s.log.Info("the server ended our session, its files are followed instead", "error", err)
		s.offline = true
	}
	return s.followFiles(ctx, after)
}

func (s *source) gone(err error) bool {
	return postgres.IsConnectionLost(err) || postgres.IsShuttingDown(err) || !s.conn.Alive()
}

// followFiles waits for complete valid records past after. It ends when the server accepts sessions again.
func (s *source) followFiles(ctx context.Context, after wal.Position) (wal.Position, error) {
	var looked time.Time
	for {
		if s.back(ctx) {
			return after, errBack
		}
		// File times are coarse: what was written right after the last look may bear an earlier time.
		if s.files.changedSince(after.LSN, looked.Add(-time.Second)) {
			looked = time.Now()
			end, err := s.files.ValidEnd(after)
			if err != nil && s.soft.Err() == nil && ctx.Err() == nil {
				return after, err
			}
			if err == nil && end > after.LSN {
				if err := s.same(); err != nil {
					return after, err
				}
				return wal.Position{Timeline: after.Timeline, LSN: end}, nil
			}
		}
		select {
		case <-ctx.Done():
			return after, context.Cause(ctx)
		case <-time.After(offlineInterval):
		}
	}
}

// back tells whether the server accepts sessions again.
func (s *source) back(ctx context.Context) bool {
	if _, closed := s.files.closed(); closed {
		return false
	}
	state, _ := postgres.Probe(ctx, s.files.pg, s.files.pgdata)
	return state == postgres.Accepting
}

// flushed adapts the connection to what tail and drain ask.
type flushed struct{ conn *postgres.Conn }

func (f flushed) Flushed(ctx context.Context) (wal.Position, error) {
	p, err := f.conn.Position(ctx)
	return wal.Position{Timeline: p.Timeline, LSN: p.Flush}, err
}

func (f flushed) Checkpoint(ctx context.Context) error { return f.conn.Checkpoint(ctx) }
