package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/verify"
)

func newVerifyCommand(a *app) *cobra.Command {
	var o verify.Options
	cmd := &cobra.Command{
		Use: "verify", Short: "Read the archive back and check it", Args: noArgs,
		Long: "Check that every snapshot has all of its parts with the sizes and checksums of its manifest, and that the WAL of each\n" +
			"branch continues from its oldest snapshot on without a gap and with the content that was recorded.\n" +
			fmt.Sprintf("Ends with exit code %d if anything is wrong.", exitDamaged),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Jobs < 1 {
				return usagef("--jobs %d: expected at least 1", o.Jobs)
			}
			return a.verify(cmd.Context(), o)
		},
	}
	a.outputFlag(cmd)
	cmd.Flags().BoolVar(&o.Quick, "quick", false, "look at listings and documents only, read no content")
	cmd.Flags().IntVar(&o.Jobs, "jobs", 4, "objects to read at a time")
	return cmd
}

func (a *app) verify(ctx context.Context, o verify.Options) error {
	w, err := a.openWAL(ctx)
	if err != nil {
		return err
	}
	p := a.newProgress("verify")
	o.Progress = p.set
	r, err := verify.Run(ctx, w, o)
	p.close()
	// What was found until it could not go on is worth showing too.
	whole := err == nil
	err = errors.Join(err, a.show(r, func(w io.Writer) { verifyText(w, r, whole) }))
	if n := len(r.Problems); n > 0 {
		err = errors.Join(err, coded{fmt.Errorf("%d problems in %s", n, a.setting("OUTRIDER_ARCHIVE")), errProblems})
	}
	return err
}

func verifyText(w io.Writer, r verify.Report, whole bool) {
	for _, p := range r.Problems {
		row(w, p.Kind, p.Object, p.Detail)
	}
	if len(r.Problems) > 0 {
		fmt.Fprintln(w)
	}
	for _, b := range r.Branches {
		newest := ""
		if b.Newest {
			newest = ", the newest"
		}
		if b.From == 0 {
			fmt.Fprintf(w, "timeline %d%s: nothing can be restored, its WAL ends at %s\n", b.Timeline, newest, b.To)
			continue
		}
		fmt.Fprintf(w, "timeline %d%s: from %s to %s, %d gaps\n", b.Timeline, newest, b.From, b.To, len(b.Gaps))
	}
	how := fmt.Sprintf("read %d objects, %s", r.Objects, bytesText(r.Bytes))
	if r.Quick {
		how = "listings and documents only, no content was read"
	}
	verdict := "no problem was found"
	switch {
	case !whole:
		verdict = "it was not finished"
	case len(r.Problems) > 0:
		verdict = fmt.Sprintf("%d problems", len(r.Problems))
	}
	fmt.Fprintf(w, "%d snapshots, %d branches; %s: %s\n", len(r.Snapshots), len(r.Branches), how, verdict)
}
