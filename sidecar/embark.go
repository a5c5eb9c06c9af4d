package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/tail"
)

// slotName is the replication slot that keeps WAL for us.
const slotName = "outrider"

// embark makes sure that this server may be shipped to this archive, claims what has to be claimed, and finds out
// where to go on. A server that is refused is left as it is, and so is the archive.
func (g *guard) embark(ctx context.Context, conn *postgres.Conn) (*voyage, error) {
	f, err := g.ask(ctx, conn)
	if err != nil {
		return nil, err
	}
	g.answered = g.holdMeanwhile(ctx, conn)
	v, err := g.claim(ctx, conn, f)
	g.answered()
	switch {
	case err == nil:
		g.held = false
		return v, nil
	case !refused(err) && ctx.Err() == nil:
		err = errors.Join(err, g.hold(ctx, conn))
	case g.held:
		g.held = false
		err = errors.Join(err, conn.DropSlot(ctx, slotName))
	}
	return nil, err
}

// refused tells whether the archive was asked and this server is not to be shipped to it.
func refused(err error) bool {
	for _, kind := range []error{errRefused, ship.ErrStale, epoch.ErrForeign, epoch.ErrSuperseded, archive.ErrConflict} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

const minimal = "wal_level is minimal, which leaves out what a restore needs: set wal_level to replica and restart Postgres"

// ask reads what kind of server this is and refuses those that cannot be protected.
func (g *guard) ask(ctx context.Context, conn *postgres.Conn) (facts, error) {
	s, err := conn.Server(ctx)
	if err != nil {
		return facts{}, err
	}
	if s.InRecovery {
		return facts{}, g.inRecovery()
	}
	if s.VersionNum < 140001 {
		return facts{}, fmt.Errorf("%w: PostgreSQL %d is too old, WAL before 14.1 may change after it was flushed: use 14.1 or later", errRefused, s.VersionNum)
	}
	if s.WALLevel == "minimal" {
		return facts{}, fmt.Errorf("%w: %s", errRefused, minimal)
	}
	if !s.FSync {
		g.log.Warn("fsync is off: what Postgres calls flushed may not be on its disk; the archive is not affected")
	}
	p, err := conn.Position(ctx)
	if err != nil {
		return facts{}, err
	}
	files, err := g.dir.branchOf(s.Timeline, s.SegmentSize, s.SystemIdentifier)
	if err != nil {
		return facts{}, err
	}
	c, err := g.dir.Control()
	if err != nil {
		return facts{}, err
	}
	if c.SystemIdentifier != s.SystemIdentifier {
		return facts{}, fmt.Errorf("%w: the server has system identifier %d, the data directory %s has %d: --pgdata and PGHOST/PGPORT must mean the same server",
			errRefused, s.SystemIdentifier, g.dir.pgdata, c.SystemIdentifier)
	}
	return facts{server: s, flushed: p.Flush, files: files}, nil
}

func (g *guard) ensureSlot(ctx context.Context, conn *postgres.Conn) error {
	_, err := conn.EnsureSlot(ctx, slotName)
	if err == nil {
		g.dropped = ""
	}
	if !errors.Is(err, postgres.ErrSlotLost) {
		return err
	}
	// Files and archive say whether anything is missing, never the slot. A new one keeps what there is from now on.
	g.log.Warn("the replication slot had lost its WAL and is made anew", "error", err)
	g.note("slot_lost", "reason", err.Error())
	if err := conn.DropSlot(ctx, slotName); err != nil {
		return err
	}
	_, err = conn.EnsureSlot(ctx, slotName)
	return err
}

func (g *guard) claim(ctx context.Context, conn *postgres.Conn, f facts) (*voyage, error) {
	if g.board.snapshot().State == stateWaiting {
		g.board.set(stateWaiting, "Postgres is there, the archive is being asked")
	}
	arch, err := g.door.enter(ctx, f.server.SystemIdentifier)
	if err != nil {
		return nil, fmt.Errorf("opening the archive: %w", err)
	}
	g.arch = arch
	if g.writer, err = g.identify(); err != nil {
		return nil, err
	}
	// What may refuse comes first: it only reads.
	if err := g.sameCluster(ctx, f.server); err != nil {
		return nil, err
	}
	store := g.arch.WAL(f.server.SegmentSize)
	inv, err := store.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	request := epoch.Request{Writer: g.writer, Timeline: f.server.Timeline, TakeOver: g.policy.TakeOver}
	number, err := epoch.Judge(inv.Epochs, request)
	if err != nil {
		return nil, err
	}
	snapshots, err := g.readableBackups(ctx)
	if err != nil {
		return nil, err
	}
	start, err := ship.Resume(inv, snapshots, ship.Local{
		Timeline: f.server.Timeline, Fork: f.files.history.Begin(), Flushed: f.flushed, Has: f.files.has,
	})
	if err != nil {
		return nil, err
	}
	if err := g.continues(ctx, store, f.files, start); err != nil {
		return nil, err
	}
	// A slot that keeps WAL for nobody fills the disk, so only a server that is going to be shipped gets one. WAL that
	// went before it was there is found to be a gap.
	if conn != nil {
		g.answered() // who holds WAL meanwhile may also give it up
		if err := g.ensureSlot(ctx, conn); err != nil {
			return nil, err
		}
	}
	if err := g.claimCluster(ctx, f.server); err != nil {
		return nil, err
	}
	// The timeline before the epoch: of two that race for it one must be left, and a higher epoch fences the lower.
	if err := g.claimTimeline(ctx, inv, f, number, start); err != nil {
		return nil, err
	}
	request.Since = start.Durable
	e, continued, err := g.claimEpoch(ctx, request, conn != nil)
	if err != nil {
		return nil, err
	}
	g.seek(maidenOf(inv, f, e, start.Durable, continued))
	g.noteShipping(conn, f, e, start, continued)
	v, err := g.newVoyage(conn, f, e, start, g.usable(inv, snapshots, f.files, start.GapFrom))
	if err == nil {
		v.leftovers = leftovers(inv, f.files)
	}
	return v, err
}

// noteShipping notes that an epoch's server is shipped from now on, or without a session what it has left.
func (g *guard) noteShipping(conn *postgres.Conn, f facts, e archive.Epoch, start ship.Start, continued bool) {
	g.journal.SetEpoch(e.Number)
	event := eventShipping
	if conn == nil {
		event = eventShippingRest
	}
	g.note(event, "timeline", f.server.Timeline, "from", start.Durable.String(), "continued", continued, "gap_from", start.GapFrom.String())
}

// sameCluster refuses a root that is another system identifier's.
func (g *guard) sameCluster(ctx context.Context, s postgres.Server) error {
	c, err := g.arch.Cluster(ctx)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case c.SystemIdentifier != s.SystemIdentifier || c.SegmentSize != s.SegmentSize:
		return refuseCluster(fmt.Errorf("it is of system identifier %d with WAL segments of %d bytes, this server has %d with %d",
			c.SystemIdentifier, c.SegmentSize, s.SystemIdentifier, s.SegmentSize))
	}
	return nil
}

