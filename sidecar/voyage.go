package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/tail"
	"outrider.dev/sidecar/internal/wal"
)

// voyage is the shipping of one timeline over one session.
type voyage struct {
	*guard
	facts
	conn      *postgres.Conn
	epoch     archive.Epoch
	ship      *ship.Shipper
	tail      *tail.Tailer
	keeper    *epoch.Keeper
	snapshots []archive.Backup // those that a restore could start from
	gapFrom   wal.LSN
	leftovers []leftover // not sealed yet
	drills    drillBook
	level     atomic.Bool                // what was flushed when the voyage began is durable
	flow      flow                       // of the server's WAL
	slot      atomic.Pointer[slotStatus] // nil if it was given up or could not be read
	look      *positions                 // nil without a server
	stopSeen  bool                       // of watchShutdown alone

	// Only takeSnapshots touches these.
	lastLooked, failed time.Time
	lookedAfter        time.Time // when the newest snapshot was last known to be in the archive
	took               time.Duration
	skipped            bool // the last thing that happened was that a snapshot was left out
	quiet              *wal.Bookkeeping
	quietSince         wal.LSN // end of the snapshot since which quiet looks

	settling sync.Mutex    // of those who say how things stand, one after the other
	caughtUp chan struct{} // closed when nothing is waited for any more
	once     sync.Once
	done     chan struct{}
}

// owner is asked before anything in place is replaced.
func (v *voyage) owner(ctx context.Context) error {
	err := v.keeper.Check(ctx)
	if errors.Is(err, epoch.ErrSuperseded) {
		return fmt.Errorf("%w: %w", ship.ErrNotOwner, err)
	}
	return err
}

// run ships until the server or the timeline changes, the epoch is lost, or soft ends. All its parts have returned
// when it returns.
func (v *voyage) run(soft, hard context.Context) error {
	defer v.once.Do(func() { close(v.done) })
	v.settle()
	v.rememberOrigin()
	group, ctx := errgroup.WithContext(hard)
	snapshots, endSnapshots := context.WithCancel(soft)
	defer endSnapshots()
	src := &source{soft: soft, tail: v.tail, conn: v.conn, files: v.files, same: v.ship.Compare, log: v.log}
	group.Go(func() error {
		if err := v.ship.Run(ctx, src); err != nil {
			return err
		}
		return errBack // another timeline
	})
	group.Go(func() error { return v.keeper.Run(ctx) })
	group.Go(func() error { return v.keepSlot(ctx) })
	group.Go(func() error { return v.publishHistory(ctx) })
	group.Go(func() error { v.catchUp(ctx, soft); return nil })
	group.Go(func() error { v.sealLeftovers(ctx); return nil })
	group.Go(func() error { v.awaitFirstWrite(until(ctx, soft)); return nil })
	group.Go(func() error { v.lookAtFit(until(ctx, soft)); return nil })
	group.Go(func() error { return v.takeSnapshots(ctx, snapshots) })
	group.Go(func() error { return v.watchDrills(until(ctx, soft)) })
	group.Go(func() error { return v.watchShutdown(ctx, endSnapshots) })
	err := group.Wait()
	if errors.Is(err, ship.ErrGap) {
		v.note(eventGap, "reason", err.Error(), "durable", v.ship.Durable().LSN.String())
		return errors.Join(errBack, err)
	}
	return err
}

func (v *voyage) ended() bool {
	select {
	case <-v.done:
		return true
	default:
		return false
	}
}

func (v *voyage) close() {
	v.conn.Close()
	v.look.close()
	if err := v.tail.Close(); err != nil {
		v.log.Warn("closing the watch over pg_wal", "error", err)
	}
}

