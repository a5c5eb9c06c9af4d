package main

import (
	"context"

	"github.com/spf13/cobra"
)

func newCheckCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "check", Short: "Look for what is wrong or will hurt, with a remedy for each", Args: noArgs,
		Long: "Look at Kubernetes and the clock of this machine, the webhook and its certificates, labels and policies of namespaces and the\n" +
			"credentials they name, every database with its bucket, clock, replication slot, restore drills, grace period and tolerations, and\n" +
			"disruption budgets. Each labelled namespace is tried with a pod that is created with a dry run.\n\n" +
			"Of a Secret with credentials only the names of its keys are told. What you may not see is unknown, with the right that is missing.\n\n" +
			"It changes nothing. The exit code is 1 if something failed, or could not be told.",
		Example: "  kubectl outrider check -A\n  kubectl outrider check -n shop -o json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.check(cmd.Context()) },
	}
	a.scopeFlag(cmd)
	a.outputFlag(cmd, outputJSON, outputYAML)
	return cmd
}

func (a *app) check(ctx context.Context) error {
	c, namespace, err := a.cluster()
	if err != nil {
		return err
	}
	found, err := c.Check(ctx, namespace)
	if err != nil {
		return err
	}
	if err := a.show(found, func() error { return found.Text(a.stdout) }); err != nil {
		return err
	}
	if !found.Well() {
		return errFound
	}
	return nil
}
