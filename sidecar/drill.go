package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/policy"
)

// errDrill says that a drill was held and not passed.
var errDrill = errors.New("the restore drill was not passed")

const (
	envDrillQuery = "OUTRIDER_DRILL_QUERY"
	envDrillDir   = "OUTRIDER_DRILL_DIR"
	// recordPatience is how long a verdict may take to be recorded, whatever has been signalled meanwhile.
	recordPatience = 30 * time.Second
)

// drillFlags are those that have no variable.
type drillFlags struct {
	backup, bindir, install string
	amcheck                 bool
	keep, noRecord          bool
}

func newDrillCommand(a *app) *cobra.Command {
	var f drillFlags
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Prove that a restore works: hold one, look at it, throw it away",
		Long: "Restores the newest snapshot and all WAL into a new directory, starts PostgreSQL on it where nobody else reaches it, runs\n" +
			"a query, checks all page checksums, and throws everything away. The result is recorded in the archive, where\n" +
			"`outrider status` and the metrics of the database see it. The original is neither asked nor touched.\n" +
			fmt.Sprintf("Ends with exit code %d if the drill was not passed.", exitDrill),
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.install != "" {
				return installSelf(f.install)
			}
			return a.drill(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	a.envFlag(fs, "query", envDrillQuery, "", "query that must succeed and answer with at least one row, whose first column is not false; it can only read")
	a.envFlag(fs, "dir", envDrillDir, os.TempDir(), "where a directory is made for the database, and removed in the end")
	// --target is what people look for; the policy's name for it works too.
	a.envFlag(fs, "target", "OUTRIDER_RESTORE_TARGET", "latest", "latest, a time or an LSN, each with @TIMELINE if wanted")
	a.policyFlags(fs, "run-as")
	fs.StringVar(&f.backup, "backup", "", "start from this snapshot instead of the newest usable one")
	fs.StringVar(&f.bindir, "bindir", "", "directory of PostgreSQL's programs; default is where they are found")
	fs.BoolVar(&f.amcheck, "amcheck", false, "check the B-tree indexes too, where the server has the extension amcheck")
	fs.BoolVar(&f.noRecord, "no-record", false, "do not record the result in the archive")
	fs.BoolVar(&f.keep, "keep", false, "leave the database where it is, for a look")
	fs.StringVar(&f.install, "install", "", "only copy this program to a path, to be run in a container of another image")
	a.outputFlag(cmd)
	return cmd
}

func (a *app) drill(ctx context.Context, f drillFlags) error {
	p, _, err := a.policyOf(append(placeKeys(), "restore-target", "run-as")...)
	if err != nil {
		return err
	}
	from, err := a.openNamed(ctx, p, p.Archive)
	if err != nil {
		return err
	}
	r := &drillRun{app: a, flags: f, policy: p, arch: from.Archive, result: newDrill(time.Now())}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("holding a restore drill of %s: %w", from.location, err)
	}
	report := drillReport{Drill: r.result}
	if !f.noRecord {
		if report.Object, err = record(ctx, from.Archive, &report.Drill); err != nil {
			err = fmt.Errorf("recording the result of the restore drill: %w", err)
		}
	}
	d := report.Drill
	err = errors.Join(err, a.show(report, report.text))
	if !d.Passed {
		err = errors.Join(err, coded{fmt.Errorf("the restore drill of %s was NOT PASSED: %s", from.location, d.Failure), errDrill})
	}
	return err
}

func newDrill(began time.Time) archive.Drill {
	none := archive.DrillCheck{Verdict: archive.DrillNotRun}
	return archive.Drill{StartedAt: began, Pages: none, Indexes: none, Query: none}
}

// record stores a verdict, also one that a signal came after. Its times become the store's: results are read in the order
// of their keys, and a machine whose clock is ahead would hide what others find after it.
func record(ctx context.Context, arch *archive.Archive, d *archive.Drill) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordPatience)
	defer cancel()
	at, err := arch.Now(ctx)
	if err != nil {
		return "", err
	}
	if !at.IsZero() {
		d.VerifiedAt, d.StartedAt = at, at.Add(-time.Duration(d.Seconds*float64(time.Second)))
	}
	for {
		key, err := arch.RecordDrill(ctx, *d)
		if !errors.Is(err, fs.ErrExist) {
			return key, err
		}
		d.VerifiedAt = d.VerifiedAt.Add(time.Microsecond) // another drill has ended in the same second
	}
}

// drillReport is what the verb says in the end.
type drillReport struct {
	archive.Drill
	Object string `json:"object,omitempty"` // where it is recorded
}

func (r drillReport) text(w io.Writer) {
	verdict := "passed"
	if !r.Passed {
		verdict = "NOT PASSED: " + r.Failure
	}
	row(w, "restore drill", verdict)
	row(w, "snapshot", orDash(r.Snapshot))
	if r.LSN != 0 {
		row(w, "replayed up to", fmt.Sprintf("%s on timeline %d", r.LSN, r.Timeline))
	}
	if r.CommittedAt != nil {
		row(w, "last commit", timeText(*r.CommittedAt))
	}
	row(w, "pages", checkText(r.Pages, "checked", "the server keeps no page checksums"))
	row(w, "indexes", checkText(r.Indexes, "checked", "the server has no amcheck"))
	row(w, "query", checkText(r.Query, "rows", ""))
	if r.ReadySeconds > 0 {
		row(w, "until it answered", fmt.Sprintf("%.1f s", r.ReadySeconds))
	}
	row(w, "took", fmt.Sprintf("%.1f s", r.Seconds))
	if r.Object != "" {
		row(w, "recorded", r.Object)
	}
}

// checkText is a check in words. What is unknown is not good.
func checkText(c archive.DrillCheck, unit, unknown string) string {
	switch c.Verdict {
	case archive.DrillGood:
		return fmt.Sprintf("good, %d %s", c.Checked, unit)
	case archive.DrillBad:
		return "BAD: " + strings.Join(c.Bad[:min(len(c.Bad), 3)], ", ")
	case archive.DrillUnknown:
		return "unknown: " + unknown
	case archive.DrillNotRun:
	}
	return "not run"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// installSelf copies this program, which needs nothing of the image that it runs in.
func installSelf(to string) (err error) {
	from, err := os.Executable()
	if err != nil {
		return fmt.Errorf("looking for this program: %w", err)
	}
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying this program: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Clean(to), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return fmt.Errorf("copying this program: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copying this program to %s: %w", to, err)
	}
	return nil
}

// blame makes err the reason why a drill was not passed, if it speaks against the archive or the restored database. What
// it returns is an error that leaves the question open: the store could not be asked, this machine lacks something.
func blame(d *archive.Drill, err error) error {
	var f drillFailure
	if !errors.As(err, &f) && exitOf(err) != exitDamaged {
		return err
	}
	if d.Failure != "" {
		d.Failure += "; "
	}
	d.Failure += strings.Join(slices.Collect(strings.SplitSeq(strings.TrimSpace(err.Error()), "\n")), "; ")
	return nil
}

// drillFailure is something about the restored database for which the drill is not passed.
type drillFailure struct{ error }

func (f drillFailure) Unwrap() error { return f.error }

func drillFailed(format string, args ...any) error { return drillFailure{fmt.Errorf(format, args...)} }

// drillUser is who the throw-away server runs as: whoever we are, unless we are root, as which PostgreSQL refuses to run.
func drillUser(as policy.RunAs) (uid, gid int, err error) {
	if os.Geteuid() != 0 {
		return 0, 0, nil
	}
	return rootless(as)
}
