package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"outrider.dev/webhook/internal/kubectl"
)

func newStatusCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "status", Short: "Tell of every database whether it is protected, since when, and how fresh its archive is", Args: noArgs,
		Long: "Tell of every database of a namespace, or of the cluster, whether it is protected. Each sidecar is asked, through the API server or\n" +
			"with exec; one that cannot be asked is unknown, with the reason, which does not mean that it is not protected.\n\n" +
			"  SINCE     how long the state has held, or how long there has been no way back\n" +
			"  WAL-AGE   age of the oldest commit that is not in the archive yet, at most\n" +
			"  SNAPSHOT  age of the last snapshot that a restore could start from, whoever took it\n" +
			"  WINDOW    how far back every moment can be restored\n" +
			"  EPOCH     how many writers the archive has had: one for each start and restore\n" +
			"  RESTORE   how long a restore would take now (-o wide)\n" +
			"  DRILL     age of the last restore drill that was passed, if drills are expected (-o wide)\n\n" +
			"STATE is unprotected for a database without a sidecar, and suspected for a pod of a labelled namespace that may hold one.\n" +
			"It also says notice if the machine will be taken away, drill_failed or drill_overdue, and ending while the pod is deleted.",
		Example: "  kubectl outrider status -A\n  kubectl outrider status -n shop -o wide",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.status(cmd.Context()) },
	}
	a.scopeFlag(cmd)
	a.outputFlag(cmd, outputWide, outputJSON, outputYAML)
	return cmd
}

// databases is the JSON of status.
type databases struct {
	Databases []kubectl.Database `json:"databases"`
}

func (a *app) status(ctx context.Context) error {
	c, namespace, err := a.cluster()
	if err != nil {
		return err
	}
	all, err := c.Databases(ctx, namespace)
	if err != nil {
		return err
	}
	if all == nil {
		all = []kubectl.Database{}
	}
	return a.show(databases{all}, func() error {
		if len(all) == 0 {
			where := "in namespace " + namespace + "; -A looks everywhere"
			if namespace == "" {
				where = "in any namespace"
			}
			_, err := fmt.Fprintf(a.stderr, "There is no database that is protected, or should be, %s.\n", where)
			return err
		}
		return kubectl.Table(a.stdout, all, time.Now(), a.output == outputWide, namespace == "")
	})
}
