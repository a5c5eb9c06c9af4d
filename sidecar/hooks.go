package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/drain"
)

// hooks are the preStop hooks that have come. A kubelet has nothing to show for itself, so anybody who reaches the port
// can call one. Each is answered with a preparation, for it may be honest. But what costs protection where no stop
// follows, such as leaving out snapshots, is done for a first one alone: one that nothing followed was a false alarm, and
// those after it are doubted.
type hooks struct {
	mu       sync.Mutex
	last     time.Time       // when the last one came
	served   <-chan struct{} // closed when the server has gone that ran then; nil if nothing was shipped
	believed time.Time       // until when one is believed
	notes    int             // about preparations, since one was last believed
	doubt    time.Time       // when a preparation was last noted that was asked for in doubt, or too often
}

const (
	// doubtFactor is how many grace periods after a false alarm hooks are doubted.
	doubtFactor = 10
	// hookNotes is how many preparations are noted of one stop. A pod has two hooks, or three with its user's own.
	hookNotes = 4
	// doubtInterval is the time between two notes of all other preparations: each is an object that is kept for good.
	doubtInterval = 10 * time.Minute
)

// came takes note of a hook. served is closed when the server that is being shipped has gone.
func (h *hooks) came(grace time.Duration, served <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.last.IsZero() || h.heeded() || now.Sub(h.last) >= (1+doubtFactor)*grace {
		h.believed, h.notes = now.Add(grace), 0
	}
	h.last, h.served = now, served
}

// heeded tells whether a stop followed the last hook.
func (h *hooks) heeded() bool {
	select {
	case <-h.served:
		return true
	default:
		return false // also of nil
	}
}

// within tells whether one came less than a grace period ago.
func (h *hooks) within(grace time.Duration) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.last.IsZero() && time.Since(h.last) < grace
}

func (h *hooks) believe() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Now().Before(h.believed)
}

// worthNoting tells whether a preparation that a hook asked for is noted, which is then counted.
func (h *hooks) worthNoting() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Before(h.believed) && h.notes < hookNotes {
		h.notes++
		return true
	}
	if !h.doubt.IsZero() && now.Sub(h.doubt) < doubtInterval {
		return false
	}
	h.doubt = now
	return true
}

// Why a preparation was asked for.
const (
	byNotice  = "notice"
	byPreStop = "prestop"
)

// onPreStop answers the hook of a kubelet that is about to stop Postgres.
func (g *guard) onPreStop(ctx context.Context) drain.Outcome {
	var served <-chan struct{}
	if v := g.current(); v != nil && !v.ended() {
		served = v.done
		v.keeper.Leave(time.Now().Add(g.policy.Grace)) // nobody is to take over meanwhile
	}
	g.hooks.came(g.policy.Grace, served)
	return g.prepareNow(ctx, byPreStop)
}

// prepareNow runs Prepare for a hook or a notice.
func (g *guard) prepareNow(ctx context.Context, reason string) drain.Outcome {
	return g.prepare.Prepare(ctx, reason, drain.Budget(g.policy.Grace))
}

// prepared is told of each preparation once.
func (g *guard) prepared(o drain.Outcome) {
	g.board.prepared(o)
	if o.Reason == byPreStop && !g.hooks.worthNoting() {
		return
	}
	level := slog.LevelInfo
	if o.Err != nil || o.NoCheckpoint != nil {
		level = slog.LevelWarn
	}
	g.log.Log(context.Background(), level, "prepared for a stop", "reason", o.Reason, "complete", o.Complete(),
		"wanted", o.Wanted.String(), "durable", o.Durable.String(), "seconds", o.TookSeconds, "no_checkpoint", o.NoCheckpoint, "error", o.Err)
	attrs := []any{
		"reason", o.Reason, "complete", o.Complete(), "checkpointed", o.Checkpointed, "durable", o.Durable.String(), "seconds", o.TookSeconds,
		"started_at", o.Started.UTC(), "checkpoint_seconds", o.Checkpoint,
	}
	if o.Err != nil {
		attrs = append(attrs, "error", o.Err.Error())
	}
	g.note(eventPrepared, attrs...)
}

// wasAsked tells whether a stop of Postgres is one for good: a notice stands, or a hook has come, believed or not, and
// the grace period that began with it is not over.
func (g *guard) wasAsked() bool { return g.noticeStands() || g.hooks.within(g.policy.Grace) }

// awaitsStop tells whether Postgres is about to be stopped for good, so that nothing else is begun or saved.
func (g *guard) awaitsStop() bool { return g.noticeStands() || g.hooks.believe() }

func (g *guard) noticeStands() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.noticed != nil
}
