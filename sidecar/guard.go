package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/tail"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// guard protects one data directory, whatever its server does: it waits for it, follows it through restarts and
// promotions, and sees it off.
type guard struct {
	policy  policy.Policy
	door    *door
	arch    *archive.Archive // behind the door; set before anything is shipped
	dir     localFiles
	writer  archive.Identity
	board   *board
	journal *journal.Journal
	prepare *drain.Preparer
	log     *slog.Logger
	reg     prometheus.Registerer
	ships   *ship.Metrics
	backups *basebackup.Metrics

	mu      sync.Mutex
	voyage  *voyage // what is being shipped right now; stays set after it ended, for the stop
	noticed *time.Time
	asked   bool // a notice or a preStop hook has come: Postgres is about to be stopped
}

// errRefused wraps what a person has to mend; the message says how.
var errRefused = errors.New("not protected")

// How long to wait before Postgres or the archive is asked again.
const (
	retryInterval   = 500 * time.Millisecond
	refusedInterval = 10 * time.Second
)

// protect works until soft ends, then finishes under hard. It returns what the stop achieved.
func (g *guard) protect(soft, hard context.Context) error {
	for soft.Err() == nil {
		err := g.sail(soft, hard)
		wait := retryInterval
		switch {
		case errors.Is(err, errStopping):
			continue
		case err == nil, errors.Is(err, errBack):
			continue
		case errors.Is(err, epoch.ErrSuperseded), errors.Is(err, ship.ErrNotOwner), errors.Is(err, archive.ErrConflict):
			return g.superseded(soft, hard, err)
		case errors.Is(err, errRefused), errors.Is(err, ship.ErrStale), errors.Is(err, tail.ErrBehind), errors.Is(err, epoch.ErrForeign),
			exitOf(err) == exitDenied:
			g.board.set(stateRefused, err.Error())
			wait = refusedInterval
		default:
			g.explain(soft, err)
		}
		select {
		case <-soft.Done():
		case <-time.After(wait):
		}
	}
	return g.finish(hard)
}

// explain turns the reason why nothing is shipped into a state.
func (g *guard) explain(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	state, _ := postgres.Probe(ctx, g.dir.pg, g.dir.pgdata)
	switch {
	case errors.Is(err, postgres.ErrInRecovery), state == postgres.InRecoveryNoHotStandby:
		g.board.set(stateRecovering, "Postgres is in recovery; shipping begins when it is promoted")
	case state == postgres.Refused, state == postgres.StartingUp, state == postgres.ShuttingDown, state == postgres.NotNow:
		g.board.set(stateWaiting, "Postgres: "+state.String())
	case postgres.IsPermission(err), state == postgres.AuthFailed:
		g.board.set(stateRefused, err.Error())
	default:
		g.board.set(stateWaiting, err.Error())
	}
}

// sail connects to the server and ships its timeline until something changes.
func (g *guard) sail(soft, hard context.Context) error {
	ctx, cancel := context.WithCancelCause(hard)
	defer cancel(nil)
	// Until shipping begins nothing is under way that a signal must not cut.
	stop := context.AfterFunc(soft, func() { cancel(errStopping) })
	conn, err := postgres.Connect(ctx, g.dir.pg)
	if err != nil {
		return err
	}
	v, err := g.embark(ctx, conn)
	if err != nil {
		conn.Close()
		return err
	}
	defer v.close()
	if !stop() {
		return errStopping
	}
	g.setVoyage(v)
	return v.run(soft, hard)
}

func (g *guard) setVoyage(v *voyage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.voyage = v
}

func (g *guard) current() *voyage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.voyage
}

// underway is what Prepare works on.
func (g *guard) underway() (drain.Server, drain.Shipping, error) {
	v := g.current()
	if v == nil || v.ended() {
		s := g.board.snapshot()
		return nil, nil, fmt.Errorf("nothing is being shipped: %s: %s", s.State, s.Reason)
	}
	return flushed{v.conn}, v.ship, nil
}

// note writes to the journal and the log.
func (g *guard) note(event string, attrs ...any) {
	g.journal.Note(event, attrs...)
	g.log.Info("journal entry", append([]any{"event", event}, attrs...)...)
}

// superseded stops shipping for good and, by policy, turns the database read-only, so that nobody goes on writing
// what no archive will ever hold.
func (g *guard) superseded(soft, hard context.Context, cause error) error {
	g.board.set(stateSuperseded, cause.Error())
	g.log.Error("another writer owns the archive, this one has stopped for good", "error", cause)
	g.note("superseded", "reason", cause.Error())
	for g.policy.Superseded == policy.SupersededReadOnly && soft.Err() == nil {
		err := g.fence(soft)
		if err == nil {
			g.note("fenced_read_only")
			break
		}
		g.log.Warn("the database could not be made read-only yet", "error", err)
		select {
		case <-soft.Done():
		case <-time.After(2 * time.Second):
		}
	}
	<-soft.Done()
	ctx, cancel := context.WithTimeout(hard, 5*time.Second)
	defer cancel()
	return errors.Join(cause, g.journal.Flush(ctx))
}

func (g *guard) fence(ctx context.Context) error {
	conn, err := postgres.Connect(ctx, g.dir.pg)
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.FenceReadOnly(ctx)
}

// facts is what is known of the server before anything is shipped.
type facts struct {
	server  postgres.Server
	flushed wal.LSN
	files   branch
}
