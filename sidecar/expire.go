package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/policy"
)

// expiry is the JSON of `outrider expire`.
type expiry struct {
	Archive  string               `json:"archive"`
	DryRun   bool                 `json:"dry_run"`
	Cutoff   time.Time            `json:"cutoff"`
	Expired  []string             `json:"expired_snapshots"`
	Debris   []string             `json:"removed_debris"`
	Kept     map[string]string    `json:"kept_snapshots"` // with the reason
	WAL      []archive.ExpiredWAL `json:"expired_wal"`
	Segments int                  `json:"expired_segments"`
	Chunks   int                  `json:"removed_chunks"`
	window   time.Duration
}

func newExpireCommand(a *app) *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "expire", Short: "Delete what the retention no longer asks for", Args: noArgs,
		Long: "Delete snapshots and WAL that no moment of the recovery window needs.\n" +
			"Every moment in the window that can be restored stays so, and the newest verified snapshots always stay.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.expire(cmd.Context(), dry) },
	}
	a.outputFlag(cmd)
	a.policyFlags(cmd.Flags(), "retention", "min-backups")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would go, and change nothing")
	return cmd
}

func (a *app) expire(ctx context.Context, dry bool) error {
	p, _, err := a.policyOf(append(placeKeys(), "retention", "min-backups")...)
	if err != nil {
		return err
	}
	w, err := a.openWAL(ctx)
	if err != nil {
		return err
	}
	rules := retention.Rules{Window: p.Retention, MinBackups: p.MinBackups}
	var plan retention.Plan
	if dry {
		plan, err = retention.Propose(ctx, w, rules)
	} else {
		plan, err = retention.Run(ctx, w, rules, a.log)
	}
	if err != nil {
		return err
	}
	e := expiry{
		Archive: p.Archive, DryRun: dry, Cutoff: plan.Cutoff.UTC(), Kept: plan.Kept, Expired: []string{}, Debris: []string{},
		WAL: retention.Ranges(plan.Segments, w.Size), Segments: len(plan.Segments), Chunks: len(plan.Chunks) + len(plan.Sealed), window: p.Retention,
	}
	for _, b := range plan.Backups {
		e.Expired = append(e.Expired, b.Name)
	}
	for _, d := range plan.Debris {
		e.Debris = append(e.Debris, d.Name)
	}
	return a.show(e, e.text)
}

func (e expiry) text(w io.Writer) {
	verb := "deleted"
	if e.DryRun {
		verb = "would be deleted"
	}
	fmt.Fprintf(w, "recovery window: since %s (%s)\n", timeText(e.Cutoff), policy.FormatDuration(e.window))
	row(w, "SNAPSHOT", "WHAT", "WHY")
	for _, name := range e.Expired {
		row(w, name, verb, "nothing in the recovery window needs it")
	}
	for _, name := range e.Debris {
		row(w, name, verb, "remains of a snapshot that was never finished")
	}
	for _, name := range slices.Sorted(maps.Keys(e.Kept)) {
		row(w, name, "stays", e.Kept[name])
	}
	fmt.Fprintf(w, "WAL %s: %d segments, %d chunks\n", verb, e.Segments, e.Chunks)
	for _, x := range e.WAL {
		fmt.Fprintf(w, "timeline %d: %d segments, %s to %s\n", x.Timeline, x.Count, x.First, x.Last)
	}
}
