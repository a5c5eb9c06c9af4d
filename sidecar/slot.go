package main

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/wal"
)

// Slots are moved often enough that little WAL is kept, and touched often enough that 18 does not call them idle.
const (
	slotInterval = 5 * time.Second
	slotTouch    = time.Minute
)

// slotKeeper moves the replication slot of one voyage.
type slotKeeper struct {
	*voyage
	last          wal.LSN // where the slot was moved to
	touched, said time.Time
}

// keepSlot lets the server remove what is sealed. A lost slot is no reason to stop: the files decide.
func (v *voyage) keepSlot(ctx context.Context) error {
	tick := time.NewTicker(slotInterval)
	defer tick.Stop()
	k := slotKeeper{voyage: v}
	if s, err := v.conn.Slot(ctx, slotName); err == nil {
		v.slot.Store(slotOf(s))
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !v.conn.Alive() {
			k.holdAnew(ctx)
			continue
		}
		if err := k.step(ctx); err != nil && ctx.Err() == nil && v.conn.Alive() && time.Since(k.said) > time.Minute {
			k.said = time.Now()
			v.log.Warn("the replication slot could not be moved, Postgres keeps more or less WAL than needed", "error", err)
		}
	}
}

func (k *slotKeeper) step(ctx context.Context) error {
	keep := k.ship.Keep()
	if k.behind() {
		over, err := k.overBacklog(ctx, k.conn, keep)
		if k.dropped != "" {
			k.slot.Store(nil)
		}
		if err != nil || over {
			return err
		}
	} else if k.dropped != "" {
		// What went meanwhile is found missing when it is read, and is then a gap.
		if err := k.ensureSlot(ctx, k.conn); err != nil {
			return err
		}
		k.note("slot_made_again")
		k.settle()
		return nil
	}
	if k.dropped != "" || keep == k.last && time.Since(k.touched) < slotTouch {
		return nil
	}
	s, err := k.conn.AdvanceSlot(ctx, slotName, keep)
	switch {
	case err == nil:
		k.last, k.touched = keep, time.Now()
		k.slot.Store(slotOf(s))
	case errors.Is(err, postgres.ErrSlotLost), errors.Is(err, fs.ErrNotExist):
		return k.ensureSlot(ctx, k.conn)
	}
	return err
}

// holdAnew sees to the slot of a server that was restarted while the archive takes nothing: the voyage still waits for
// the archive then, and its own session is gone. Whatever it ends with, the next look is soon.
func (k *slotKeeper) holdAnew(ctx context.Context) {
	if !k.behind() {
		return // whoever follows the files will see that the server is back
	}
	conn, err := postgres.Connect(ctx, k.dir.pg)
	if err != nil {
		return // nothing is written without a server that takes sessions
	}
	defer conn.Close()
	if err := k.hold(ctx, conn); err != nil && !errors.Is(err, errBacklog) && ctx.Err() == nil && time.Since(k.said) > time.Minute {
		k.said = time.Now()
		k.log.Warn("the WAL of the restarted server is held without a look at max-wal-backlog, or not held", "error", err)
	}
}

// behind tells whether the archive does not take WAL as it comes.
func (k *slotKeeper) behind() bool {
	age, known := k.tail.Age(k.ship.Durable().LSN)
	_, err := k.ship.Trouble()
	return err != nil || known && age > lagLeast
}

// slotStatus is the replication slot and what bounds it, as the server last said.
type slotStatus struct {
	Status   string `json:"wal_status"` // of pg_replication_slots
	WALLevel string `json:"wal_level"`
	MaxSlots int    `json:"max_replication_slots"`
	// MaxKeep bounds the WAL that the server keeps for the slot; negative: it keeps what is needed.
	MaxKeep int64 `json:"max_slot_wal_keep_size_bytes"`
	// IdleTimeout is how long the slot may lie idle; 0: for ever.
	IdleTimeout float64   `json:"idle_replication_slot_timeout_seconds"`
	ReadAt      time.Time `json:"read_at"`
}

func slotOf(s postgres.Slot) *slotStatus {
	return &slotStatus{
		Status: s.Status, WALLevel: s.Limits.WALLevel, MaxSlots: s.Limits.MaxSlots, MaxKeep: s.Limits.MaxKeep,
		IdleTimeout: s.Limits.IdleTimeout.Seconds(), ReadAt: time.Now().UTC(),
	}
}
