package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/basebackup"
	"outrider.dev/sidecar/internal/drill"
	"outrider.dev/sidecar/internal/postgres"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/policy"
)

// drillRun is one drill.
type drillRun struct {
	*app
	flags  drillFlags
	policy policy.Policy
	arch   *archive.Archive

	program  string // of PostgreSQL
	uid, gid int    // of the server, if we are root
	work     string // all that will be thrown away
	plan     restore.Plan
	result   archive.Drill
}

func (r *drillRun) dataDir() string   { return filepath.Join(r.work, "data") }
func (r *drillRun) serverDir() string { return filepath.Join(r.work, "run") }

// run holds the drill. An error means that there is no verdict.
func (r *drillRun) run(ctx context.Context) (err error) {
	if r.uid, r.gid, err = drillUser(r.policy.RunAs); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.throwAway()) }()
	if err := r.prepare(ctx); err != nil {
		return err
	}
	err = blame(&r.result, r.hold(ctx))
	if ctx.Err() != nil { // what failed then may have failed for that
		return errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return err
	}
	d := &r.result
	d.VerifiedAt = time.Now()
	d.Seconds = d.VerifiedAt.Sub(d.StartedAt).Seconds()
	d.Passed = d.Failure == ""
	return nil
}

// prepare makes the directory, and says who we are.
func (r *drillRun) prepare(context.Context) error {
	work, err := os.MkdirTemp(r.setting(envDrillDir), "outrider-drill-")
	if err != nil {
		return fmt.Errorf("making a directory for the drill: %w: name another place with --dir", err)
	}
	r.work = work
	if err := r.give(work); err != nil {
		return err
	}
	r.result.By, err = r.identity(work)
	return err
}

// give makes a directory the server's.
func (r *drillRun) give(dir string) error {
	if r.uid == 0 {
		return nil
	}
	return os.Lchown(dir, r.uid, r.gid)
}

func (r *drillRun) throwAway() error {
	if r.work == "" {
		return nil
	}
	if r.flags.keep {
		fmt.Fprintf(r.stderr, "The database of the drill is in %s.\n", r.dataDir())
		return nil
	}
	if err := os.RemoveAll(r.work); err != nil {
		return fmt.Errorf("removing the database of the drill: %w", err)
	}
	return nil
}

// hold restores, asks and checks.
func (r *drillRun) hold(ctx context.Context) error {
	if err := r.restore(ctx); err != nil {
		return err
	}
	if err := r.runServer(ctx); err != nil {
		return err
	}
	return r.checkPages(ctx)
}

// restore lays down the snapshot and all WAL.
func (r *drillRun) restore(ctx context.Context) error {
	var err error
	r.plan, err = restore.NewPlan(ctx, r.arch, restore.Request{Target: targetOf(r.policy.RestoreTarget), Backup: r.flags.backup, Clone: true})
	if err != nil {
		return err
	}
	r.result.Snapshot, r.result.Timeline = r.plan.Snapshot.Name, r.plan.Timeline
	if r.program, err = drill.FindServer(ctx, r.flags.bindir, r.plan.Snapshot.Versions.Server/10000); err != nil {
		return coded{err, errUsage}
	}
	bar := r.newProgress("restoring")
	_, err = restore.Restore(ctx, r.arch, r.plan, restore.Options{
		Dir: r.dataDir(), TablespaceMapping: r.tablespaces(), UID: r.uid, GID: r.gid, Log: r.log,
		Progress: func(p restore.Progress) { bar.set(p.Bytes, p.Total) },
	})
	bar.close()
	if err != nil {
		return err
	}
	_, err = r.fill(ctx, r.arch, r.dataDir(), false)
	return err
}

// tablespaces puts them into the directory of the drill: where they were may be the original's machine.
func (r *drillRun) tablespaces() map[string]string {
	m := map[string]string{}
	if n := len(r.plan.Snapshot.Links); n > 0 {
		for _, t := range r.plan.Snapshot.Links[n-1].Tablespaces {
			oid := strconv.FormatUint(uint64(t.OID), 10)
			m[oid] = filepath.Join(r.work, "tablespaces", oid)
		}
	}
	return m
}

// runServer has the server recover and answer, and stops it.
func (r *drillRun) runServer(ctx context.Context) (err error) {
	if err := os.Mkdir(r.serverDir(), 0o700); err != nil {
		return err
	}
	if err := r.give(r.serverDir()); err != nil {
		return err
	}
	s, err := drill.Start(drill.Config{Program: r.program, DataDir: r.dataDir(), Dir: r.serverDir(), UID: r.uid, GID: r.gid})
	if err != nil {
		return err
	}
	defer func() {
		if serr := s.Stop(ctx); serr != nil && err == nil {
			err = drillFailed("stopping the restored server: %w", serr)
		}
	}()
	if err := r.awaitServer(ctx, s); err != nil {
		return err
	}
	r.result.ReadySeconds = time.Since(r.result.StartedAt).Seconds()
	return r.ask(ctx)
}

