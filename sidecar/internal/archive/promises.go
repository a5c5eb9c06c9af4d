package archive

import (
	"context"
	"errors"
	"io/fs"
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// Promises is how far writers said that their WAL was durable, by timeline.
type Promises map[wal.Timeline]wal.LSN

// Of how many epochs Promises looks for the writer's word: a restore claims one, and may be interrupted before it writes.
const epochsAsked = 16

// Promises reads how far the last two writers said that their WAL was durable, in heartbeats and receipts. An archive that
// has less than that has lost something. One that has more has lost something too if there is a hole in that, unless the
// writer itself can have left it (Stray). Who compares them with an Inventory reads them before it, so that a writer that
// goes on meanwhile makes no promise look broken.
func (a *Archive) Promises(ctx context.Context) (Promises, error) {
	epochs, err := a.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	said := Promises{}
	for writers, i := 0, len(epochs)-1; i >= max(0, len(epochs)-epochsAsked) && writers < 2; i-- {
		word := false
		h, _, err := a.Heartbeat(ctx, epochs[i].Number)
		if err == nil {
			said[h.Timeline], word = max(said[h.Timeline], h.Durable), true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		r, err := a.Receipt(ctx, epochs[i].Number)
		if err == nil {
			said[r.Timeline], word = max(said[r.Timeline], r.Durable), true
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if word {
			writers++
		}
	}
	return said, nil
}

// Forgotten finds the timeline of the newest epoch if the newest branch leaves it out although its writer has said that
// some of it was durable: its objects have been lost since.
func (inv *Inventory) Forgotten(newest Branch, said Promises) (c TimelineClaim, ok bool) {
	for _, other := range inv.Claims {
		if other.Epoch > c.Epoch || other.Epoch == c.Epoch && other.Timeline > c.Timeline {
			c = other
		}
	}
	on := slices.ContainsFunc(newest.Legs, func(g Leg) bool { return g.Timeline == c.Timeline })
	return c, c.Timeline != 0 && said[c.Timeline] > c.Switch && !on
}
