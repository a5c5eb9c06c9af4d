package main

import (
	"context"
	"errors"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/internal/wal"
)

// takeSnapshots takes one when it is due: at once if there is none, then by the schedule. A snapshot that fails is no
// reason to stop shipping.
func (v *voyage) takeSnapshots(ctx, soft context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A snapshot that is under way at a stop cannot be finished, and competes with what has to be.
	defer context.AfterFunc(soft, func() { cancel(errStopping) })()
	schedule, err := basebackup.ParseSchedule(v.policy.BackupSchedule)
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-v.caughtUp: // the settings of a restore would go into the snapshot
	}
	for ctx.Err() == nil {
		v.lookAfterSnapshots(ctx, time.Now())
		s := v.situation(ctx, time.Now())
		d := schedule.Decide(s)
		if v.awaitsStop() {
			d = basebackup.Decision{At: s.Now.Add(mendInterval)} // unless it turns out to live on
		}
		switch d.Action {
		case basebackup.Wait:
			select {
			case <-ctx.Done():
			case <-time.After(d.At.Sub(s.Now)):
			}
		case basebackup.Skip:
			v.skip(d.Reason, s.Now)
		case basebackup.Begin:
			v.attempt(ctx, d.Reason)
		}
	}
	return nil
}

// skip leaves a snapshot out. The journal has only the first of many: an idle database is to cause no requests.
func (v *voyage) skip(reason string, now time.Time) {
	v.lastLooked = now
	if v.skipped {
		v.log.Info("a snapshot is left out", "reason", reason)
		return
	}
	v.skipped = true
	v.note("snapshot_skipped", "reason", reason)
}

// attempt takes one snapshot and notes how it went.
func (v *voyage) attempt(ctx context.Context, why string) {
	began := time.Now()
	v.lastLooked, v.skipped = began, false
	v.log.Info("a snapshot begins", "reason", why)
	err := v.takeOne(ctx)
	giveBack()
	v.took = time.Since(began)
	v.failed = time.Time{}
	if err == nil || ctx.Err() != nil {
		return
	}
	v.failed = time.Now()
	v.log.Error("the snapshot was not taken, it is tried again", "error", err)
	v.note("snapshot_failed", "error", err.Error())
	v.board.update(func(r *statusReport) { r.SnapshotTrouble = err.Error() })
	if !v.haveSnapshot() {
		v.board.set(stateNoSnapshot, "there is no snapshot to start from: "+err.Error())
	}
}

// situation is what the decision about the next snapshot rests on.
func (v *voyage) situation(ctx context.Context, now time.Time) basebackup.Situation {
	v.mu.Lock()
	s := basebackup.Situation{
		Now: now, Last: v.lastLooked, Taken: len(v.snapshots) > 0, Gap: v.gapFrom != 0, Failed: v.failed, Took: v.took, RTO: v.policy.RTO,
	}
	var last *archive.Backup
	if s.Taken {
		last = &v.snapshots[len(v.snapshots)-1]
	}
	v.mu.Unlock()
	if last == nil {
		return s
	}
	durable := v.ship.Durable()
	if s.Last.IsZero() {
		s.Last = beganAt(*last)
	}
	// Told by the clock of a writer that was ahead, or by ours before it was set back, or it would not be due for as long.
	if s.Last.Round(0).After(now.Round(0)) { // without the monotonic clock: the schedule goes by the other
		s.Last, v.lastLooked = now, now
	}
	s.Load = basebackup.Load{Raw: unpacked(*last), WAL: distance(last.Start(), durable.LSN)}
	s.Unchanged = v.unchanged(ctx, *last, durable)
	return s
}

// unpacked is how many bytes a restore from a snapshot unpacks, all that it is built on included.
func unpacked(b archive.Backup) int64 {
	if b.Manifest == nil {
		return b.Sentinel.UncompressedSize
	}
	raw, _ := b.Manifest.Restored()
	return raw
}

func beganAt(b archive.Backup) time.Time {
	if b.Manifest != nil {
		return b.Manifest.StartTime
	}
	return b.ModTime
}

// unchanged tells whether nothing but bookkeeping was written since the last snapshot. Where it cannot be told, no.
func (v *voyage) unchanged(ctx context.Context, last archive.Backup, durable wal.Position) bool {
	if last.Timeline() != durable.Timeline || last.Stop() == 0 || ctx.Err() != nil {
		return false
	}
	if v.quiet == nil || v.quietSince != last.Stop() {
		v.quiet, v.quietSince = wal.BookkeepingSince(last.Stop()), last.Stop()
	}
	src := wal.NewDirSource(v.files.walDir(), v.files.size, v.files.timeline, v.files.history)
	defer src.Close()
	only, err := v.quiet.Only(src, durable.LSN, v.files.rules())
	return err == nil && only
}

