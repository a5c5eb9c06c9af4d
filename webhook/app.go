package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// app is what all commands share.
type app struct {
	args           []string
	stdin          io.Reader
	stdout, stderr io.Writer
}

func newApp(args []string, stdin io.Reader, stdout, stderr io.Writer) *app {
	return &app{args: args, stdin: stdin, stdout: stdout, stderr: stderr}
}

// Exit codes.
const (
	exitOK      = 0
	exitOther   = 1
	exitUsage   = 2
	exitRefused = 7 // the same number as in outrider: something was refused to protect data
)

var (
	errUsage   = errors.New("usage")
	errRefused = errors.New("refused")
)

// execute runs the command that args name and returns the exit code.
func execute(ctx context.Context, a *app) int {
	root := &cobra.Command{
		Use: "outrider-webhook", Short: "Makes PostgreSQL pods protected by Outrider",
		SilenceUsage: true, SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: there is no command %q; see %s --help", errUsage, args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see %s --help", errUsage, err, cmd.CommandPath())
	})
	root.SetArgs(a.args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.AddCommand(newServeCommand(a), newInjectCommand(a), newVersionCommand(a))
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errRefused):
		return exitRefused // each refusal was said in its place
	}
	for line := range strings.SplitSeq(strings.TrimPrefix(err.Error(), errUsage.Error()+": "), "\n") {
		fmt.Fprintf(a.stderr, "outrider-webhook: %s\n", line)
	}
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitOther
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no argument, but was given %q; see %s --help", errUsage, cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

// linkedVersion is set by -ldflags "-X main.linkedVersion=v1.2.3" where the version is not in the build's own record.
var linkedVersion string //nolint:gochecknoglobals // the linker can set nothing else

// linkedImage is set by -ldflags "-X main.linkedImage=..." to the name of the sidecar's image that belongs to this program.
var linkedImage string //nolint:gochecknoglobals // the linker can set nothing else

func version() string {
	if linkedVersion != "" {
		return linkedVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintf(a.stdout, "outrider-webhook %s\n", version())
			return nil
		},
	}
}
