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

// ground is where the scenarios are played. field is the same if that is a cluster of our own, whose nodes may be taken away, and
// nil otherwise. closing is the table of what was found.
var (
	ground  arena
	field   *local.Cluster
	closing board
)

func TestMain(m *testing.M) {
	another, err := anotherCluster()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case another:
		os.Exit(visit(m))
	}
	os.Exit(cluster.Isolated(prepare, func() int { return play(m) }))
}

// prepare builds the images, and outrider for this machine, where the network of the host is, for modules that are not there
// yet.
func prepare() error {
	if _, err := images.Build(context.Background()); err != nil {
		return err
	}
	return buildOutrider()
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
		ground = own(field)
		err = ground.install(ctx)
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

// install installs the webhook in a cluster of our own as people do, and waits until it answers.
func install(ctx context.Context, kubectl caller) error {
	if out, err := kubectl(ctx, "apply", "-k", "testdata/install").CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl apply: %w: %s", err, out)
	}
	return rolledOut(ctx, kubectl, [2]string{"outrider-system", "outrider-webhook"})
}

// caller makes calls of kubectl.
type caller func(ctx context.Context, args ...string) *exec.Cmd

// rolledOut waits until Deployments are ready. Each is a namespace and a name. The error tells what their pods say.
func rolledOut(ctx context.Context, kubectl caller, deployments ...[2]string) error {
	for _, d := range deployments {
		args := []string{"-n", d[0], "rollout", "status", "deployment/" + d[1], "--timeout=120s"}
		if out, err := kubectl(ctx, args...).CombinedOutput(); err != nil {
			about, _ := kubectl(ctx, "-n", d[0], "describe", "pods").CombinedOutput()
			logs, _ := kubectl(ctx, "-n", d[0], "logs", "-l", "app.kubernetes.io/name", "--tail=50").CombinedOutput()
			return fmt.Errorf("kubectl %v: %w: %s\n%s\n%s", args, err, out, about, logs)
		}
	}
	return nil
}