func (v *voyage) takeOne(ctx context.Context) error {
	began := time.Now()
	v.board.update(func(r *statusReport) { r.SnapshotRunning = &snapshotRun{Since: began} })
	defer v.board.update(func(r *statusReport) { r.SnapshotRunning = nil })
	m, err := v.taker(func(p basebackup.Progress) {
		v.board.update(func(r *statusReport) {
			r.SnapshotRunning = &snapshotRun{Since: began, Done: p.Bytes, Total: p.TotalBytes}
		})
	}).Take(ctx)
	if err != nil {
		return err
	}
	v.taken(ctx, m)
	v.clean(ctx)
	return nil
}

func (v *voyage) taker(progress func(basebackup.Progress)) *basebackup.Taker {
	v.mu.Lock()
	known := slices.Clone(v.snapshots)
	v.mu.Unlock()
	return basebackup.New(basebackup.Config{
		Lists: v.arch, Known: known,
		PGDATA: v.files.pgdata, Epoch: v.epoch.Number, Instance: v.writer.Instance, Hostname: v.writer.Host,
		Server: backupServer{pg: v.files.pg, conn: v.conn, log: v.log}, Archive: v.arch, WAL: v.ship,
		Log: v.log, Metrics: v.backups, Progress: progress,
	})
}

// taken notes a snapshot that exists from now on.
func (v *voyage) taken(ctx context.Context, m archive.Manifest) {
	start, stop := uint64(m.Start), uint64(m.Stop)
	b := archive.Backup{Name: m.Name, StartSegment: m.Name[5:29], Manifest: &m, ModTime: m.StopTime}
	b.Sentinel.LSN, b.Sentinel.FinishLSN, b.Sentinel.UncompressedSize = &start, &stop, m.RawSize
	if m.Delta != nil {
		b.Sentinel.DeltaFrom = &m.Delta.Parent
	}
	v.mu.Lock()
	v.snapshots = append(v.snapshots, b)
	v.gapFrom = 0
	v.mu.Unlock()
	v.board.update(func(r *statusReport) {
		r.SnapshotTrouble = ""
		r.LastSnapshot = infoOf(b)
	})
	v.note("snapshot_taken", "name", m.Name, "start", m.Start.String(), "stop", m.Stop.String(), "stored_bytes", m.StoredSize,
		"raw_bytes", m.RawSize, "seconds", m.StopTime.Sub(m.StartTime).Seconds(), "bad_pages", len(m.Checksums.Bad), "delta", m.Delta != nil)
	v.level.Store(true) // a snapshot exists when the WAL up to its end is durable
	v.settle()
	v.settleRestore(context.WithoutCancel(ctx), v.conn, true)
}

// infoOf is what /status tells of a snapshot.
func infoOf(b archive.Backup) *snapshotInfo {
	i := &snapshotInfo{Name: b.Name, Start: b.Start(), Stop: b.Stop(), Taken: b.ModTime, Stored: b.Sentinel.CompressedSize, Raw: b.Sentinel.UncompressedSize}
	if m := b.Manifest; m != nil {
		i.Taken, i.Stored, i.Raw = m.StopTime, m.StoredSize, m.RawSize
	}
	return i
}

// clean applies the retention after a snapshot, where the credentials allow it. A writer needs no right to delete; a
// janitor does it then.
func (v *voyage) clean(ctx context.Context) {
	rules := retention.Rules{Window: v.policy.Retention, MinBackups: v.policy.MinBackups}
	w := v.arch.WAL(v.server.SegmentSize)
	s, err := retention.Read(ctx, w)
	var plan retention.Plan
	if err == nil {
		v.forget(func(b archive.Backup) bool {
			_, whole := archive.Parents(b, s.Backups)
			return !whole || !slices.ContainsFunc(s.Backups, func(x archive.Backup) bool { return x.Name == b.Name })
		})
		plan, err = retention.Apply(ctx, w, s, rules, v.log)
	}
	if cerr := v.door.counts().countRecords(ctx); cerr != nil && ctx.Err() == nil {
		v.log.Warn("the objects in the archive were not counted", "error", cerr)
	}
	v.forget(func(b archive.Backup) bool {
		return slices.ContainsFunc(plan.Backups, func(x archive.Backup) bool { return x.Name == b.Name })
	})
	switch {
	case err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled):
		v.log.Warn("the retention was not applied", "error", err)
	case err == nil && !plan.Empty():
		v.note("expired", "snapshots", len(plan.Backups), "segments", len(plan.Segments))
	}
}

// forget drops snapshots that are in the archive no more, or cannot be restored: a janitor, or a person, may have deleted
// them, or what they are built on.
func (v *voyage) forget(gone func(archive.Backup) bool) {
	v.mu.Lock()
	v.snapshots = slices.DeleteFunc(slices.Clone(v.snapshots), gone)
	var last *snapshotInfo
	if n := len(v.snapshots); n > 0 {
		last = infoOf(v.snapshots[n-1])
	}
	v.mu.Unlock()
	v.board.update(func(r *statusReport) { r.LastSnapshot = last })
	if last == nil {
		v.settle()
	}
}
