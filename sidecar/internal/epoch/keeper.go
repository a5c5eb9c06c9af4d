package epoch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// How often a writer asks whether it is still the owner while it ships, and how often it shows a sign of life and asks
// when nothing moves. The second is the only cause of requests of an idle database: two a minute.
const (
	CheckInterval = 5 * time.Second
	BeatInterval  = time.Minute
)

// Keeper watches over one epoch. All methods are safe for concurrent use.
type Keeper struct {
	store   Store
	epoch   uint64
	durable func() wal.Position
	log     *slog.Logger
	lost    atomic.Bool
	asked   atomic.Pointer[time.Time]
	leaves  atomic.Pointer[time.Time] // by when it has left; nil as long as it was not asked to
	woken   chan struct{}
}

// NewKeeper watches over epoch e, which the caller owns. durable is asked for the position that heartbeats carry, and
// to see whether anything moves.
func NewKeeper(store Store, e archive.Epoch, durable func() wal.Position, log *slog.Logger) *Keeper {
	return &Keeper{store: store, epoch: e.Number, durable: durable, log: log, woken: make(chan struct{}, 1)}
}

// Leave says in heartbeats from now on that the writer is coming to an orderly end, which takes until then at the most.
// Whoever is to go on with the database does not take it over meanwhile: a ReplicaSet makes the next pod while the one
// before is still stopping. It returns at once.
func (k *Keeper) Leave(until time.Time) {
	k.leaves.Store(&until)
	select {
	case k.woken <- struct{}{}:
	default: // it is about to be heard
	}
}

// Left says in a last heartbeat that the writer has come to its end.
func (k *Keeper) Left(ctx context.Context) error {
	k.leaves.Store(nil)
	return k.beat(ctx, k.durable())
}

// leaving is for how long whoever waits for the end may believe that it is coming: until soon after the next heartbeat
// should have been there, as the writer may be killed meanwhile.
func (k *Keeper) leaving() time.Duration {
	until := k.leaves.Load()
	if until == nil {
		return 0
	}
	return max(0, min(time.Until(*until), 3*CheckInterval))
}

// Check asks the archive whether the epoch is still the newest: nil, ErrSuperseded, or that it could not be told.
func (k *Keeper) Check(ctx context.Context) error {
	if k.lost.Load() {
		return fmt.Errorf("epoch %d: %w", k.epoch, ErrSuperseded)
	}
	began := time.Now()
	higher, err := k.store.EpochAfter(ctx, k.epoch)
	if err != nil {
		return fmt.Errorf("asking whether epoch %d is still the newest: %w", k.epoch, err)
	}
	if higher {
		k.lost.Store(true)
		return fmt.Errorf("epoch %d: %w", k.epoch, ErrSuperseded)
	}
	k.asked.Store(&began)
	return nil
}

// Confirmed is when the archive was last asked and said that the epoch is the newest; the zero time if it never was.
func (k *Keeper) Confirmed() time.Time {
	if at := k.asked.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// Run checks and beats until ctx ends (nil) or the epoch is superseded (ErrSuperseded). That the archive cannot be
// asked changes nothing: only a higher epoch that was seen does.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(CheckInterval)
	defer tick.Stop()
	var beat time.Time
	var last wal.Position
	for {
		at := k.durable()
		due := time.Since(beat) >= BeatInterval || k.leaving() > 0
		if due || at != last {
			if err := k.once(ctx, at, due); errors.Is(err, ErrSuperseded) {
				return err
			} else if err != nil && ctx.Err() == nil {
				k.log.Warn("the archive cannot be asked who owns it", "epoch", k.epoch, "error", err)
			}
			last = at
			if due {
				beat = time.Now()
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-k.woken:
		}
	}
}

func (k *Keeper) once(ctx context.Context, at wal.Position, beat bool) error {
	if err := k.Check(ctx); err != nil {
		return err
	}
	if !beat {
		return nil
	}
	return k.beat(ctx, at)
}

func (k *Keeper) beat(ctx context.Context, at wal.Position) error {
	return k.store.Beat(ctx, archive.Heartbeat{
		Epoch: k.epoch, Timeline: at.Timeline, Durable: at.LSN, Interval: BeatInterval.Seconds(), Leaving: k.leaving().Seconds(),
	})
}