// catchUp waits until the archive is level with what was flushed when the slot was there: a whole segment after a
// promotion, hours of WAL after a store that was away. Until then the promise about the age of losses is not kept, a
// snapshot could not be completed, and what a restore has set keeps WAL that the slot does not.
func (v *voyage) catchUp(ctx, soft context.Context) {
	defer close(v.caughtUp)
	to := v.flushed
	if p, err := v.conn.Position(ctx); err == nil {
		to = max(to, p.Flush)
	}
	if v.ship.WaitDurable(ctx, wal.Position{Timeline: v.server.Timeline, LSN: to}) != nil {
		return
	}
	v.level.Store(true)
	v.settle()
	if soft.Err() == nil {
		v.settleRestore(soft, v.conn, v.haveSnapshot())
	}
}

// settle says how protected the database is.
func (v *voyage) settle() {
	v.settling.Lock()
	defer v.settling.Unlock()
	v.mu.Lock()
	var last *snapshotInfo
	if n := len(v.snapshots); n > 0 {
		last = infoOf(v.snapshots[n-1])
	}
	v.mu.Unlock()
	v.board.update(func(r *statusReport) {
		r.Epoch, r.Timeline, r.SystemIdentifier = v.epoch.Number, v.server.Timeline, v.server.SystemIdentifier
		if last != nil {
			r.LastSnapshot = last
		}
	})
	switch {
	case v.haveSnapshot() && !v.level.Load():
		v.board.set(stateLagging, fmt.Sprintf("WAL that was written before is being shipped, up to %s", v.flushed))
	case v.haveSnapshot():
		v.board.set(stateProtected, "")
	case v.gapFrom != 0:
		v.board.set(stateNoSnapshot, fmt.Sprintf("WAL from %s on was lost before it could be shipped; a new snapshot is being taken", v.gapFrom))
	case len(v.files.history) > 0:
		v.board.set(stateNoSnapshot, fmt.Sprintf("nothing in the archive leads to timeline %d; a snapshot is being taken", v.server.Timeline))
	default:
		v.board.set(stateNoSnapshot, "the first snapshot is being taken")
	}
}

func (v *voyage) haveSnapshot() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.snapshots) > 0
}

// publishHistory stores the timeline's .history once its first segment is in the archive up to the fork: from then on
// stock tools follow it.
func (v *voyage) publishHistory(ctx context.Context) error {
	h := v.files.history
	if len(h) == 0 {
		return nil
	}
	if err := v.ship.WaitDurable(ctx, wal.Position{Timeline: v.server.Timeline, LSN: h.Begin()}); err != nil {
		return nil //nolint:nilerr // the voyage ended before; the next one tries again
	}
	for {
		err := v.putHistory(ctx)
		if err == nil || errors.Is(err, archive.ErrConflict) || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(refusedInterval):
		}
	}
}

func (v *voyage) putHistory(ctx context.Context) error {
	if len(v.files.history) == 0 {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(v.files.walDir(), wal.HistoryName(v.server.Timeline)))
	if err != nil {
		return fmt.Errorf("reading the history of timeline %d: %w", v.server.Timeline, err)
	}
	return v.arch.PutHistory(ctx, v.server.Timeline, raw)
}

// watchShutdown ends our own sessions when the server begins to stop: a smart shutdown waits for all sessions, ours
// included. After a notice or a preStop hook the sessions of clients are ended too, since the pod will not wait. Until
// then, ours stays as long as clients do: no other would be let in to end them.
func (v *voyage) watchShutdown(ctx context.Context, endSnapshots func()) error {
	tick := time.NewTicker(retryInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		status, err := postgres.PostmasterStatus(v.files.pgdata)
		if err != nil || status != postgres.StatusStopping {
			continue
		}
		v.board.postgresStops()
		v.noteStopping()
		endSnapshots()
		if v.wasAsked() {
			n, err := v.conn.TerminateClients(ctx)
			v.log.Info("client sessions were ended so that Postgres can stop", "sessions", n, "error", err)
		} else if n, err := v.conn.OtherClients(ctx); err == nil && n > 0 {
			continue
		}
		v.conn.Close()
		return nil
	}
}

// noteStopping notes once a voyage that the postmaster shuts down.
func (v *voyage) noteStopping() {
	if !v.stopSeen {
		v.stopSeen = true
		v.note(eventPostgresStopping, "status", string(postgres.StatusStopping))
	}
}
