package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// maiden is the search for the first commit of an epoch. With it the outage that began with the last stop is over for
// those who write. It outlives voyages: what was gone over is not read again.
type maiden struct {
	epoch    uint64
	timeline wal.Timeline
	from     wal.LSN   // where to look on
	since    time.Time // commits before are of another server; zero where there can be none
	ask      bool      // this process has not begun the epoch: another may have noted its first commit
	over     bool      // found, or not to be found
}

// maidenOf begins the search. An epoch that made its timeline owns all commits on it. One that goes on with the same
// disk has those that its server made, which only whoever has begun the epoch can tell from later ones.
func maidenOf(inv *archive.Inventory, f facts, e archive.Epoch, start wal.LSN, continued bool) *maiden {
	m := &maiden{epoch: e.Number, timeline: f.server.Timeline, ask: continued}
	c, claimed := inv.Claims[m.timeline]
	switch fork := f.files.history.Begin(); {
	case e.Number == 1: // nobody was here before, so nobody has waited for it
		m.over = true
	case claimed && c.Epoch == e.Number && c.Parent != 0:
		m.from = c.Switch
	case !claimed && fork != 0: // just now, by us
		m.from = fork
	case !continued:
		m.from, m.since = start, serverStarted(f.files.pgdata)
		m.over = m.since.IsZero()
	default:
		m.over = true
	}
	return m
}

// seek makes a search the present one, unless that of the same epoch is under way.
func (g *guard) seek(m *maiden) {
	if g.maiden == nil || g.maiden.epoch != m.epoch {
		g.maiden = m
	}
}

// fruitless is how often WAL is looked at in vain at one position before the search is given up. Each time more of it
// has become durable, so either a record is very long or the files have gone.
const fruitless = 100

// awaitFirstWrite notes the first commit of a new epoch once it is in the archive. Nothing waits for it, it ends with
// its context, and what it cannot read is no fault: the journal then lacks a line.
func (v *voyage) awaitFirstWrite(ctx context.Context) {
	m := v.maiden
	if m == nil || m.over || m.timeline != v.server.Timeline {
		return
	}
	c, err := v.firstWrite(ctx, m)
	if ctx.Err() != nil {
		return // the next voyage goes on
	}
	m.over = true
	if err != nil {
		v.log.Debug("the first commit of this epoch cannot be told", "epoch", m.epoch, "error", err)
	} else if c != nil {
		v.note(eventFirstWrite, "committed_at", c.at, "end", c.end.String(), "timeline", m.timeline)
	}
}

// firstWrite waits for the commit; nil if it was noted before.
func (v *voyage) firstWrite(ctx context.Context, m *maiden) (*commit, error) {
	if m.ask {
		list, err := v.arch.JournalIndex(ctx, m.epoch)
		if err != nil || slices.ContainsFunc(list, func(n archive.Noted) bool { return n.Event == eventFirstWrite }) {
			return nil, err
		}
		m.ask = false
	}
	wait := func(to wal.LSN) error {
		return v.ship.WaitDurable(ctx, wal.Position{Timeline: m.timeline, LSN: to})
	}
	for vain, to := 0, m.from; vain < fruitless; vain++ {
		if err := wait(max(to, m.from) + 1); err != nil {
			return nil, err
		}
		to = v.ship.Durable().LSN
		next, c, err := v.files.firstCommit(ctx, m.from, to, m.since)
		if err != nil {
			return nil, err
		}
		if next > m.from {
			m.from, vain = next, 0
		}
		if c != nil {
			return c, wait(c.end)
		}
	}
	return nil, fmt.Errorf("no record can be read at %s, and %d times more WAL has come", m.from, fruitless)
}
