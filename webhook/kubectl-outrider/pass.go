package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"outrider.dev/webhook/internal/kubectl"
)

// Commands that the sidecar of a pod carries out. Their flags are those of the program there.

func newWhyCommand(a *app) *cobra.Command {
	cmd := a.passed("why", "Tell what happened at the last stop of a database, and what was lost")
	cmd.Flags().Uint64("epoch", 0, "tell about this epoch instead of the last one that has ended")
	cmd.Flags().Int("entries", 40, "how many entries of the journal to show at most, the last ones")
	return cmd
}

func newListCommand(a *app) *cobra.Command {
	return a.passed("list", "List the snapshots of a database and its recovery window")
}

func newBackupCommand(a *app) *cobra.Command {
	cmd := a.passed("backup", "Take a snapshot of a database now")
	cmd.Flags().Bool("full", false, "take a full snapshot")
	return cmd
}

// passed is a command that is carried out in the sidecar.
func (a *app) passed(name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " [POD | TYPE/NAME]", Short: short, Args: atMostOne,
		Long: short + ".\n\nThe sidecar of the pod does it, with its own access to the archive. The pod can be left out where a namespace has one\n" +
			"protected database. The exit code is that of the command in the pod; see outrider help exit-codes.",
		Example:           "  kubectl outrider " + name + " -n shop orders-0\n  kubectl outrider " + name + " -n shop statefulset/orders",
		ValidArgsFunction: a.completePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.pass(cmd.Context(), name, strings.Join(args, ""), forwarded(cmd))
		},
	}
	cmd.Flags().StringP("output", "o", "text", "text for people, json for machines")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)) // the flag was added above
	return cmd
}

// forwarded are the flags of the command itself that were given.
func forwarded(cmd *cobra.Command) (flags []string) {
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			flags = append(flags, "--"+f.Name+"="+f.Value.String())
		}
	})
	return flags
}

func (a *app) pass(ctx context.Context, command, name string, flags []string) error {
	c, namespace, err := a.cluster()
	if err != nil {
		return err
	}
	d, err := a.choose(ctx, c, namespace, name)
	if err != nil {
		return err
	}
	err = c.Run(ctx, kubectl.Command{
		Namespace: namespace, Pod: d.Pod, Args: slices.Concat([]string{"outrider", command}, flags), Stdout: a.stdout, Stderr: a.stderr,
	})
	return explained(err, d.Hint(command))
}

// explained puts a hint before the error of a command that did not run: exec says only that a container is not found.
func explained(err error, hint string) error {
	var ran kubectl.ExitError
	if err == nil || hint == "" || errors.As(err, &ran) {
		return err
	}
	return fmt.Errorf("%s: %w", hint, err)
}

func (a *app) choose(ctx context.Context, c *kubectl.Cluster, namespace, name string) (kubectl.Database, error) {
	d, err := c.Choose(ctx, namespace, name)
	var none kubectl.NotFoundError
	if errors.As(err, &none) {
		return d, fmt.Errorf("%w: %w", errUsage, err)
	}
	return d, err
}

func atMostOne(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%w: %s takes one pod or workload, but was given %q; see %s --help", errUsage, cmd.CommandPath(), args, cmd.CommandPath())
	}
	return nil
}

// completePod completes the name of a protected pod. What cannot be read has no completions.
func (a *app) completePod(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	c, namespace, err := a.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	all, err := c.Names(cmd.Context(), namespace)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, begin) }), cobra.ShellCompDirectiveNoFileComp
}
