package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"outrider.dev/webhook/internal/kubectl"
)

func newDrillCommand(a *app) *cobra.Command {
	var r kubectl.DrillRequest
	var dry bool
	cmd := &cobra.Command{
		Use: "drill [POD | TYPE/NAME]", Short: "Prove that a database can be restored: hold a restore drill, once or on a schedule", Args: atMostOne,
		Long: "Make a Job, or with --schedule a CronJob, whose pod restores the newest snapshot and all WAL, starts the database's own image on it\n" +
			"where nobody else reaches it, runs a query, checks all page checksums, records the verdict in the archive, and is gone. The original\n" +
			"is neither asked nor touched. A drill that is not passed is a Job that fails, and an alert if the policy has drill-max-age.",
		Example: "  kubectl outrider drill -n shop orders-0 --query 'select count(*) > 0 from orders'\n" +
			"  kubectl outrider drill -n shop orders-0 --schedule '30 4 * * *'\n" +
			"  kubectl outrider drill -n shop orders-0 --schedule '30 4 * * *' --dry-run > drill.yaml",
		ValidArgsFunction: a.completePod,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.drill(cmd.Context(), strings.Join(args, ""), r, dry)
		},
	}
	cmd.Flags().StringVar(&r.Name, "name", "", "the name of the CronJob, or the beginning of the Job's; POD-drill if it is left out")
	cmd.Flags().StringVar(&r.Query, "query", "", "query that must succeed and answer with at least one row, whose first column is not false; it can only read")
	cmd.Flags().StringVar(&r.Schedule, "schedule", "", "five fields of cron: hold a drill then, again and again, instead of one now")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "print the manifest instead of making anything")
	return cmd
}

func (a *app) drill(ctx context.Context, original string, r kubectl.DrillRequest, dry bool) error {
	c, namespace, err := a.cluster()
	if err != nil {
		return err
	}
	d, err := a.choose(ctx, c, namespace, original)
	if err != nil {
		return err
	}
	if r.Name == "" {
		r.Name = d.Pod + "-drill"
	}
	disks, warnings := c.Disks(ctx, d)
	drill, err := d.Drill(r, disks)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	for _, w := range warnings {
		fmt.Fprintln(a.stderr, "kubectl outrider: warning:", w)
	}
	switch {
	case dry && r.Schedule != "":
		return a.manifest(drill)
	case dry:
		return a.manifest(kubectl.JobOf(drill))
	case r.Schedule != "":
		if err := c.ScheduleDrill(ctx, drill); err != nil {
			return err
		}
		fmt.Fprintf(a.stdout, "cronjob/%s holds a restore drill of %s at %s\n\nSay how old the last passed one may become, and there is an alert:\n\n"+
			"  kubectl annotate namespace %s outrider.dev/drill-max-age=36h   # for pods that are made from now on\n", r.Name, d.Pod, r.Schedule, namespace)
		return nil
	}
	name, err := c.HoldDrill(ctx, drill)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "job/%s holds a restore drill of %s\n\n  kubectl -n %s logs -f job/%s     # how it goes\n  kubectl -n %s delete job %s      # when it has been read\n",
		name, d.Pod, namespace, name, namespace, name)
	return nil
}

// manifest prints an object to be applied.
func (a *app) manifest(object any) error {
	b, err := yaml.Marshal(object)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(b)
	return err
}
