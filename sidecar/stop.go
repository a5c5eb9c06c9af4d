package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/notice"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
)

// linger is how long a Postgres that still lives is waited for at the very end. The kubelet gives about two seconds
// when a grace period is over, of which shipping and the receipt need some.
const linger = time.Second

// onNotice answers a termination notice: everything committed so far becomes durable at once. Postgres goes on serving
// until it is stopped. One that is withdrawn leaves no trace but in the journal.
func (g *guard) onNotice(ctx context.Context, n notice.Notice) {
	if n.At.IsZero() {
		g.setNoticed(nil)
		g.board.update(func(r *statusReport) { r.Notice = nil })
		g.note(eventNoticeWithdrawn, "instance", n.Instance)
		g.askForEvacuation(n)
		return
	}
	g.setNoticed(&n.SeenAt)
	g.board.update(func(r *statusReport) { r.Notice = &n })
	g.note(eventNotice, "release_at", n.At, "instance", n.Instance)
	g.prepareNow(ctx, byNotice)
	g.askForEvacuation(n)
}

func (g *guard) setNoticed(at *time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.noticed = at
}

// finish is the second stop sequence. Nothing is being followed any more.
func (g *guard) finish(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	g.board.set(stateStopping, "the sidecar was told to go")
	v := g.current()
	if v == nil {
		var err error
		if v, err = g.embarkOffline(ctx); err != nil {
			return err
		}
		if was := g.board.beforeStop(); v == nil && (was.State == stateLagging || was.State == stateRefused) {
			return fmt.Errorf("%w: nothing was shipped: %s", drain.ErrNotAll, was.Reason)
		}
		if v == nil {
			g.board.set(stateStopped, "nothing was being shipped")
			return nil
		}
	}
	f := drain.Finisher{
		Local: v.files, Ship: v.ship, Receipts: g.arch, SystemIdentifier: v.server.SystemIdentifier, Compare: v.ship.Compare, Owner: v.stillOwner,
		Linger: linger, Log: g.log,
	}
	if v.conn != nil && v.conn.Alive() {
		f.Server = flushed{v.conn}
	} else if conn, err := g.lastSession(ctx); err == nil {
		defer conn.Close()
		f.Server = flushed{conn}
	}
	started := time.Now()
	left := v.leaving(ctx)
	r, err := f.Finish(ctx, g.receipt(v))
	left(r.Clean || r.Superseded)
	g.notePostgresDown(r.State)
	if r.Superseded {
		g.note(eventSuperseded, "reason", err.Error())
	}
	g.note(eventFinished, "clean", r.Clean, "reason", r.Reason, "durable", r.Durable.String(), "seconds", time.Since(started).Seconds())
	if r.Superseded {
		g.board.set(stateSuperseded, r.Reason)
	} else {
		g.board.set(stateStopped, r.Reason)
	}
	v.tellTheRest(ctx)
	if !errors.Is(err, drain.ErrOther) && !r.Superseded {
		v.forStockTools(ctx)
	}
	return err
}

// leaving has whoever is to go on with the database know that this writer is coming to its end, until the function that it
// returns is called. A clean receipt says by itself that it is over, and of one that was superseded nobody asks.
func (v *voyage) leaving(ctx context.Context) (over func(told bool)) {
	v.keeper.Leave(time.Now().Add(v.policy.Grace))
	beating, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = v.keeper.Run(beating) }) // that there is another writer by now is for the receipt to say
	return func(told bool) {
		end()
		running.Wait()
		if told {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if err := v.keeper.Left(ctx); err != nil {
			v.log.Warn("whoever goes on with the database may wait for a moment, as it does not know that this writer has ended", "error", err)
		}
	}
}

// stillOwner is owner in the words of a stop. The keeper asks every few seconds only, and a stop may come in between.
func (v *voyage) stillOwner(ctx context.Context) error {
	err := v.owner(ctx)
	if errors.Is(err, ship.ErrNotOwner) {
		return fmt.Errorf("%w: %w", drain.ErrOvertaken, err)
	}
	return err
}

