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
	// Owner asks whether the archive is still this writer's: ErrOvertaken says that it is another one's, any other error
	// that it could not be told. Nil where nobody else can be.
	Owner func(ctx context.Context) error
	// Linger is how long a Postgres that still lives is waited for after everything flushed was shipped: at the end of a
	// grace period both are told to go at once, and Postgres may be gone a moment later.
	Linger time.Duration
	Log    *slog.Logger
}

// ErrNotAll says that not everything that was committed locally could be made durable.
var ErrNotAll = errors.New("not everything that was committed could be shipped")

// ErrOther says that the data directory is not, or not surely, the one whose WAL was shipped.
var ErrOther = errors.New("the data directory is not as it was shipped")

// ErrOvertaken says that another writer has taken over the archive.
var ErrOvertaken = errors.New("another writer had taken over the archive before the stop was over")

// Finish ships what is left and writes the receipt: shipping first, receipt second. r carries what the caller knows
// (epoch, writer, times). The returned receipt says clean only if the files prove it and the archive was this writer's
// to the end. An error means that something committed is not in the archive, or that it could not be told.
func (f *Finisher) Finish(ctx context.Context, r archive.Receipt) (archive.Receipt, error) {
	r, err := f.ship(ctx, r)
	r, err = f.owned(ctx, r, err)
	r.Durable, r.Timeline = f.Ship.Durable().LSN, f.Ship.Durable().Timeline
	r.FinishedAt = time.Now()
	if perr := f.Receipts.PutReceipt(ctx, r); perr != nil {
		err = errors.Join(err, fmt.Errorf("writing the receipt of epoch %d: %w", r.Epoch, perr))
	}
	if !r.Superseded { // else the archive is another one's to put in order
		f.sealRest(ctx, r.Clean, err)
		if serr := f.Ship.Sweep(ctx); serr != nil {
			f.Log.Warn("chunks of sealed segments stay", "error", serr)
		}
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

// ship ships all that can be told to be final. Whether Postgres lives is asked meanwhile: one that hangs does not answer
// before its time is over, and there may be less.
func (f *Finisher) ship(ctx context.Context, r archive.Receipt) (archive.Receipt, error) {
	asked := make(chan answer, 1)
	go func() {
		alive, err := f.Local.Alive(ctx)
		asked <- answer{alive, err}
	}()
	shipErr := f.shipFlushed(ctx)
	a := f.await(ctx, asked, r)
	switch {
	case a.err != nil:
		return f.untold(ctx, r, errors.Join(a.err, shipErr))
	case !a.alive:
		return f.stopped(ctx, r)
	}
	r.Reason = "Postgres was still running when the sidecar was told to go"
	r, alive, err := f.linger(ctx, r, shipErr)
	switch {
	case err != nil && alive:
		r.Reason += ": " + err.Error()
	case err != nil:
		return f.untold(ctx, r, err)
	case !alive:
		return f.stopped(ctx, r)
	}
	return r, err
}

// answer is whether Postgres lives; err says that it could not be told.
type answer struct {
	alive bool
	err   error
}

// answerSoon is how long an answer is waited for before a receipt is written without it.
const answerSoon = 200 * time.Millisecond

// await waits for the answer. If there is none soon, the receipt that says so is there before all time is over.
func (f *Finisher) await(ctx context.Context, asked <-chan answer, r archive.Receipt) answer {
	select {
	case a := <-asked:
		return a
	case <-time.After(answerSoon):
	}
	r.Reason = "Postgres had not said whether it still ran when the sidecar was told to go"
	f.interim(ctx, r)
	return <-asked
}

// interim writes a receipt that is not the last word.
func (f *Finisher) interim(ctx context.Context, r archive.Receipt) {
	r.Durable, r.Timeline, r.FinishedAt = f.Ship.Durable().LSN, f.Ship.Durable().Timeline, time.Now()
	if err := f.Receipts.PutReceipt(ctx, r); err != nil {
		f.Log.Warn("the receipt could not be written yet", "error", err)
	}
}

// untold is the end when it cannot be told whether Postgres has stopped. What validates on the disk is final all the
// same, once it is synced; but more may come, so the receipt names no local end.
func (f *Finisher) untold(ctx context.Context, r archive.Receipt, why error) (archive.Receipt, error) {
	r.Reason = "it could not be told whether Postgres has stopped: " + why.Error()
	return r, errors.Join(why, f.shipFiles(ctx))
}

// flushedSoon is how long a server is given to say how far it has flushed.
const flushedSoon = time.Second

// shipFlushed ships what the server says is flushed or, where it does not say, what validates on the disk: a server that
// lives may not be asked any more.
func (f *Finisher) shipFlushed(ctx context.Context) error {
	var at wal.Position
	err := errors.New("there is no session")
	if f.Server != nil {
		soon, cancel := context.WithTimeoutCause(ctx, flushedSoon, errors.New("the server did not say in time how far WAL is flushed"))
		at, err = f.Server.Flushed(soon)
		cancel()
	}
	if err != nil {
		return f.shipFiles(ctx)
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
// An error with alive is what kept WAL from being shipped; without, it says that it cannot be told any more.
func (f *Finisher) linger(ctx context.Context, r archive.Receipt, shipErr error) (archive.Receipt, bool, error) {
	f.interim(ctx, r)
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
