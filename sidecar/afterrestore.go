package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/ship"
)

// restoredFrom tells which restore the running server came out of: its target, unless that was the latest position,
// and the other root that it came from.
func (g *guard) restoredFrom() (target, from string) {
	m, err := restore.ReadMarker(g.dir.pgdata)
	if err != nil {
		return "", ""
	}
	// "latest@1" is a point in the past too: another branch was the newest.
	if t := m.Plan.Target.String(); t != "latest" {
		target = t
	}
	if m.Plan.SystemIdentifier != 0 {
		from = g.policy.RestoreFrom
	}
	return target, from
}

// errStaleReads says that the server takes sessions while it recovers from a restore.
var errStaleReads = errors.New("clients can read rows as they were before the end of the recovery: a restore sets hot_standby to off, and the server's command line or environment sets it to on again. Take that away")

// inRecovery is for a server that has told us, in a session, that it recovers. One that came out of a restore must not
// take sessions by then; a standby of somebody's may.
func (g *guard) inRecovery() error {
	if s, err := restore.Inspect(g.dir.pgdata); err == nil && s == restore.Recovering {
		return errStaleReads
	}
	return postgres.ErrInRecovery
}

// settleRestore takes away what a restore left for the time of recovery, once that is over and what was written since is
// in the archive. What cannot be taken away does no harm to a running primary, so it is only said. The marker of a fork
// says that nothing older can be gone back to, so it stays until there is a snapshot. In a pod the data directory is
// read-only for the sidecar and every marker stays: there the settings that are gone tell that all this was done before.
func (g *guard) settleRestore(ctx context.Context, conn *postgres.Conn, snapshot bool) {
	g.restored.Lock()
	defer g.restored.Unlock()
	m, err := restore.ReadMarker(g.dir.pgdata)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		g.log.Warn("the marker of a restore cannot be read", "error", err)
		return
	}
	left := settingsLeft(ctx, conn)
	if len(left) > 0 {
		if err := conn.ResetSettings(ctx, left...); err != nil {
			g.log.Warn("the settings of the restore stay in postgresql.auto.conf; they matter only to the next recovery, remove them by hand", "error", err)
			return
		}
		g.noteRestored(m)
	}
	g.arrived(m, len(left) > 0)
	if !m.Fork || snapshot {
		g.dropMarker()
	}
}

// settingsLeft are the names of the settings of a restore that are still there; where it cannot be told, all.
func settingsLeft(ctx context.Context, conn *postgres.Conn) []string {
	all, err := conn.Settings(ctx)
	if err != nil {
		return restore.RecoverySettings()
	}
	return restore.LeftSettings(all)
}

func (g *guard) noteRestored(m restore.Marker) {
	var short error
	if v := g.current(); v != nil && !m.Fork {
		if short = m.Plan.Arrived(v.facts.files.history.Begin()); short != nil {
			g.log.Error("the recovery ended before the end of the archive", "error", short)
			g.note(eventRestoredShort, "error", short.Error())
		}
	}
	attrs := []any{
		"snapshot", m.Plan.Snapshot.Name, "timeline", m.Plan.Timeline, "end", m.Plan.End.String(), "target", m.Plan.Target.String(),
		"missing", m.Plan.Missing, "started_at", m.StartedAt, "seconds", time.Since(m.StartedAt).Seconds(),
	}
	if m.UnpackedAt != nil {
		attrs = append(attrs, "unpacked_at", m.UnpackedAt.UTC())
	}
	if m.ReadyAt != nil {
		attrs = append(attrs, "ready_at", m.ReadyAt.UTC())
	}
	if at := m.Plan.LastCommit; !at.IsZero() {
		attrs = append(attrs, "last_commit", at.UTC())
	}
	g.note(eventRestored, attrs...)
	g.reportRestored(m, short)
}

// Phases of a restore, as metrics and status name them.
const (
	phaseSnapshot = "snapshot" // fetched and unpacked
	phasePrepare  = "prepare"  // files synced, the spool begun
	phaseReplay   = "replay"   // from there until the server was seen to be promoted, its start included
)

