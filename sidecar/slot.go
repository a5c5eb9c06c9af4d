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
	dropped       bool // given up because Postgres kept too much WAL
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
		over, err := k.overBacklog(ctx, keep)
		if err != nil || over {
			return err
		}
	} else if k.dropped {
		// What went meanwhile is found missing when it is read, and is then a gap.
		k.dropped = false
		k.note("slot_made_again")
		k.settle()
		return k.ensureSlot(ctx, k.conn)
	}
	if k.dropped || keep == k.last && time.Since(k.touched) < slotTouch {
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

// behind tells whether the archive does not take WAL as it comes.
func (k *slotKeeper) behind() bool {
	age, known := k.tail.Age(k.ship.Durable().LSN)
	_, err := k.ship.Trouble()
	return err != nil || known && age > lagLeast
}

// overBacklog looks how much WAL Postgres keeps while the archive does not take it. What happens at the bound is the
// policy's decision: a full volume stops the database, a dropped slot makes a gap in the archive.
func (k *slotKeeper) overBacklog(ctx context.Context, keep wal.LSN) (over bool, err error) {
	limit := k.policy.MaxWALBacklog
	if limit.Bytes <= 0 || k.dropped {
		return k.dropped, nil
	}
	p, err := k.conn.Position(ctx)
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
	if err := k.conn.DropSlot(ctx, slotName); err != nil {
		return false, err
	}
	k.dropped = true
	k.slot.Store(nil)
	reason := fmt.Sprintf("the archive has not taken WAL from %s on, and Postgres kept %d bytes of it, more than max-wal-backlog %s: the replication slot was dropped, so that the volume does not fill up. A new snapshot is taken if WAL is missing when the archive is back",
		keep, kept, limit)
	k.note("slot_dropped", "reason", reason)
	k.log.Error("the replication slot was given up", "kept_bytes", kept, "limit", limit.String())
	k.board.set(stateRefused, reason)
	return true, nil
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
