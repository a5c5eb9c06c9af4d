//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestDrain drains the node as people do.
func TestDrain(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first := d.here()
	after(t, func() { _ = field.Kubectl(context.Background(), "uncordon", first.Spec.NodeName).Run() })
	began := time.Now()
	kubectl(t, "drain", first.Spec.NodeName, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=240s")
	d.moved(first, began)
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// TestForce deletes the pod without waiting for anybody. The receipt may only say clean if it was.
func TestForce(t *testing.T) {
	t.Parallel()
	d := protect(t)
	stop := d.load()
	first := d.here()
	ended := d.witness(first)
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--grace-period=0", "--force")
	d.replaced(first, began)
	stop()
	d.honest(ended())
}

// TestInPlace breaks one thing after the other in a pod that stays where it is. Nothing is lost, and no restore touches the
// data.
func TestInPlace(t *testing.T) {
	t.Parallel()
	d := protect(t)
	stop := d.load()
	first := d.here()
	for _, container := range []string{"postgres", "outrider"} {
		before := restarts(d.here(), container)
		d.kill(container)
		d.until(container+" to be started again", func(ctx context.Context) error {
			pod, err := d.ready(ctx)
			if err == nil && restarts(pod, container) == before {
				err = errors.New("it was not yet")
			}
			return err
		})
		d.untilProtected()
		d.advances()
	}
	if err := d.node().RestartKubelet(nil); err != nil {
		t.Fatal(err)
	}
	d.advances()
	if pod := d.here(); pod.UID != first.UID {
		t.Error("the pod is another one")
	}
	stop()
	d.nothingLost()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.nothingLost()
}

// TestSandbox kills what holds the pod's namespaces, as a reboot of the node does: all containers start anew on the same
// disk.
func TestSandbox(t *testing.T) {
	t.Parallel()
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := d.node()
	out, err := ctr(t, node, "containers", "list", "-q",
		fmt.Sprintf(`labels."io.kubernetes.pod.uid"==%q,labels."io.cri-containerd.kind"==sandbox`, first.UID))
	ids := strings.Fields(out) // the last one, after a warning
	if err != nil || len(ids) == 0 {
		t.Fatalf("looking for the sandbox: %v: %q", err, out)
	}
	if _, err := ctr(t, node, "tasks", "kill", "--signal", "SIGKILL", ids[len(ids)-1]); err != nil {
		t.Fatal(err)
	}
	d.until("another sandbox", func(ctx context.Context) error {
		pod, err := d.ready(ctx)
		if err == nil && pod.Status.PodIP == first.Status.PodIP {
			err = errors.New("the address is the same")
		}
		return err
	})
	d.untilProtected()
	d.advances()
	if pod := d.here(); pod.UID != first.UID {
		t.Error("the pod is another one")
	}
	stop()
	d.nothingLost()
}

// advances waits until the load goes on.
func (d *database) advances() {
	d.t.Helper()
	before := d.ledger.Stats().Acknowledged
	d.until("more rows", func(context.Context) error {
		if n := d.ledger.Stats().Acknowledged; n < before+20 {
			return fmt.Errorf("%d since", n-before)
		}
		return nil
	})
}

func restarts(pod *corev1.Pod, container string) int32 {
	for _, s := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
		if s.Name == container {
			return s.RestartCount
		}
	}
	return -1
}
