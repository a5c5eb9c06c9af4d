package drain

import (
	"context"
	"errors"
	"fmt"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

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

// shipFiles is shipValid for a directory of which nothing else is known yet.
func (f *Finisher) shipFiles(ctx context.Context) error {
	c, err := f.Local.Control()
	if err == nil {
		err = f.same(c)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAll, err)
	}
	_, err = f.shipValid(ctx)
	return err
}
