package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Local is what can be read from the data directory without a server.
type Local interface {
	// Alive tells whether a postmaster lives on the directory. An error means that it could not be told.
	Alive(ctx context.Context) (bool, error)
	Control() (wal.Control, error)
	// ShutdownEnd is the end of the shutdown checkpoint record that c points at, if it is one.
	ShutdownEnd(c wal.Control) (wal.LSN, error)
	// ValidEnd is the end of the last complete record at or after from, after an fsync of the files.
	ValidEnd(from wal.Position) (wal.LSN, error)
}

// Shipper is the shipping that has stopped following the server.
type Shipper interface {
	Durable() wal.Position
	ShipTo(ctx context.Context, to wal.LSN) error
	// SealRest stores the segments that lie in chunks as whole ones, the last one padded if the stop was clean.
	SealRest(ctx context.Context, clean bool) error
	Sweep(ctx context.Context) error
}

// Receipts stores how the epoch ended.
type Receipts interface {
	PutReceipt(ctx context.Context, r archive.Receipt) error
}

// Finisher runs Finish.
type Finisher struct {
	Local    Local
	Ship     Shipper
	Receipts Receipts
	Server   Server // nil if there is no session any more
	// SystemIdentifier is that of the server whose WAL was shipped.
	SystemIdentifier uint64
	// Compare finds out whether the local WAL before the durable position is what was shipped: an error says that it is not,
	// or that it could not be told.
	Compare func() error
	// Linger is how long a Postgres that still lives is waited for after everything flushed was shipped: at the end of a
	// grace period both are told to go at once, and Postgres may be gone a moment later.
	Linger time.Duration
	Log    *slog.Logger
}

// ErrNotAll says that not everything that was committed locally could be made durable.
var ErrNotAll = errors.New("not everything that was committed could be shipped")

// ErrOther says that the data directory is not, or not surely, the one whose WAL was shipped.
var ErrOther = errors.New("the data directory is not the one that was shipped")

// Finish ships what is left and writes the receipt: shipping first, receipt second. r carries what the caller knows
// (epoch, writer, times). The returned receipt says clean only if the files prove it. An error means that something
// committed is not in the archive, or that it could not be told.
func (f *Finisher) Finish(ctx context.Context, r archive.Receipt) (archive.Receipt, error) {
	alive, err := f.Local.Alive(ctx)
	if err == nil && alive {
		err = f.shipFlushed(ctx)
		r.Reason = "Postgres was still running when the sidecar was told to go"
		r, alive, err = f.linger(ctx, r, err)
	}
	if err != nil {
		r.Reason = "it could not be told whether Postgres has stopped: " + err.Error()
	} else if !alive {
		r, err = f.stopped(ctx, r)
	}
	r.Durable, r.Timeline = f.Ship.Durable().LSN, f.Ship.Durable().Timeline
	r.FinishedAt = time.Now()
	if perr := f.Receipts.PutReceipt(ctx, r); perr != nil {
		err = errors.Join(err, fmt.Errorf("writing the receipt of epoch %d: %w", r.Epoch, perr))
	}
	f.sealRest(ctx, r.Clean, err)
	if serr := f.Ship.Sweep(ctx); serr != nil {
		f.Log.Warn("chunks of sealed segments stay", "error", serr)
	}
	f.Log.Info("the stop is over", "clean", r.Clean, "reason", r.Reason, "durable", r.Durable.String(), "epoch", r.Epoch)
	return r, err
}

// sealRest comes after the receipt: only tools that know no chunks need it. Other files than those that were shipped have
// nothing to seal.
func (f *Finisher) sealRest(ctx context.Context, clean bool, outcome error) {
	err := outcome
	if !errors.Is(outcome, ErrOther) {
		err = f.Ship.SealRest(ctx, clean)
	}
	if err != nil {
		f.Log.Warn("the last segments are in the archive as chunks only", "error", err)
	}
}

func (f *Finisher) shipFlushed(ctx context.Context) error {
	if f.Server == nil {
		return nil
	}
	at, err := f.Server.Flushed(ctx)
	if err != nil {
		return nil //nolint:nilerr // the server went away between two questions; linger looks again
	}
	if at.Timeline != f.Ship.Durable().Timeline {
		return fmt.Errorf("%w: Postgres is on timeline %d, shipped was %d", ErrNotAll, at.Timeline, f.Ship.Durable().Timeline)
	}
	// The server may be another one by now, on a directory that was put in the place of the one before.
	if err := f.Compare(); err != nil {
		return fmt.Errorf("%w: %w: %w", ErrNotAll, ErrOther, err)
	}
	return f.Ship.ShipTo(ctx, at.LSN)
}

