// Package drain holds the two stop sequences, each a list of plain steps with a budget and an outcome.
//
// Prepare runs while Postgres lives, on a termination notice or a preStop hook, and may be asked for several times: it
// ends no session and stops nothing. Finish runs when the sidecar itself is told to go, which on six ordinary
// occasions happens while Postgres still lives: it believes only the files.
package drain

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"outrider.dev/sidecar/internal/wal"
)

// MaxPrepare bounds Prepare whatever the grace period: a hook that hangs eats the time Postgres needs to stop.
const MaxPrepare = 20 * time.Second

// Budget is how long Prepare may take out of a grace period.
func Budget(grace time.Duration) time.Duration { return min(grace/4, MaxPrepare) }

// Server is the running Postgres.
type Server interface {
	Checkpoint(ctx context.Context) error
	Flushed(ctx context.Context) (wal.Position, error)
}

// Shipping is what is being shipped right now.
type Shipping interface {
	WaitDurable(ctx context.Context, p wal.Position) error
	Durable() wal.Position
}

// Outcome is what Prepare achieved.
type Outcome struct {
	Reason       string        `json:"reason"`
	Started      time.Time     `json:"started"`
	Took         time.Duration `json:"-"`
	TookSeconds  float64       `json:"took_seconds"`
	Checkpointed bool          `json:"checkpointed"`
	Checkpoint   float64       `json:"checkpoint_seconds,omitempty"` // what of it the checkpoint took, finished or not
	Wanted       wal.Position  `json:"wanted"`
	Durable      wal.Position  `json:"durable"`
	NoCheckpoint error         `json:"-"` // why there is none; nil also where none was asked for
	Err          error         `json:"-"`
}

// MarshalJSON adds to the fields whether the outcome is complete, and why not.
func (o Outcome) MarshalJSON() ([]byte, error) {
	type fields Outcome
	v := struct {
		fields
		Complete bool   `json:"complete"`
		Error    string `json:"error,omitempty"`
	}{fields: fields(o), Complete: o.Complete()}
	if o.Err != nil {
		v.Error = o.Err.Error()
	}
	return json.Marshal(v)
}

// Complete tells whether everything that was flushed when the sequence ran is durable.
func (o Outcome) Complete() bool {
	return o.Err == nil && o.Wanted.LSN > 0 && o.Durable.Timeline == o.Wanted.Timeline && o.Durable.LSN >= o.Wanted.LSN
}

// Preparer runs Prepare, one at a time. Now returns the server and what is being shipped, or an error that says why
// there is nothing to prepare. Done, if set, is told of each run once, however many have asked for it.
type Preparer struct {
	Now  func() (Server, Shipping, error)
	Done func(Outcome)

	flight singleflight.Group
	mu     sync.Mutex
	last   Outcome
}

// Last is the outcome of the last Prepare; zero if there was none.
func (p *Preparer) Last() Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// Prepare checkpoints and waits until what is flushed then is durable. It always answers within budget. Callers that
// come while it runs share its outcome. So do those that come right after it for the same reason, if nothing was written
// in between; another reason is another step of a stop's story. A caller whose ctx ends waits no longer, and ends
// nothing. A budget below a second is spent on shipping alone.
func (p *Preparer) Prepare(ctx context.Context, reason string, budget time.Duration) Outcome {
	done := p.flight.DoChan("prepare", func() (any, error) {
		// The first caller's going away must not end what others wait for.
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), budget, errors.New("the time for preparing is over"))
		defer cancel()
		if o := p.Last(); o.Reason == reason && p.stands(ctx, o, budget) {
			return o, nil
		}
		o := p.once(ctx, reason, budget)
		p.mu.Lock()
		p.last = o
		p.mu.Unlock()
		if p.Done != nil {
			p.Done(o)
		}
		return o, nil
	})
	select {
	case r := <-done:
		return r.Val.(Outcome)
	case <-ctx.Done():
		return Outcome{Reason: reason, Started: time.Now(), Err: context.Cause(ctx)}
	}
}

// freshness is how long an outcome may be the answer to another question: a pod's containers have a hook each, which
// come one after the other.
const freshness = 2 * time.Second

// stands tells whether o is as good as what another run would achieve: it ended just now with all that it wanted, and
// nothing was flushed since. In doubt it is not.
func (p *Preparer) stands(ctx context.Context, o Outcome, budget time.Duration) bool {
	if !o.Complete() || !o.Checkpointed || time.Since(o.Started.Add(o.Took)) > freshness {
		return false
	}
	server, ship, err := p.Now()
	if err != nil || server == nil {
		return false
	}
	// A server that hangs must not cost the time that shipping needs.
	ctx, cancel := context.WithTimeout(ctx, budget/20)
	defer cancel()
	flushed, err := server.Flushed(ctx)
	return err == nil && flushed == o.Wanted && ship.Durable() == flushed
}

// checkpointShare is the part of the budget that a checkpoint may take; the rest belongs to shipping.
const checkpointShare = 0.7

func (p *Preparer) once(ctx context.Context, reason string, budget time.Duration) (o Outcome) {
	o = Outcome{Reason: reason, Started: time.Now()}
	defer func() {
		o.Took = time.Since(o.Started)
		o.TookSeconds = o.Took.Seconds()
	}()
	server, ship, err := p.Now()
	if err != nil {
		o.Err = err
		return o
	}
	if budget >= time.Second && server != nil {
		cctx, cancel := context.WithTimeout(ctx, time.Duration(float64(budget)*checkpointShare))
		o.NoCheckpoint = server.Checkpoint(cctx)
		cancel()
		o.Checkpoint = time.Since(o.Started).Seconds()
		o.Checkpointed = o.NoCheckpoint == nil
	}
	if o.Wanted, err = server.Flushed(ctx); err != nil {
		o.Err = fmt.Errorf("asking how far WAL is flushed: %w", err)
		return o
	}
	o.Err = ship.WaitDurable(ctx, o.Wanted)
	o.Durable = ship.Durable()
	return o
}