func refuseCluster(why error) error {
	return fmt.Errorf("%w: this archive holds another database: %w: give this server an archive of its own, or, after pg_upgrade, set adopt to true",
		errRefused, why)
}

// claimCluster makes the root this system identifier's, or refuses.
func (g *guard) claimCluster(ctx context.Context, s postgres.Server) error {
	err := g.arch.ClaimCluster(ctx, archive.Cluster{
		SystemIdentifier: s.SystemIdentifier, SegmentSize: s.SegmentSize, CreatedAt: time.Now().UTC(), CreatedBy: g.writer,
	})
	if errors.Is(err, archive.ErrConflict) {
		return refuseCluster(hideConflict(err))
	}
	return err
}

// hideConflict keeps the words and drops the kind: another database in the root is a mistake of configuration, not a
// second writer of the same history.
func hideConflict(err error) error { return errors.New(err.Error()) }

// claimTimeline takes the timeline if nobody has: the first of a root, or one that was promoted to.
func (g *guard) claimTimeline(ctx context.Context, inv *archive.Inventory, f facts, number uint64, start ship.Start) error {
	t := f.server.Timeline
	if c, ok := inv.Claims[t]; ok {
		if c.Epoch > number {
			return fmt.Errorf("timeline %d belongs to epoch %d: %w", t, c.Epoch, epoch.ErrSuperseded)
		}
		return nil
	}
	c := archive.TimelineClaim{Timeline: t, Epoch: number, Switch: start.Durable, ClaimedAt: time.Now(), Instance: g.writer.Instance}
	if n := len(f.files.history); n > 0 {
		c.Parent, c.Switch = f.files.history[n-1].Parent, f.files.history[n-1].LSN
	}
	c.Target, c.From = g.restoredFrom()
	if err := g.arch.ClaimTimeline(ctx, c); err != nil {
		return err
	}
	g.note("timeline_claimed", "timeline", t, "parent", c.Parent, "switch", c.Switch.String())
	return nil
}

func (g *guard) newVoyage(conn *postgres.Conn, f facts, e archive.Epoch, start ship.Start, snapshots []archive.Backup) (*voyage, error) {
	v := &voyage{guard: g, conn: conn, facts: f, epoch: e, snapshots: snapshots, gapFrom: start.GapFrom, done: make(chan struct{}), caughtUp: make(chan struct{})}
	owners := start.Owners
	if e.Timeline == f.server.Timeline {
		owners = owners.With(e)
	}
	v.ship = ship.New(ship.Config{
		Size: f.server.SegmentSize, Epoch: e.Number, Timeline: f.server.Timeline, Durable: start.Durable, SealFrom: start.SealFrom, SameFrom: start.SameFrom(),
		Chunks: start.Chunks, Owners: owners, Store: g.arch.WAL(f.server.SegmentSize), Open: f.files.open, Owner: v.owner, Log: g.log, Metrics: g.ships,
	})
	v.keeper = epoch.NewKeeper(g.arch, e, v.ship.Durable, g.log)
	if conn == nil {
		return v, nil
	}
	v.look = &positions{ask: conn.Position}
	var err error
	v.tail, err = tail.New(tail.Config{
		Dir: g.dir.walDir(), Size: f.server.SegmentSize, Interval: g.policy.RPO / flushShare, Pace: g.pace, Server: flushed{conn}, Log: g.log,
		Registerer: g.reg,
	})
	return v, err
}
