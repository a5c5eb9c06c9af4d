package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"outrider.dev/webhook/internal/kubectl"
)

// Exit codes. A command that is handed to a sidecar ends with the code that it had there.
const (
	exitOK    = 0
	exitOther = 1
	exitUsage = 2
)

var (
	errUsage = errors.New("usage")
	// errFound ends check: what is wrong has been printed.
	errFound = errors.New("not everything is well")
)

// The forms of output.
const (
	outputText = ""
	outputWide = "wide"
	outputJSON = "json"
	outputYAML = "yaml"
)

// app is what all commands share.
type app struct {
	flags          *genericclioptions.ConfigFlags
	everywhere     bool // -A
	output         string
	stdout, stderr io.Writer
}

// execute runs the command that args name and returns the exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	a := &app{flags: genericclioptions.NewConfigFlags(true), stdout: stdout, stderr: stderr}
	root := newRoot(a)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var exit kubectl.ExitError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errFound):
		return exitOther
	case errors.As(err, &exit):
		return exit.Code // the program in the pod has said why
	}
	for line := range strings.SplitSeq(strings.TrimPrefix(err.Error(), errUsage.Error()+": "), "\n") {
		fmt.Fprintf(stderr, "kubectl outrider: %s\n", line)
	}
	if errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitOther
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "kubectl-outrider", Short: "See and look after databases that Outrider protects",
		Annotations:  map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl outrider"},
		SilenceUsage: true, SilenceErrors: true, Version: version(),
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
	a.flags.AddFlags(root.PersistentFlags())
	_ = root.RegisterFlagCompletionFunc("namespace", a.completeNamespace) // the flag was added above
	root.AddCommand(newStatusCommand(a), newCheckCommand(a), newWhyCommand(a), newListCommand(a), newBackupCommand(a), newRestoreCommand(a), newDrillCommand(a))
	return root
}

// cluster is the one that kubeconfig and flags name, with the namespace.
func (a *app) cluster() (c *kubectl.Cluster, namespace string, err error) {
	loader := a.flags.ToRawKubeConfigLoader()
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	// Warnings of the API server are for those who change something.
	config.WarningHandler = rest.NoWarnings{}
	if namespace, _, err = loader.Namespace(); err != nil {
		return nil, "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if a.everywhere {
		namespace = ""
	}
	c, err = kubectl.NewCluster(config)
	return c, namespace, err
}

// scopeFlag adds -A.
func (a *app) scopeFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&a.everywhere, "all-namespaces", "A", false, "all namespaces")
}

// outputFlag adds -o with the forms that a command knows beside its text.
func (a *app) outputFlag(cmd *cobra.Command, forms ...string) {
	cmd.Flags().StringVarP(&a.output, "output", "o", outputText, "one of "+strings.Join(forms, ", ")+"; otherwise text for people")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(forms, cobra.ShellCompDirectiveNoFileComp)) // the flag was added above
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if a.output != outputText && !slices.Contains(forms, a.output) {
			return fmt.Errorf("%w: -o %s: expected one of %s", errUsage, a.output, strings.Join(forms, ", "))
		}
		return nil
	}
}

// show writes v as -o asks for, or what text writes.
func (a *app) show(v any, text func() error) error {
	switch a.output {
	case outputJSON:
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(v)
	case outputYAML:
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(b)
		return err
	}
	return text()
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("%w: %s takes no argument, but was given %q; see %s --help", errUsage, cmd.CommandPath(), args[0], cmd.CommandPath())
	}
	return nil
}

// completeNamespace completes -n. What cannot be read has no completions.
func (a *app) completeNamespace(cmd *cobra.Command, _ []string, begin string) ([]string, cobra.ShellCompDirective) {
	c, _, err := a.cluster()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names, err := c.Namespaces(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, begin) }), cobra.ShellCompDirectiveNoFileComp
}

// linkedVersion is set by -ldflags "-X main.linkedVersion=v1.2.3" where the version is not in the build's own record.
var linkedVersion string //nolint:gochecknoglobals // the linker can set nothing else

func version() string {
	if linkedVersion != "" {
		return linkedVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}
