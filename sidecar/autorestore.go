package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/internal/ship"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// autoRestore is the init container: it decides by what lies on the disk and in the archive. When it returns nil the
// server may start; in all other cases it must not. An archive that cannot be asked is waited for, and then all is
// looked at anew.
func (a *app) autoRestore(ctx context.Context, f restoreFlags) error {
	p, _, err := a.policy()
	if err != nil {
		return err
	}
	j := a.newJudgement()
	decide := func(ctx context.Context) error { return j.settle(a.autoDecide(ctx, p, f)) }
	if f.once {
		return decide(ctx)
	}
	return a.reporting(ctx, func(ctx context.Context) error { return a.patiently(ctx, decide) })
}

func (a *app) autoDecide(ctx context.Context, p policy.Policy, f restoreFlags) error {
	dir := a.setting(envPGData)
	if dir == "" {
		return usagef("outrider restore --auto needs the data directory: set PGDATA or --pgdata")
	}
	if p.Restore == policy.RestoreNever {
		a.log.Info("restore is never: the disk stays as it is", "pgdata", dir)
		return nil
	}
	state, err := restore.Inspect(dir)
	if err != nil {
		return err
	}
	a.log.Info("looked at the disk", "pgdata", dir, "state", state.String())
	switch state {
	case restore.Data:
		return a.autoData(ctx, p, dir)
	case restore.Recovering:
		return a.autoResume(ctx, p, dir, f)
	case restore.Foreign:
		return fmt.Errorf("%w: %s holds something that is neither a data directory nor a restore of ours, such as an initdb that was interrupted: look at it, and empty it if it is not needed",
			restore.ErrNotEmpty, dir)
	default: // Absent, Empty, Unpacking
		return a.autoEmpty(ctx, p, dir, f)
	}
}

// autoEmpty restores an empty disk, or lets initdb run if the archive is proven to be empty.
func (a *app) autoEmpty(ctx context.Context, p policy.Policy, dir string, f restoreFlags) error {
	from, err := a.origin(ctx, p, dir, &f)
	if err != nil || from.Archive == nil {
		return err
	}
	plan, err := restore.NewPlan(ctx, from.Archive, f.request(p))
	if errors.Is(err, restore.ErrNoSnapshot) {
		return fmt.Errorf("%w: %s was written to, but no snapshot was ever completed: if what it holds is not needed, delete it or choose another cluster name", err, from.location)
	}
	if err != nil {
		return fmt.Errorf("planning the restore of %s: %w", from.location, err)
	}
	for _, m := range plan.Missing {
		a.log.Warn("this is missing in the archive, and is accepted to be lost because the database is taken over from another cluster",
			"missing", m, "end", plan.End.String(), "last_commit", plan.LastCommit)
	}
	r, err := a.layDown(ctx, from.Archive, plan, dir, f)
	if err != nil {
		return err
	}
	a.log.Info("restored", "archive", from.location, "snapshot", plan.Snapshot.Name, "timeline", plan.Timeline, "end", plan.End.String(),
		"target", plan.Target.String(), "missing", plan.Missing, "bytes", r.Result.Raw, "seconds", r.Seconds)
	return nil
}

// origin opens what an empty disk is restored from. There is none if the archive is proven to be empty: then initdb may
// run. The flags are completed by what that means.
func (a *app) origin(ctx context.Context, p policy.Policy, dir string, f *restoreFlags) (root, error) {
	another := func() (root, error) {
		f.clone = true
		return a.openNamed(ctx, p, p.RestoreFrom)
	}
	if p.Archive == "" { // a throw-away clone, which needs none of its own
		return another()
	}
	ours, err := a.openGeneration(ctx, p, 0)
	if err != nil {
		return root{}, err
	}
	empty, err := ours.Empty(ctx)
	if err != nil {
		return root{}, err
	}
	switch {
	case empty && p.RestoreFrom != "":
		return another()
	case empty && p.Restore == policy.RestoreRequired:
		return root{}, coded{fmt.Errorf("%s is empty, and restore is required: check archive, cluster and restore-from", ours.location), errNothing}
	case empty:
		a.log.Info("the archive is proven to be empty: initdb may run", "archive", ours.location)
		return root{}, nil
	}
	over, err := takenOver(ctx, p, ours)
	if err != nil {
		return root{}, err
	}
	f.missing = f.missing || over
	f.epoch, err = a.takeEpoch(ctx, p, ours, dir)
	return ours, err
}