// arrived notes how long the restore took, as far as its marker says. Whether it ends now is known only to whoever took
// its settings out.
func (g *guard) arrived(m restore.Marker, now bool) {
	if m.Fork || m.UnpackedAt == nil || m.ReadyAt == nil {
		return
	}
	a := arrival{Snapshot: m.Plan.Snapshot.Name, Started: m.StartedAt, Phases: map[string]float64{
		phaseSnapshot: m.UnpackedAt.Sub(m.StartedAt).Seconds(), phasePrepare: m.ReadyAt.Sub(*m.UnpackedAt).Seconds(),
	}}
	if now {
		a.Finished = time.Now().UTC()
		a.Phases[phaseReplay] = a.Finished.Sub(*m.ReadyAt).Seconds()
	}
	g.board.update(func(r *statusReport) {
		if r.Restored == nil || now {
			r.Restored = &a
		}
	})
}

func (g *guard) dropMarker() {
	switch err := restore.Finish(g.dir.pgdata); {
	case errors.Is(err, syscall.EROFS):
		g.log.Info("the marker of the restore stays in a data directory that is read-only here")
	case err != nil:
		g.log.Warn("the marker of the restore stays", "error", err)
	}
}

// accompany is what there is to do beside a throw-away clone: to see its restore to the end. Nothing is archived.
func (g *guard) accompany(soft context.Context) error {
	g.board.set(stateClone, "archiving is off: nothing of this server is kept")
	for soft.Err() == nil && !g.accompanied(soft) {
		select {
		case <-soft.Done():
		case <-time.After(retryInterval):
		}
	}
	<-soft.Done()
	return nil
}

func (g *guard) accompanied(ctx context.Context) bool {
	conn, err := postgres.Connect(ctx, g.dir.pg)
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := conn.Position(ctx); err != nil {
		return false // it still replays
	}
	g.settleRestore(ctx, conn, true)
	return true
}

// openSource opens the archive that a restore reads from.
type openSource func(ctx context.Context) (*archive.Archive, error)

// notPassed is ship.ErrStale if somebody else has gone on with the database since its restore on this disk began, which only
// restore --auto looks at before a server starts. Any other error says that it could not be told.
func (g *guard) notPassed(ctx context.Context, src *archive.Archive, m restore.Marker) error {
	if m.Epoch == 0 {
		return nil // a copy, or by hand
	}
	all, err := src.Epochs(ctx)
	if err != nil {
		return err
	}
	writer, err := g.identify()
	if err != nil {
		return err
	}
	if e := passed(all, m, writer); e != nil {
		return fmt.Errorf("%w: epoch %d was claimed by %s since the restore in this directory began: stop the server, and run outrider restore --auto, which begins it anew",
			ship.ErrStale, e.Number, epoch.Describe(e.Writer))
	}
	return nil
}

// sourceOf opens the archive that a restore goes on from, however long that takes. It is ship.ErrStale if the restore was
// passed by another writer: then no WAL is laid, and the server waits until it gives up.
func (g *guard) sourceOf(ctx context.Context, m restore.Marker, open openSource) (*archive.Archive, error) {
	for {
		src, err := open(ctx)
		if err == nil {
			err = g.notPassed(ctx, src, m)
		}
		if err == nil || errors.Is(err, ship.ErrStale) {
			return src, err
		}
		g.log.Warn("the archive of the restore cannot be asked yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(refusedInterval):
		}
	}
}

// fillSpool lays the WAL of an unfinished restore for as long as the server replays. What ends it badly has been told
// to the server too, which then stops instead of being promoted with data missing.
func (g *guard) fillSpool(ctx context.Context, open openSource) error {
	m, err := restore.ReadMarker(g.dir.pgdata)
	if errors.Is(err, fs.ErrNotExist) || err == nil && m.Phase != restore.PhaseRecovering {
		return nil
	}
	var src *archive.Archive
	if err == nil {
		src, err = g.sourceOf(ctx, m, open)
	}
	if err == nil {
		_, err = restore.Fill(ctx, src, restore.FillOptions{Dir: g.dir.pgdata, Ahead: aheadWAL, Log: g.log})
	}
	if err != nil && ctx.Err() == nil {
		g.log.Error("the WAL for the recovery cannot be fetched", "error", err)
		g.note(eventRestoreFailed, "error", err.Error())
		g.board.set(stateRefused, err.Error())
	}
	return nil
}
