package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/policy"
)

const envSpool = "OUTRIDER_SPOOL"

// restoreFlags are those that have no variable.
type restoreFlags struct {
	backup, waldir string
	mapping        []string
	dryRun, auto   bool
	missing        bool
	repeat         bool
	clone          bool
	once           bool
	epoch          uint64 // that was claimed for it
}

func newRestoreCommand(a *app) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore",
		Short: "Rebuild a data directory from the archive",
		Long: "Rebuilds a data directory. Start the server on it afterwards: it replays the WAL and is promoted.\n" +
			"With --auto it is what an init container runs: an empty disk is restored, or left for initdb only when the archive\n" +
			"is proven to be empty; data that is there is compared with the archive before the server may start. As long as the\n" +
			"archive cannot be asked, it waits and says why: an init container that ends is started again ever later.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.auto {
				return a.autoRestore(cmd.Context(), f)
			}
			return a.restore(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	a.envFlag(fs, "pgdata", envPGData, "", "data directory to rebuild: absent or empty")
	a.envFlag(fs, "spool", envSpool, "", "directory from which the server fetches WAL, as the server sees it; default is one in the data directory")
	a.policyFlags(fs, "restore", "restore-from", "stale-disk", "take-over", "adopt", "run-as")
	// --target is what people look for; the policy's name for it works too.
	a.envFlag(fs, "target", "OUTRIDER_RESTORE_TARGET", "latest", "latest, a time or an LSN, each with @TIMELINE if wanted")
	fs.StringVar(&f.backup, "backup", "", "start from this snapshot instead of the newest usable one")
	fs.StringVar(&f.waldir, "waldir", "", "directory that pg_wal becomes a link to")
	fs.StringArrayVar(&f.mapping, "tablespace-mapping", nil, "OLD=NEW: put a tablespace elsewhere; may be repeated")
	fs.BoolVar(&f.dryRun, "dry-run", false, "only say what would be done")
	fs.BoolVar(&f.auto, "auto", false, "decide by what is there, as an init container has to")
	fs.BoolVar(&f.once, "no-wait", false, "with --auto: end when the archive cannot be asked, instead of waiting until it can")
	fs.BoolVar(&f.missing, "accept-missing", false, "restore up to where WAL is missing instead of refusing")
	fs.BoolVar(&f.repeat, "repeat", false, "restore to the same past target once more, which undoes what was written since")
	fs.BoolVar(&f.clone, "clone", false, "the result is another database: TimescaleDB's background jobs stay off")
	a.outputFlag(cmd)
	return cmd
}

// restore is the command as a person calls it.
func (a *app) restore(ctx context.Context, f restoreFlags) error {
	p, _, err := a.policyOf(append(placeKeys(), "restore-from", "restore-target")...)
	if err != nil {
		return err
	}
	location := p.Archive
	if p.RestoreFrom != "" {
		location, f.clone = p.RestoreFrom, true
	}
	dir := a.setting(envPGData)
	if dir == "" && !f.dryRun {
		return usagef("outrider restore needs the directory to rebuild: set PGDATA or --pgdata")
	}
	from, err := a.openNamed(ctx, p, location)
	if err != nil {
		return err
	}
	plan, err := restore.NewPlan(ctx, from.Archive, f.request(p))
	if err != nil {
		return fmt.Errorf("planning the restore of %s: %w", from.location, err)
	}
	if f.dryRun {
		return a.show(plan, func(w io.Writer) { fmt.Fprint(w, plan) })
	}
	if a.output == outputText {
		fmt.Fprint(a.stderr, plan)
	}
	r, err := a.layDown(ctx, from.Archive, plan, dir, f)
	if err != nil {
		return err
	}
	return a.show(r, r.text)
}

func (f restoreFlags) request(p policy.Policy) restore.Request {
	return restore.Request{
		Target: targetOf(p.RestoreTarget), Backup: f.backup, AcceptMissing: f.missing, Repeat: f.repeat, Clone: f.clone,
	}
}

// restored is what a restore says in the end.
type restored struct {
	Plan      restore.Plan       `json:"plan"`
	Result    restore.Result     `json:"result"`
	WAL       restore.FillResult `json:"wal"`
	Directory string             `json:"directory"`
	Seconds   float64            `json:"seconds"`
}

func (r restored) text(w io.Writer) {
	fmt.Fprintf(w, "Restored %s from %s, %s of data, in %.1f s: start the server on it, it replays up to %s on timeline %d.\n",
		r.Directory, r.Plan.Snapshot.Name, bytesText(r.Result.Raw), r.Seconds, r.Plan.End, r.Plan.Timeline)
	for _, m := range r.Plan.Missing {
		fmt.Fprintf(w, "Missing: %s\n", m)
	}
	for _, m := range append(r.Plan.Warnings, r.Result.Warnings...) {
		fmt.Fprintf(w, "Note: %s\n", m)
	}
}

// layDown carries a plan out: the snapshot first, then the WAL.
func (a *app) layDown(ctx context.Context, arch *archive.Archive, plan restore.Plan, dir string, f restoreFlags) (restored, error) {
	started := time.Now()
	mapping, err := f.tablespaces()
	if err != nil {
		return restored{}, err
	}
	uid, gid, err := a.serverUser(dir)
	if err != nil {
		return restored{}, err
	}
	if err := makeDataDir(dir, uid, gid); err != nil {
		return restored{}, err
	}
	bar := a.newProgress("restoring")
	result, err := restore.Restore(ctx, arch, plan, restore.Options{
		Dir: dir, SpoolDir: a.setting(envSpool), WALDir: f.waldir, TablespaceMapping: mapping, UID: uid, GID: gid, Epoch: f.epoch, Log: a.log,
		Progress: func(p restore.Progress) { bar.set(p.Bytes, p.Total) },
	})
	bar.close()
	if err != nil {
		return restored{}, err
	}
	filled, err := a.fill(ctx, arch, dir, f.auto)
	return restored{Plan: plan, Result: result, WAL: filled, Directory: dir, Seconds: time.Since(started).Seconds()}, err
}

// In a pod the server starts when enoughWAL lies there, and the sidecar goes on while it replays, at most aheadWAL before
// it: hours of WAL cost neither their time nor their room.
const (
	enoughWAL = 128 << 20
	aheadWAL  = 1 << 30
)

// fill lays WAL: all of it, or, in the init container of a pod, what the server needs to begin with.
func (a *app) fill(ctx context.Context, arch *archive.Archive, dir string, auto bool) (restore.FillResult, error) {
	bar := a.newProgress("fetching WAL")
	defer bar.close()
	o := restore.FillOptions{Dir: dir, Log: a.log, Progress: func(p restore.Progress) { bar.set(p.Bytes, p.Total) }}
	if auto && a.setting(envSpool) != "" {
		o.Enough = enoughWAL
	}
	return restore.Fill(ctx, arch, o)
}

func (f restoreFlags) tablespaces() (map[string]string, error) {
	m := map[string]string{}
	for _, s := range f.mapping {
		from, to, ok := strings.Cut(s, "=")
		if !ok || from == "" || to == "" {
			return nil, usagef("--tablespace-mapping %q: expected OLD=NEW, with an object id or a directory as OLD", s)
		}
		m[from] = to
	}
	return m, nil
}