// takenOver tells whether the last who wrote here is the cluster that the database is taken over from. The archive is then
// a replica of one that is gone: what has not come through never will, and the longest whole beginning is all there is.
// It is asked before an epoch is claimed. One that was claimed here, for a restore that was given up, has no heartbeat.
func takenOver(ctx context.Context, p policy.Policy, r root) (bool, error) {
	if p.TakeOver == "" {
		return false, nil
	}
	all, err := r.Epochs(ctx)
	if err != nil {
		return false, err
	}
	for _, e := range slices.Backward(all) {
		if e.Writer.Kubernetes == p.TakeOver {
			return true, nil
		}
		if _, _, err := r.Heartbeat(ctx, e.Number); err == nil {
			return false, nil
		} else if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// autoResume goes on with a restore whose server has not finished recovery, unless somebody else may have gone on with the
// database since: then it would bring back what was, and the disk, which was never written to, is restored anew.
func (a *app) autoResume(ctx context.Context, p policy.Policy, dir string, f restoreFlags) error {
	passed, err := a.passedBy(ctx, p, dir)
	if err != nil {
		return err
	}
	if passed != nil {
		a.log.Warn("somebody else has taken the epoch since this restore began: it is begun anew", "epoch", passed.Number, "writer", epoch.Describe(passed.Writer))
		if err := restore.Abandon(dir); err != nil {
			return err
		}
		return a.autoEmpty(ctx, p, dir, f)
	}
	from, err := a.restoreSource(ctx, p)
	if err != nil {
		return err
	}
	r, err := a.fill(ctx, from, dir, true)
	if err != nil {
		return err
	}
	a.log.Info("the recovery can go on", "segments", r.Segments, "promoted", r.Promoted)
	return nil
}

// autoData judges a disk with data on it before the server may write to it.
func (a *app) autoData(ctx context.Context, p policy.Policy, dir string) error {
	c, err := wal.ReadControl(dir)
	if err != nil {
		return fmt.Errorf("reading pg_control of %s: %w: the disk is damaged; to restore it from the archive, empty it", dir, err)
	}
	if p.Archive == "" {
		a.log.Info("a throw-away clone goes on with what it has", "pgdata", dir)
		return nil
	}
	r, err := a.openGeneration(ctx, p, c.SystemIdentifier)
	if err != nil {
		return err
	}
	if err := a.waitForOthersEnd(ctx, r, dir); err != nil {
		return err
	}
	v, err := restore.CheckDisk(ctx, r.Archive, dir)
	if err != nil {
		return err
	}
	a.log.Info("compared the disk with its archive", "verdict", v.Disk.String(), "reason", v.Reason, "archive", r.location,
		"archive_end", v.Archive.String(), "local", v.Local.String())
	switch v.Disk {
	case restore.DiskOurs:
		return a.letStart(ctx, r, dir)
	case restore.DiskUnprotected:
		return nil
	case restore.DiskAhead:
		// Nothing but who has claimed what tells whether it is the one that was archived.
		var taken bool
		if v, taken, err = a.takenSince(p, dir, v); err != nil {
			return err
		} else if !taken {
			return a.letStart(ctx, r, dir)
		}
	case restore.DiskStale, restore.DiskDiverged:
		// Decided below.
	case restore.DiskForeign:
		return fmt.Errorf("%w: %s: give it an archive of its own, or, after pg_upgrade, set adopt to true", ship.ErrStale, v.Reason)
	}
	if p.StaleDisk != policy.StaleFork {
		return fmt.Errorf("%w: %s: the server is not started on it. To have the archive's state, empty the disk; to go on with what the disk holds, on a timeline of its own, set stale-disk to fork",
			ship.ErrStale, v.Reason)
	}
	uid, gid, err := a.serverUser(dir)
	if err != nil {
		return err
	}
	plan, err := restore.Fork(ctx, r.Archive, restore.Options{Dir: dir, SpoolDir: a.setting(envSpool), UID: uid, GID: gid, Log: a.log})
	if err != nil {
		return err
	}
	a.log.Warn("the disk goes on, on a timeline of its own", "reason", v.Reason, "from_timeline", plan.Timeline)
	_, err = a.fill(ctx, r.Archive, dir, true)
	return err
}

// takenSince tells whether somebody else has taken over the database of a disk that is ahead of its archive.
func (a *app) takenSince(p policy.Policy, dir string, v restore.Verdict) (restore.Verdict, bool, error) {
	writer, err := a.identity(dir)
	if err != nil {
		return v, false, err
	}
	return takenBy(v, epoch.Request{Writer: writer, TakeOver: p.TakeOver})
}

// takenBy is takenSince for one writer. Whoever began to restore since has less than the disk does, and may have gone on
// from there.
func takenBy(v restore.Verdict, r epoch.Request) (restore.Verdict, bool, error) {
	if _, err := epoch.Judge(v.Epochs, r); err != nil {
		return v, false, fmt.Errorf("%w: %s: %w", ship.ErrStale, v.Reason, err)
	}
	for _, e := range v.Since {
		if e.Writer.Instance != r.Writer.Instance {
			v.Reason += fmt.Sprintf(", and epoch %d was claimed since by %s, to restore what the archive holds", e.Number, epoch.Describe(e.Writer))
			return v, true, nil
		}
	}
	return v, false, nil
}

// serverUser is who runs the server, and so has to own what is restored: what the policy says, else whoever owns the
// directory that is there. Zeros leave it to the snapshot. It matters to root alone; a group of -1 stays as it is.
func (a *app) serverUser(dir string) (uid, gid int, err error) {
	p, _, err := a.policyOf("run-as", "archive", "archiving", "restore-from")
	if err != nil {
		return 0, 0, err
	}
	if as := p.RunAs; as != (policy.RunAs{}) {
		return int(as.UID), int(as.GID), nil
	}
	uid, gid = ownerOf(dir)
	return uid, gid, nil
}

// ownerOf is who owns an existing directory; zeros if that is nobody.
func ownerOf(dir string) (uid, gid int) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0
	}
	return int(st.Uid), int(st.Gid)
}

func targetOf(t policy.Target) restore.Target {
	return restore.Target{Time: t.Time, LSN: wal.LSN(t.LSN), Timeline: wal.Timeline(t.Timeline)}
}
