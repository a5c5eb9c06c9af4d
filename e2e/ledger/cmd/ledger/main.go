// Command ledger loads a PostgreSQL server with numbered rows, writes down outside the database when each commit was
// acknowledged, and later says which acknowledged rows a server has lost. See package ledger for what counts.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes: 0 for success, these otherwise.
const (
	exitFailed  = 1 // could not do it, or could not tell
	exitUsage   = 2
	exitNotHeld = 3 // the comparison was made and the promise was not held
)

// errNotHeld marks a verdict as opposed to a failure.
var errNotHeld = errors.New("the promise was not held")

// errUsage marks a command line that cannot be followed.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNotHeld):
		return exitNotHeld
	case errors.Is(err, errUsage):
		return exitUsage
	default:
		return exitFailed
	}
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:           "ledger",
		Short:         "commit numbered rows, and judge later which of them a server has lost",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w: %w", errUsage, err) })
	c.AddCommand(runCommand(), verifyCommand(), nowCommand())
	return c
}
