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
	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/journal"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/restore"
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
	board   *board
	journal *journal.Journal
	prepare *drain.Preparer
	asker   *evacuation.Asker    // nil where nobody can be asked
	reports *evacuation.Reporter // nil where nobody can be told
	log     *slog.Logger
	reg     prometheus.Registerer
	ships   *ship.Metrics
	backups *basebackup.Metrics

	identify func() (archive.Identity, error)
	writer   archive.Identity // set before anything is shipped
	held     bool             // the slot is there although nobody knows yet whether this server will be shipped
	dropped  string           // why the slot was given up, until it is made again
	answered func()           // ends the holding of WAL while the archive is asked
	stale    error            // why the server was refused last as one of another history, until one is shipped

	pacer *pacer // nil without a budget

	restored sync.Mutex        // of whoever takes away what a restore has left
	origin   *restore.Versions // of the snapshot that the server came out of; nil if it came out of none, or long ago

	maiden *maiden // of the last epoch that was claimed

	mu      sync.Mutex
	voyage  *voyage    // what is being shipped right now; stays set after it ended, for the stop, until a server is refused
	noticed *time.Time // of the notice that stands

	hooks hooks
}

// errRefused wraps what a person has to mend; the message says how.
var errRefused = errors.New("not protected")

// How long to wait before Postgres or the archive is asked again: where only time is needed, where a setting has to be
// mended, and where the archive has to be read for an answer.
const (
	retryInterval   = 500 * time.Millisecond
	mendInterval    = 2 * time.Second
	refusedInterval = 10 * time.Second
)

// protect works until soft ends, then finishes under hard. It returns what the stop achieved.
func (g *guard) protect(soft, hard context.Context) error {
	// Said at once: what is under way, such as an upload to a store that is away, may take long to end.
	defer context.AfterFunc(soft, func() { g.board.set(stateStopping, "the sidecar was told to go") })()
	for soft.Err() == nil {
		err := g.sail(soft, hard)
		if refused(err) {
			g.refuse(err)
		}
		wait := retryInterval
		switch {
		case errors.Is(err, errStopping):
			continue
		case err == nil, errors.Is(err, errBack):
			continue
		case errors.Is(err, epoch.ErrSuperseded), errors.Is(err, ship.ErrNotOwner), errors.Is(err, archive.ErrConflict):
			return g.superseded(soft, hard, err)
		case errors.Is(err, ship.ErrStale), errors.Is(err, tail.ErrBehind), errors.Is(err, epoch.ErrForeign):
			g.board.set(stateRefused, err.Error())
			wait = refusedInterval
		case errors.Is(err, errRefused), exitOf(err) == exitDenied:
			g.board.set(stateRefused, err.Error())
			wait = mendInterval
		case soft.Err() == nil:
			wait = g.explain(soft, err)
		}
		select {
		case <-soft.Done():
		case <-time.After(wait):
		}
	}
	return g.finish(hard)
}

// refuse forgets what was shipped of the server before: what runs now, or lies there, is not to be taken for it at the
// stop.
func (g *guard) refuse(why error) {
	g.setVoyage(nil)
	if errors.Is(why, ship.ErrStale) {
		g.stale = why
	}
}

// explain turns the reason why nothing is shipped into a state, and says how long to wait.
func (g *guard) explain(ctx context.Context, err error) time.Duration {
	state, closed := g.dir.closed()
	if !closed {
		state, _ = postgres.Probe(ctx, g.dir.pg, g.dir.pgdata)
	}
	switch {
	case errors.Is(err, errStaleReads):
		g.board.set(stateRecovering, err.Error())
	case errors.Is(err, postgres.ErrInRecovery), state == postgres.InRecoveryNoHotStandby:
		g.board.set(stateRecovering, "Postgres is in recovery; shipping begins when it is promoted")
	case state == postgres.Refused, state == postgres.StartingUp, state == postgres.ShuttingDown, state == postgres.NotNow:
		g.board.set(stateWaiting, "Postgres: "+state.String())
	case postgres.NeedsPerson(err), state == postgres.AuthFailed:
		g.board.set(stateRefused, err.Error())
		return mendInterval
	case errors.Is(err, errBacklog):
		g.board.set(stateRefused, g.dropped)
		return mendInterval
	case errors.Is(err, errStore):
		g.board.set(stateLagging, "the archive cannot be asked, Postgres keeps its WAL: "+err.Error())
		return mendInterval
	default:
		g.board.set(stateWaiting, err.Error())
	}
	return retryInterval
}

// sail connects to the server and ships its timeline until something changes.
func (g *guard) sail(soft, hard context.Context) error {
	ctx, cancel := context.WithCancelCause(hard)
	defer cancel(nil)
	// Until shipping begins nothing is under way that a signal must not cut.
	stop := context.AfterFunc(soft, func() { cancel(errStopping) })
	if state, closed := g.dir.closed(); closed {
		return fmt.Errorf("postgres: %s", state)
	}
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
	g.stale = nil
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
	g.reportEntry(event, attrs)
}

// superseded stops shipping for good and, by policy, turns the database read-only, so that nobody goes on writing
// what no archive will ever hold. The slot goes: it would keep WAL for nobody until the disk is full.
func (g *guard) superseded(soft, hard context.Context, cause error) error {
	g.board.set(stateSuperseded, cause.Error())
	g.log.Error("another writer owns the archive, this one has stopped for good", "error", cause)
	g.note(eventSuperseded, "reason", cause.Error())
	for soft.Err() == nil {
		err := g.standDown(soft)
		if err == nil {
			break
		}
		g.log.Warn("the superseded database could not be made read-only and be freed of its replication slot yet", "error", err)
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

func (g *guard) standDown(ctx context.Context) error {
	conn, err := postgres.Connect(ctx, g.dir.pg)
	if err != nil {
		return err
	}
	defer conn.Close()
	if g.policy.Superseded == policy.SupersededReadOnly {
		if err := conn.FenceReadOnly(ctx); err != nil {
			return err
		}
		g.note(eventFencedReadOnly)
	}
	return conn.DropSlot(ctx, slotName)
}

// facts is what is known of the server before anything is shipped.
type facts struct {
	server  postgres.Server
	flushed wal.LSN
	files   branch
}
