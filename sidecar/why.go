package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
)

func newWhyCommand(a *app) *cobra.Command {
	var number uint64
	var entries int
	cmd := &cobra.Command{
		Use: "why", Short: "Tell what happened at the last stop, and what was lost", Args: noArgs,
		Long: "Tell from the archive alone how a writer ended: what was lost, or the receipt as the proof that nothing was; the time line of\n" +
			"the stop and of what came after it, up to the first write, with the time since the line before; and its journal. Each start\n" +
			"of a writer, and each restore, is an epoch.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if entries < 1 {
				return usagef("--entries %d: expected at least 1", entries)
			}
			w, err := a.openWAL(cmd.Context())
			if err != nil {
				return err
			}
			e, err := lastWords(cmd.Context(), w, number, entries)
			if err != nil {
				return err
			}
			return a.show(e, e.text)
		},
	}
	a.outputFlag(cmd)
	cmd.Flags().Uint64Var(&number, "epoch", 0, "tell about this epoch instead of the last one that has ended")
	cmd.Flags().IntVar(&entries, "entries", 40, "how many entries of the journal to show at most below the time line, the last ones")
	return cmd
}

// ending is the JSON of `outrider why`.
type ending struct {
	Epoch     uint64                 `json:"epoch"`
	Writer    archive.Identity       `json:"writer"`
	ClaimedAt time.Time              `json:"claimed_at"`
	Verdict   verdict                `json:"verdict"`
	Receipt   *archive.Receipt       `json:"receipt,omitempty"`
	Heartbeat *lastBeat              `json:"last_heartbeat,omitempty"`
	Successor *archive.Epoch         `json:"successor,omitempty"`
	Fork      *archive.TimelineClaim `json:"successor_timeline,omitempty"`
	Older     int                    `json:"older_entries,omitempty"`
	Journal   []archive.Entry        `json:"journal"`
	After     []archive.Entry        `json:"successor_journal,omitempty"` // the entries that tell how it came up
	Phases    []phase                `json:"phases"`
	Outage    *outage                `json:"outage,omitempty"` // absent as long as its begin or its end is not known
	later     []archive.Epoch        // those after it, up to the first that had a server
	claims    []archive.TimelineClaim
	inventory *archive.Inventory
}

// lastBeat is a heartbeat with its age, both by the store's clock.
type lastBeat struct {
	archive.Heartbeat
	At  time.Time `json:"at"`
	Age float64   `json:"age_seconds"`
}

// lastWords collects what the archive knows about the end of an epoch: number, or if that is 0 the last that ended.
func lastWords(ctx context.Context, w *archive.WAL, number uint64, entries int) (ending, error) {
	all, err := w.Epochs(ctx)
	if err != nil {
		return ending{}, err
	}
	if len(all) == 0 {
		return ending{}, coded{errors.New("nobody has ever claimed an epoch of this archive, so there is nothing to tell: was it written by WAL-G?"), errNothing}
	}
	inv, err := w.Inventory(ctx)
	if err != nil {
		return ending{}, err
	}
	i := len(all) - 1
	if number != 0 {
		if i = slices.IndexFunc(all, func(e archive.Epoch) bool { return e.Number == number }); i < 0 {
			return ending{}, coded{fmt.Errorf("there is no epoch %d: the archive has %d to %d", number, all[0].Number, all[len(all)-1].Number), errNothing}
		}
	}
	for ; ; i-- {
		e, err := readEnding(ctx, w, inv, all[i:])
		if err != nil {
			return e, err
		}
		if number != 0 || i == 0 || e.Verdict.Outcome != outcomeRunning && e.Verdict.Outcome != outcomeNothing {
			err := e.readJournals(ctx, w, all[i+1:], entries)
			return e, err
		}
	}
}

// readEnding reads about the first of the epochs; the others came after it.
func readEnding(ctx context.Context, w *archive.WAL, inv *archive.Inventory, epochs []archive.Epoch) (ending, error) {
	e := ending{Epoch: epochs[0].Number, Writer: epochs[0].Writer, ClaimedAt: epochs[0].ClaimedAt, Journal: []archive.Entry{}, Phases: []phase{}, inventory: inv}
	if len(epochs) > 1 {
		e.Successor = &epochs[1]
	}
	for _, t := range inv.Timelines() {
		c, ok := inv.Claims[t]
		if ok && c.Epoch == e.Epoch {
			e.claims = append(e.claims, c)
		}
		if ok && e.Successor != nil && c.Epoch == e.Successor.Number && e.Fork == nil {
			e.Fork = &c
		}
	}
	r, err := w.Receipt(ctx, e.Epoch)
	if err == nil {
		e.Receipt = &r
	} else if !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	h, info, err := w.Heartbeat(ctx, e.Epoch)
	if err == nil {
		e.Heartbeat = &lastBeat{Heartbeat: h, At: info.LastModified.UTC(), Age: info.SeenAt.Sub(info.LastModified).Seconds()}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return e, err
	}
	e.Verdict = e.judge(epochs[0])
	return e, nil
}

func (e ending) text(w io.Writer) {
	fmt.Fprintf(w, "epoch %d, %s, since %s\n", e.Epoch, epoch.Describe(e.Writer), timeText(e.ClaimedAt))
	fmt.Fprintf(w, "%s: %s\n", e.Verdict.Outcome, e.Verdict.Text)
	fmt.Fprintf(w, "lost: %s\n", e.Verdict.Lost)
	if e.Successor != nil {
		fmt.Fprintf(w, "followed by epoch %d, %s, at %s%s\n", e.Successor.Number, epoch.Describe(e.Successor.Writer), timeText(e.Successor.ClaimedAt), e.fork())
	}
	if e.Outage != nil {
		fmt.Fprintf(w, "outage: %s\n", e.Outage)
	}
	if len(e.Phases) > 0 {
		fmt.Fprintln(w)
		phasesText(w, e.Phases)
	}
	fmt.Fprintf(w, "\njournal of epoch %d:\n", e.Epoch)
	if e.Older > 0 {
		fmt.Fprintf(w, "(%d older entries; see --entries)\n", e.Older)
	}
	entriesText(w, e.Journal)
}

func (e ending) fork() string {
	if e.Fork == nil || e.Fork.Parent == 0 {
		return ""
	}
	s := fmt.Sprintf(", which left timeline %d at %s for timeline %d", e.Fork.Parent, e.Fork.Switch, e.Fork.Timeline)
	if e.Fork.Target != "" {
		s += " to restore " + e.Fork.Target
	}
	return s
}
