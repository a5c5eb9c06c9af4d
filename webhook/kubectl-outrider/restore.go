package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func newRestoreCommand(a *app) *cobra.Command {
	var name, target string
	var dry bool
	cmd := &cobra.Command{
		Use: "restore [POD | TYPE/NAME]", Short: "Make a pod with a throw-away copy of a database as it was at a point", Args: atMostOne,
		Long: "Make a pod beside the original, with a copy of the database as it was at a point, restored from its archive. The original is not\n" +
			"touched: the copy has other labels, so that no Service finds it, a disk of its own, and writes no archive. Roles and passwords come\n" +
			"with the data. For a persistent volume it has another one of that size and storage class, which goes with the pod; where the claim\n" +
			"cannot be read, an empty directory on the node's disk, and a warning. It is gone when the pod is deleted.",
		Example: "  kubectl outrider restore -n shop orders-0 --target 2026-11-20T09:30:00Z\n" +
			"  kubectl outrider restore -n shop orders-0 --name orders-before --dry-run > clone.yaml",
		ValidArgsFunction: a.completePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.restore(cmd.Context(), strings.Join(args, ""), name, target, dry)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "the name of the pod that is made; POD-clone if it is left out")
	cmd.Flags().StringVar(&target, "target", "latest", "latest, a time with zone such as 2026-11-20T09:30:00Z, or an LSN; each with or without @TIMELINE")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the manifest instead of making the pod")
	return cmd
}

func (a *app) restore(ctx context.Context, original, name, target string, dry bool) error {
	c, namespace, err := a.cluster()
	if err != nil {
		return err
	}
	d, err := a.choose(ctx, c, namespace, original)
	if err != nil {
		return err
	}
	if name == "" {
		name = d.Pod + "-clone"
	}
	disks, warnings := c.Disks(ctx, d)
	pod, err := d.Clone(name, target, disks)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, w := range warnings {
		fmt.Fprintln(a.stderr, "kubectl outrider: warning:", w)
	}
	if dry {
		return a.manifest(pod)
	}
	if err := c.Create(ctx, pod); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "pod/%s is being restored to %s\n\n  kubectl -n %s logs -f %s -c outrider-restore   # how far it is\n  kubectl -n %s delete pod %s                    # when it has served\n",
		name, target, namespace, name, namespace, name)
	return nil
}