// linger writes the receipt "interrupted" at once, since there may be no more time, and then waits a moment for Postgres.
func (f *Finisher) linger(ctx context.Context, r archive.Receipt, shipErr error) (archive.Receipt, bool, error) {
	r.Durable, r.Timeline, r.FinishedAt = f.Ship.Durable().LSN, f.Ship.Durable().Timeline, time.Now()
	if err := f.Receipts.PutReceipt(ctx, r); err != nil {
		f.Log.Warn("the receipt could not be written yet", "error", err)
	}
	end := time.Now().Add(f.Linger)
	for time.Now().Before(end) {
		alive, err := f.Local.Alive(ctx)
		if err != nil || !alive {
			return r, alive, err
		}
		select {
		case <-ctx.Done():
			return r, true, context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	return r, true, shipErr
}

// stopped ships the rest of a directory on which nothing runs, and tells whether that was a clean stop.
func (f *Finisher) stopped(ctx context.Context, r archive.Receipt) (archive.Receipt, error) {
	c, err := f.Local.Control()
	if err != nil {
		r.Reason = "pg_control could not be read"
		return r, fmt.Errorf("%w: %w", ErrNotAll, err)
	}
	r.State = c.State.String()
	if err := f.same(c); err != nil {
		r.Reason = err.Error()
		return r, fmt.Errorf("%w: %w", ErrNotAll, err)
	}
	if c.State == wal.StateShutDown {
		return f.clean(ctx, r, c)
	}
	r.Reason = fmt.Sprintf("Postgres did not shut down cleanly: pg_control says %q", r.State)
	r.LocalEnd, err = f.shipValid(ctx)
	return r, err
}

// same refuses a directory that was put in the place of the one that was shipped: what another history has written is
// neither to follow on what is in the archive, nor does its stop prove anything.
func (f *Finisher) same(c wal.Control) error {
	if c.SystemIdentifier != f.SystemIdentifier {
		return fmt.Errorf("%w: pg_control has system identifier %d, shipped was %d", ErrOther, c.SystemIdentifier, f.SystemIdentifier)
	}
	if err := f.Compare(); err != nil {
		return fmt.Errorf("%w: %w", ErrOther, err)
	}
	return nil
}

func (f *Finisher) clean(ctx context.Context, r archive.Receipt, c wal.Control) (archive.Receipt, error) {
	end, err := f.Local.ShutdownEnd(c)
	if err != nil {
		r.Reason = "pg_control says shut down, but there is no valid shutdown checkpoint where it points"
		var serr error
		r.LocalEnd, serr = f.shipValid(ctx)
		return r, errors.Join(fmt.Errorf("%w: %w", ErrNotAll, err), serr)
	}
	r.Checkpoint, r.CheckpointEnd, r.LocalEnd = c.CheckPoint, end, end
	if tli := f.Ship.Durable().Timeline; c.CheckPointTimeline != tli {
		r.Reason = fmt.Sprintf("Postgres stopped on timeline %d, shipped was %d", c.CheckPointTimeline, tli)
		return r, fmt.Errorf("%w: %s", ErrNotAll, r.Reason)
	}
	if at := f.Ship.Durable().LSN; at > end {
		// Nothing is flushed after the checkpoint of a shutdown.
		r.Reason = fmt.Sprintf("%s: its shutdown checkpoint ends at %s, the archive holds WAL up to %s", ErrOther, end, at)
		return r, fmt.Errorf("%w: %w: its shutdown checkpoint ends at %s, the archive holds WAL up to %s", ErrNotAll, ErrOther, end, at)
	}
	if err := f.Ship.ShipTo(ctx, end); err != nil {
		r.Reason = "Postgres shut down cleanly, its last WAL could not be shipped"
		return r, fmt.Errorf("%w: shipping up to the shutdown checkpoint's end %s: %w", ErrNotAll, end, err)
	}
	if at := f.Ship.Durable().LSN; at < end {
		r.Reason = "Postgres shut down cleanly, its last WAL is not durable"
		return r, fmt.Errorf("%w: durable up to %s, the shutdown checkpoint ends at %s", ErrNotAll, at, end)
	}
	r.Clean, r.Reason = true, "Postgres shut down cleanly and its shutdown checkpoint is in the archive"
	return r, nil
}

// shipValid ships what validates of a directory that was not shut down cleanly, and returns its end.
func (f *Finisher) shipValid(ctx context.Context) (wal.LSN, error) {
	end, err := f.Local.ValidEnd(f.Ship.Durable())
	if err != nil {
		return 0, fmt.Errorf("%w: finding the end of valid WAL: %w", ErrNotAll, err)
	}
	if err := f.Ship.ShipTo(ctx, end); err != nil {
		return end, fmt.Errorf("%w: shipping up to the end of valid WAL %s: %w", ErrNotAll, end, err)
	}
	return end, nil
}
