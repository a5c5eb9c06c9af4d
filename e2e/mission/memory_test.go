//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
)

// TestOutOfMemory has the kernel kill the sidecar, and then what a query of PostgreSQL's needs too much for, because their
// containers have no more memory. The pod stays, nothing is lost, and it goes on as the same writer.
func TestOutOfMemory(t *testing.T) {
	sharesNodes(t)
	d := protect(t, "memory: 1Gi", "memory: 512Mi")
	stop := d.load()
	first := d.here()

	if field == nil {
		t.Logf("the sidecar's memory is taken on its node, which is not ours to do in %s: PostgreSQL takes its own", ground.kubernetesCluster)
	} else {
		d.starveSidecar(first)
	}

	before := d.here()
	d.starve()
	began := time.Now()
	d.write()
	d.figures.outage = time.Since(began)
	d.figures.started = d.figures.outage
	d.untilProtected()
	d.advances()
	pod := d.here()
	d.wasOutOfMemory(before, pod)
	if pod.UID != first.UID {
		t.Error("the pod is another one")
	}
	// Where control groups have version 1 the kernel kills one process and PostgreSQL recovers by itself; with version 2
	// the whole container goes.
	t.Logf("starts again: sidecar %d, PostgreSQL %d", restarts(pod, "outrider"), restarts(pod, "postgres"))

	epoch := d.epoch()
	if d.saysClean(epoch) {
		t.Error("a receipt says that the database has ended orderly, and it runs")
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.provenClean(epoch)
	stop()
	d.nothingLost()
}

// starveSidecar has something else use the sidecar's memory, until the kernel kills it and it is started again.
func (d *database) starveSidecar(pod *corev1.Pod) {
	d.t.Helper()
	if err := d.node().ExhaustMemory(d.t.Context(), containerID(d.t, pod, "outrider")); err != nil {
		d.t.Fatal(err)
	}
	d.until("the sidecar to be started again", func(ctx context.Context) error {
		pod, err := d.ready(ctx)
		if err == nil && restarts(pod, "outrider") == 0 {
			err = errors.New("it was not yet")
		}
		return err
	})
	if end := lastEnd(d.here(), "outrider"); end == nil || end.Reason != "OOMKilled" {
		d.t.Errorf("the sidecar's end was %+v", end)
	}
	if n := restarts(d.here(), "postgres"); n != 0 {
		d.t.Errorf("PostgreSQL was started again: %d times", n)
	}
	d.untilProtected()
	d.advances()
}

// starve asks for more memory than PostgreSQL's container has, and makes sure that the kernel has answered: with a kill, after which the
// server has ended all sessions and recovers.
func (d *database) starve() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), long)
	defer cancel()
	witness, err := pgx.Connect(ctx, d.conn())
	if err != nil {
		d.t.Fatal(err)
	}
	defer witness.Close(context.WithoutCancel(ctx))
	c, err := pgx.Connect(ctx, d.conn())
	if err != nil {
		d.t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	var length int
	err = c.QueryRow(ctx, "SELECT length(repeat('outrider', 100000000))").Scan(&length)
	if err == nil || ctx.Err() != nil {
		d.t.Fatalf("a query that needs 800 MB: %d, %v", length, err)
	}
	d.t.Logf("the query ended with: %v", err)
	d.until("the other sessions to be ended", func(ctx context.Context) error {
		if err := witness.Ping(ctx); err == nil {
			return errors.New("one is not")
		}
		return nil
	})
}

// wasOutOfMemory makes sure that it was the kernel that has killed what PostgreSQL's container had too much of: one process
// of it, or all of them.
func (d *database) wasOutOfMemory(before, after *corev1.Pod) {
	d.t.Helper()
	if restarts(after, "postgres") > restarts(before, "postgres") {
		if end := lastEnd(after, "postgres"); end == nil || end.Reason != "OOMKilled" {
			d.t.Errorf("PostgreSQL's end was %+v", end)
		}
		return
	}
	if field == nil {
		return // which of its processes ended, and how, the node knows alone
	}
	if kills, err := d.node().MemoryKills(containerID(d.t, after, "postgres")); err != nil || kills == 0 {
		d.t.Errorf("%v: the kernel has killed %d processes of PostgreSQL", err, kills)
	}
}

// epoch is the one that the sidecar writes in.
func (d *database) epoch() int {
	d.t.Helper()
	status := d.says()
	epoch, ok := status["epoch"].(float64)
	if !ok {
		d.t.Fatalf("the epoch is %v", status["epoch"])
	}
	return int(epoch)
}

// lastEnd is how a container ended before it was started again, nil if it was not.
func lastEnd(pod *corev1.Pod, container string) *corev1.ContainerStateTerminated {
	for _, s := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
		if s.Name == container {
			return s.LastTerminationState.Terminated
		}
	}
	return nil
}
