package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/e2e/ledger"
)

func verifyCommand() *cobra.Command {
	var (
		options                    ledger.Options
		journal, dsn, kill, output string
	)
	c := &cobra.Command{
		Use:   "verify",
		Short: "compare a server with the journal",
		Long: "Compare a server with the journal. Exit code 0: the promise was held. 3: it was not. 1: could not tell.\n" +
			"The server is only read, and a run may be going on.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return fmt.Errorf("%w: --output %q is neither text nor json", errUsage, output)
			}
			if kill != "" {
				if err := json.Unmarshal([]byte(kill), &options.Kill); err != nil {
					return fmt.Errorf("%w: --kill is not what the verb now prints: %w", errUsage, err)
				}
			}
			r, err := ledger.Verify(c.Context(), dsn, journal, options)
			if err != nil {
				return err
			}
			if err := show(c.OutOrStdout(), r, output); err != nil {
				return err
			}
			if err := r.Err(); err != nil {
				return fmt.Errorf("%w: %w", errNotHeld, err)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&journal, "journal", "ledger.journal", "file that run has written")
	f.StringVar(&dsn, "dsn", "", "connection string of the server to judge; what it leaves out comes from PGHOST, PGPORT, ...")
	f.DurationVar(&options.RPO, "rpo", time.Second, "age that a lost commit may have; 0: nothing may be lost")
	f.StringVar(&kill, "kill", "", "the moment ages are counted from, as the verb now prints it; default: the last one in the journal")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	return c
}

func show(w io.Writer, r ledger.Report, output string) error {
	if output == "json" {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	var errs []error
	line := func(format string, args ...any) {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		errs = append(errs, err)
	}
	line("commits       %s", balance(r.Account))
	if r.Async.Acknowledged > 0 {
		line("asynchronous  %s", balance(r.Async))
	}
	if p := r.Prepared; p.Acknowledged > 0 {
		line("prepared      %d acknowledged: %d committed, %d still prepared, %d lost", p.Acknowledged, p.Committed, p.Pending, p.Lost)
	}
	line("in flight     %d present, %d absent: not judged", r.InFlight.Present, r.InFlight.Absent)
	for _, l := range r.Losses {
		line("lost          row %d of connection %d, %s acknowledged %s%s", l.ID, l.Connection, l.Kind,
			l.AcknowledgedAt.Format("15:04:05.000"), ageOf(l.Age, " (%.3f s before the kill)"))
	}
	if r.Err() == nil {
		line("verdict       the promise was held")
	}
	return errors.Join(errs...)
}

func balance(a ledger.Account) string {
	s := fmt.Sprintf("%d acknowledged: %d present, %d lost", a.Acknowledged, a.Present, a.Lost)
	return s + ageOf(a.OldestLostAge, ", the oldest %.3f s") + ageOf(a.NewestLostAge, " and the newest %.3f s before the kill")
}

func ageOf(seconds *float64, format string) string {
	if seconds == nil {
		return ""
	}
	return fmt.Sprintf(format, *seconds)
}
