package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5"
)

// Conn is one pinned session. Its methods are safe for concurrent use and wait for each other; none of them keeps the
// session for long. A Conn that lost its session stays lost: make another.
type Conn struct {
	cfg  Config
	user string
	turn chan struct{} // holds one token; who has it may use pg
	pg   *pgx.Conn

	mu      sync.Mutex
	closed  bool
	lost    bool               // as the last query left it: pgx must not be asked while somebody else uses the session
	running context.CancelFunc // of the query under way, or nil
}

// Connect opens the pinned session. Errors tell the remedy where there is one; Probe tells why a server refuses.
func Connect(ctx context.Context, cfg Config) (*Conn, error) {
	pg, err := cfg.open(ctx, "")
	if err != nil {
		return nil, err
	}
	c := &Conn{cfg: cfg, user: pg.Config().User, turn: make(chan struct{}, 1), pg: pg}
	c.turn <- struct{}{}
	return c, nil
}

// Alive tells whether the session was usable when it was last used. It does not ask the server.
func (c *Conn) Alive() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && !c.lost
}

// Close ends the session, and a query under way with it. It is safe to call more than once.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	if c.running != nil {
		c.running()
	}
	c.mu.Unlock()
	<-c.turn
	defer func() { c.turn <- struct{}{} }()
	closeSession(c.pg)
}

// do runs f with the session, bounded by Config.Timeout, and wraps what it returns.
func (c *Conn) do(ctx context.Context, doing string, f func(context.Context, *pgx.Conn) error) error {
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("%s: waiting for the session: %w", doing, ctx.Err())
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.cfg.timeout(),
		fmt.Errorf("the server took longer than %v", c.cfg.timeout()))
	defer cancel()
	if !c.begin(cancel) {
		return fmt.Errorf("%s: %w", doing, ErrConnectionLost)
	}
	defer c.end()
	err := f(ctx, c.pg)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	if err != nil && c.pg.IsClosed() && !errors.Is(err, ErrConnectionLost) {
		err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return explain(doing, c.user, err)
}

func (c *Conn) begin(cancel context.CancelFunc) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.running = cancel
	return true
}

func (c *Conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running = nil
	c.lost = c.pg.IsClosed()
}
