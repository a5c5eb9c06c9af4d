package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/e2e/ledger"
)

// progressEvery is the pause between two lines of progress.
const progressEvery = 2 * time.Second

func runCommand() *cobra.Command {
	var (
		config   ledger.Config
		journal  string
		duration time.Duration
	)
	c := &cobra.Command{
		Use:   "run",
		Short: "commit rows until interrupted; the server may come and go",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			if duration > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, duration)
				defer cancel()
			}
			config.Logger = slog.New(slog.NewTextHandler(c.ErrOrStderr(), nil))
			return run(ctx, journal, config, c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&journal, "journal", "ledger.journal", "file to write to, created or continued")
	f.StringVar(&config.ConnString, "dsn", "", "connection string; what it leaves out comes from PGHOST, PGPORT, ...")
	f.IntVar(&config.Connections, "connections", 4, "concurrent sessions")
	f.Float64Var(&config.Rate, "rate", 100, "transactions per second over all sessions, at most")
	f.IntVar(&config.PayloadBytes, "payload", 200, "incompressible bytes in each row")
	f.StringSliceVar(&config.SynchronousCommit, "synchronous-commit", []string{"on"}, "setting of the sessions, in turn")
	f.IntVar(&config.PreparedEvery, "prepared-every", 0, "make each n-th transaction of a session a prepared one; 0: none")
	f.DurationVar(&config.PreparedHold, "prepared-hold", time.Second, "time between PREPARE and COMMIT PREPARED")
	f.DurationVar(&config.Timeout, "timeout", 30*time.Second, "limit for connecting and for each transaction")
	f.DurationVar(&duration, "duration", 0, "end by itself after this time; 0: never")
	return c
}

func run(ctx context.Context, journal string, config ledger.Config, progress io.Writer) (err error) {
	l, err := ledger.Open(journal)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() { report(l, progress, stop) })
	err = l.Run(ctx, config)
	close(stop)
	reporter.Wait()
	s := l.Stats()
	_, _ = fmt.Fprintf(progress, "%d acknowledged, %d failed or unanswered, written down in %s\n", s.Acknowledged, s.Failed, journal)
	return err
}

// report prints a line of progress every few seconds.
func report(l *ledger.Ledger, w io.Writer, stop <-chan struct{}) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	before := l.Stats()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		s := l.Stats()
		_, _ = fmt.Fprintf(w, "%d acknowledged (%.0f/s), %d prepared, %d failed or unanswered, %d connects\n", s.Acknowledged,
			float64(s.Acknowledged-before.Acknowledged)/progressEvery.Seconds(), s.Prepared, s.Failed, s.Connects)
		before = s
	}
}

func nowCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "now",
		Short: "print this moment for verify --kill",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			at, err := ledger.Now()
			if err != nil {
				return err
			}
			return json.NewEncoder(c.OutOrStdout()).Encode(at)
		},
	}
}

// noArgs refuses arguments as a usage error.
func noArgs(c *cobra.Command, args []string) error {
	if err := cobra.NoArgs(c, args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	return nil
}
