//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"testing"
	"time"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/images"
)

// grace is how long a node may be silent before it counts as lost. It is longer than a busy machine stands still: whoever is
// silent for longer loses its pods, and with them the scenario that is being played. What waits for a lost node waits that long.
const grace = 30 * time.Second

// workers is how many nodes there are besides those of lanes: one may go and the webhook still has one for each replica.
const workers = 3

// field is the cluster that all scenarios share, closing the table of what they found.
var (
	field   *local.Cluster
	closing board
)

func TestMain(m *testing.M) {
	os.Exit(cluster.Isolated(prepare, func() int { return play(m) }))
}

// prepare builds the images, and outrider for this machine, where the network of the host is, for modules that are not there
// yet.
func prepare() error {
	if _, err := images.Build(context.Background()); err != nil {
		return err
	}
	program, err := outriderHere()
	if err != nil {
		return err
	}
	if out, err := exec.Command("go", "build", "-o", program, "outrider.dev/sidecar").CombinedOutput(); err != nil {
		return fmt.Errorf("building outrider: %w: %s", err, out)
	}
	return nil
}

// play starts the cluster with the webhook in it, runs the tests and takes everything down.
func play(m *testing.M) (code int) {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	began := time.Now()
	var err error
	field, err = local.Start(ctx, workers, log, cluster.MonitorGrace(grace))
	if err == nil {
		err = addLanes(ctx)
	}
	if err == nil {
		log.Info("the cluster is up", "took", time.Since(began).Round(time.Second))
		err = install(ctx)
		log.Info("the webhook is installed", "took", time.Since(began).Round(time.Second))
	}
	if err != nil {
		code = 1
	} else {
		code = m.Run()
		err = closing.print(os.Stdout)
	}
	if field != nil {
		err = errors.Join(err, field.Stop())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// install installs the webhook as people do, and waits until it answers.
func install(ctx context.Context) error {
	for _, args := range [][]string{
		{"apply", "-k", "testdata/install"},
		{"-n", "outrider-system", "rollout", "status", "deployment/outrider-webhook", "--timeout=120s"},
	} {
		if out, err := field.Kubectl(ctx, args...).CombinedOutput(); err != nil {
			about, _ := field.Kubectl(ctx, "-n", "outrider-system", "describe", "pods").CombinedOutput()
			logs, _ := field.Kubectl(ctx, "-n", "outrider-system", "logs", "-l", "app.kubernetes.io/name=outrider", "--tail=50").CombinedOutput()
			return fmt.Errorf("kubectl %v: %w: %s\n%s\n%s", args, err, out, about, logs)
		}
	}
	return nil
}