// awaitServer waits until recovery is over.
func (r *drillRun) awaitServer(ctx context.Context, s *drill.Server) error {
	const pause = 100 * time.Millisecond
	r.log.Info("the restored server recovers")
	for {
		if status, err := postgres.PostmasterStatus(r.dataDir()); err == nil && status == postgres.StatusReady {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.Exited():
			return drillFailed("the server of %s does not come up on snapshot %s: %s", r.program, r.plan.Snapshot.Name, s.LastWords())
		case <-time.After(pause):
		}
	}
}

// ask asks the server how far it came, and what the user wants to know.
func (r *drillRun) ask(ctx context.Context) error {
	cfg := postgres.Config{
		ConnString: fmt.Sprintf("host='%s' port=%d", r.serverDir(), drill.Port), AppName: "outrider drill", Timeout: drillTimeout,
	}
	conn, err := postgres.Connect(ctx, cfg)
	if err != nil {
		return fmt.Errorf("%w: PGUSER must be a superuser of the original, PGDATABASE one of its databases", coded{err, errUsage})
	}
	defer conn.Close()
	at, err := conn.Replayed(ctx)
	if err != nil {
		return err
	}
	d := &r.result
	d.LSN = at.LSN
	if at.CommittedAt.IsZero() {
		at.CommittedAt = r.plan.LastCommit
	}
	if !at.CommittedAt.IsZero() {
		d.CommittedAt = &at.CommittedAt
	}
	if whole := r.plan.StopLSN == 0 && r.plan.StopTime.IsZero(); whole && at.LSN < r.plan.ReplayEnd {
		if err := blame(d, drillFailed("recovery ended at %s, the WAL in the archive goes up to %s", at.LSN, r.plan.ReplayEnd)); err != nil {
			return err
		}
	}
	if err := r.checkIndexes(ctx, conn); err != nil {
		return err
	}
	return r.runQuery(ctx, cfg)
}

// drillTimeout bounds a question to the throw-away server: checks of large databases take their time.
const drillTimeout = 24 * time.Hour

func (r *drillRun) checkIndexes(ctx context.Context, conn *postgres.Conn) error {
	if !r.flags.amcheck {
		return nil
	}
	d := &r.result
	n, err := conn.CheckIndexes(ctx)
	d.Indexes = archive.DrillCheck{Verdict: archive.DrillGood, Checked: n}
	switch {
	case errors.Is(err, postgres.ErrNoAmcheck):
		d.Indexes.Verdict = archive.DrillUnknown
	case postgres.IsPermission(err):
		return coded{err, errUsage}
	case err != nil:
		d.Indexes.Verdict, d.Indexes.Bad = archive.DrillBad, []string{err.Error()}
		return blame(d, drillFailed("%w", err))
	}
	return nil
}

func (r *drillRun) runQuery(ctx context.Context, cfg postgres.Config) error {
	sql := r.setting(envDrillQuery)
	if sql == "" {
		return nil
	}
	d := &r.result
	n, err := postgres.Satisfied(ctx, cfg, sql)
	d.Query = archive.DrillCheck{Verdict: archive.DrillGood, Checked: n}
	if err != nil {
		d.Query.Verdict, d.Query.Bad = archive.DrillBad, []string{err.Error()}
		return blame(d, drillFailed("%w", err))
	}
	return nil
}

// checkPages looks at the files of the stopped server.
func (r *drillRun) checkPages(ctx context.Context) error {
	v, err := basebackup.CheckPages(ctx, r.dataDir(), r.log)
	if err != nil {
		return err
	}
	d := &r.result
	switch {
	case !v.Enabled:
		d.Pages.Verdict = archive.DrillUnknown
	case len(v.Bad) == 0:
		d.Pages = archive.DrillCheck{Verdict: archive.DrillGood, Checked: v.Pages}
	default:
		d.Pages = archive.DrillCheck{Verdict: archive.DrillBad, Checked: v.Pages, Bad: v.Bad}
		return drillFailed("%d pages or more of snapshot %s are damaged, the first is block %s", len(v.Bad), r.plan.Snapshot.Name, v.Bad[0])
	}
	return nil
}

// rootless is the user that a server started by root runs as: the one that was named, or the one that PostgreSQL has.
func rootless(as policy.RunAs) (uid, gid int, err error) {
	who := &user.User{}
	if as == (policy.RunAs{}) {
		if who, err = user.Lookup("postgres"); err != nil {
			return 0, 0, usagef("PostgreSQL does not run as root, and this machine has no user postgres: run as another user, or name one with --run-as UID:GID")
		}
	} else {
		who.Uid, who.Gid = strconv.FormatInt(as.UID, 10), strconv.FormatInt(as.GID, 10)
		if as.GID == policy.NoGID {
			who.Gid = who.Uid
		}
	}
	uid, uerr := strconv.Atoi(who.Uid)
	gid, gerr := strconv.Atoi(who.Gid)
	return uid, gid, errors.Join(uerr, gerr)
}