// lastSession is for asking how far WAL is flushed. A server that hangs must not cost the time that shipping needs: the
// files tell, too.
func (g *guard) lastSession(ctx context.Context) (*postgres.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, linger)
	defer cancel()
	return postgres.Connect(ctx, g.dir.pg)
}

// tellTheRest stores the last journal entries. The receipt is the proof of a stop, the journal only its story: a store
// that is too slow for it now makes no failure of a stop that lost nothing.
func (v *voyage) tellTheRest(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := v.journal.Flush(ctx); err != nil {
		v.log.Warn("the last journal entries are not in the archive", "error", err)
	}
}

// forStockTools finishes for a voyage that was stopped soon after it began what only tools need that know nothing of
// outrider. The promises are kept by now: without this they would miss the timeline, or WAL before it.
func (v *voyage) forStockTools(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, leftoverBudget)
	defer cancel()
	if err := v.putHistory(ctx); err != nil {
		v.log.Warn("the history of the timeline is not in the archive: only tools that know nothing of outrider miss it", "error", err)
	}
	v.sealLeftovers(ctx)
	v.tellTheRest(ctx)
}

func (g *guard) receipt(v *voyage) archive.Receipt {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := archive.Receipt{Epoch: v.epoch.Number, Writer: g.writer, NoticeAt: g.noticed}
	if o := g.prepare.Last(); !o.Started.IsZero() {
		at := o.Started.Add(o.Took)
		r.PreparedAt = &at
	}
	return r
}

// embarkOffline makes a voyage of a directory whose server is gone, for a sidecar that was started too late to meet
// it: what the last one left unshipped is then still shipped. Nil if there is nothing to ship or it is not ours.
func (g *guard) embarkOffline(ctx context.Context) (*voyage, error) {
	c, err := g.dir.Control()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if alive, err := g.dir.Alive(ctx); err != nil || alive {
		return nil, err // it was never ours: a server that we could not use is still running
	}
	if g.arch, err = g.door.enter(ctx, c.SystemIdentifier); err != nil {
		return nil, fmt.Errorf("opening the archive of the stopped server in %s: %w", g.dir.pgdata, err)
	}
	known, err := g.arch.Cluster(ctx)
	if errors.Is(err, fs.ErrNotExist) || err == nil && known.SystemIdentifier != c.SystemIdentifier {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("asking whether the stopped server in %s was being shipped: %w", g.dir.pgdata, err)
	}
	t := max(c.CheckPointTimeline, c.MinRecoveryPointTimeline)
	files, err := g.dir.branchOf(t, c.SegmentSize, c.SystemIdentifier)
	if err != nil {
		return nil, err
	}
	end, err := files.ValidEnd(wal.Position{Timeline: t, LSN: c.Redo})
	if err != nil {
		return nil, err
	}
	if c.WALLevel == wal.WALLevelMinimal {
		return nil, fmt.Errorf("%w: %w: %s", drain.ErrNotAll, errRefused, minimal)
	}
	f := facts{server: postgres.Server{
		SystemIdentifier: c.SystemIdentifier, SegmentSize: c.SegmentSize, Timeline: t, DataDirectory: g.dir.pgdata,
	}, flushed: end, files: files}
	if c.State == wal.StateArchiveRecovery || c.State == wal.StateShutDownInRecovery {
		return nil, nil // a restore that never became a primary has written nothing of its own
	}
	return g.claim(ctx, nil, f)
}

// notePostgresDown notes that a stop has found no server any more. The time of pg_control is that of its last write: of
// the shutdown checkpoint, if there was one.
func (g *guard) notePostgresDown(state string) {
	if state == "" {
		return
	}
	attrs := []any{"control_state", state}
	if info, err := os.Stat(wal.ControlPath(g.dir.pgdata)); err == nil {
		attrs = append(attrs, "control_written_at", info.ModTime().UTC())
	}
	g.note(eventPostgresDown, attrs...)
}
