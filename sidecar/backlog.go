package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// errBacklog says that the replication slot was given up for max-wal-backlog.
var errBacklog = errors.New("max-wal-backlog")

// hold makes the server keep its WAL while the archive cannot be asked: until it can, this disk may be the only place
// where the WAL is. The policy's limit holds here too: whoever restarts in an outage has no voyage that would look.
func (g *guard) hold(ctx context.Context, conn *postgres.Conn) error {
	g.held = true
	s, err := conn.Slot(ctx, slotName)
	switch {
	case g.dropped != "":
		return fmt.Errorf("%w: %s", errBacklog, g.dropped)
	case errors.Is(err, fs.ErrNotExist), err == nil && (s.RestartLSN == 0 || s.Lost()):
		return g.ensureSlot(ctx, conn)
	case err != nil:
		return err
	}
	over, err := g.overBacklog(ctx, conn, s.RestartLSN)
	if err == nil && over {
		err = fmt.Errorf("%w: %s", errBacklog, g.dropped)
	}
	return err
}

// holdMeanwhile holds the WAL if the archive does not answer soon: the store is given up only after many tries. The
// function that it returns ends that, and may be called more than once.
func (g *guard) holdMeanwhile(ctx context.Context, conn *postgres.Conn) (answered func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for wait := mendInterval; ; wait = slotInterval {
			select {
			case <-ctx.Done():
				return
			case <-time.After(wait):
			}
			err := g.hold(ctx, conn)
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, errBacklog):
				g.board.set(stateRefused, g.dropped)
				continue
			case err != nil:
				g.log.Warn("the server's WAL cannot be held while the archive is asked", "error", err)
			}
			g.board.set(stateLagging, "the archive has not answered yet, Postgres keeps its WAL")
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// overBacklog looks how much WAL Postgres keeps, from keep on, while the archive does not take it. What happens at the
// bound is the policy's decision: a full volume stops the database, a dropped slot makes a gap in the archive.
func (g *guard) overBacklog(ctx context.Context, conn *postgres.Conn, keep wal.LSN) (over bool, err error) {
	limit := g.policy.MaxWALBacklog
	if limit.Bytes <= 0 || g.dropped != "" {
		return g.dropped != "", nil
	}
	p, err := conn.Position(ctx)
	if err != nil {
		return false, err
	}
	kept := distance(keep, p.Flush)
	if kept <= limit.Bytes {
		return false, nil
	}
	if limit.Then != policy.BacklogDrop {
		return true, fmt.Errorf("postgres keeps %d bytes of WAL that the archive has not taken, more than max-wal-backlog %s: see to the archive or to room on the volume",
			kept, limit)
	}
	if err := conn.DropSlot(ctx, slotName); err != nil {
		return false, err
	}
	g.dropped = fmt.Sprintf("the archive has not taken WAL from %s on, and Postgres kept %d bytes of it, more than max-wal-backlog %s: the replication slot was dropped, so that the volume does not fill up. A new snapshot is taken if WAL is missing when the archive is back",
		keep, kept, limit)
	g.note("slot_dropped", "reason", g.dropped)
	g.log.Error("the replication slot was given up", "kept_bytes", kept, "limit", limit.String())
	g.board.set(stateRefused, g.dropped)
	return true, nil
}
