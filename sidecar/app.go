package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/oss"
)

// app is what all commands share: where output goes, what was configured, and the archives that were opened.
type app struct {
	args           []string
	env            func(string) (string, bool)
	stdout, stderr io.Writer
	log            *slog.Logger // set before a command runs

	// given holds the flags of the command that runs which stand for a variable, by the variable's name.
	given   map[string]*pflag.Flag
	output  string                // of the flag -o
	reg     prometheus.Registerer // of a command that publishes metrics; set before an archive is opened
	opened  sync.Mutex
	buckets map[string]*oss.Bucket // by location
	reports *evacuation.Reporter   // of a restore in a pod; nil where nobody can be told
}

func newApp(args []string, env func(string) (string, bool), stdout, stderr io.Writer) *app {
	return &app{
		args: args, env: env, stdout: stdout, stderr: stderr, given: map[string]*pflag.Flag{}, buckets: map[string]*oss.Bucket{},
		log: slog.New(slog.DiscardHandler), output: outputText,
	}
}

// execute runs the command that args name and returns the exit code. ctx ends with the first signal.
func execute(ctx context.Context, a *app) exitCode {
	root := newRootCommand(a)
	root.SetArgs(a.args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := errors.Join(root.ExecuteContext(ctx), a.close())
	if err != nil {
		a.sayError(ctx, err)
	}
	return exitOf(err)
}

// close releases what commands have opened.
func (a *app) close() error {
	a.opened.Lock()
	defer a.opened.Unlock()
	var errs []error
	for _, b := range a.buckets {
		errs = append(errs, b.Close())
	}
	clear(a.buckets)
	return errors.Join(errs...)
}

// newRootCommand builds the tree of commands. Run, restore, backup and the others each have a file of their own.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "outrider",
		Short: "Protect a PostgreSQL server with an archive in Alibaba Cloud OSS",
		Long: "Outrider keeps an archive of a PostgreSQL server in Alibaba Cloud OSS and rebuilds the server from it.\n" +
			"A flag with a variable in brackets can be given as that environment variable, too; the flag wins.",
		SilenceUsage:  true,
		SilenceErrors: true,
		// How many letters of a mistyped command may be wrong for another one to be suggested.
		SuggestionsMinimumDistance: 2,
		Args:                       unknownCommand,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			a.collectFlags(cmd.Flags())
			return a.setLogger()
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see %s --help", err, cmd.CommandPath())
	})
	a.commonFlags(root.PersistentFlags())
	root.AddCommand(
		newRunCommand(a), newRestoreCommand(a), newBackupCommand(a), newStatusCommand(a), newUnprotectCommand(a),
		newListCommand(a), newWhyCommand(a), newVerifyCommand(a), newDrillCommand(a), newExpireCommand(a), newVersionCommand(a),
		&cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: exitHelp()},
	)
	return root
}

// unknownCommand names the command that may have been meant.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		return usagef("there is no command %q: the nearest is %q", args[0], near[0])
	}
	return usagef("there is no command %q; see %s --help", args[0], cmd.CommandPath())
}

// noArgs refuses arguments of a command that takes flags only.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, but was given %q; see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

// terminal tells whether w is one, and so a person waits there.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
