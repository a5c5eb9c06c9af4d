//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestDrain drains the node as people do.
func TestDrain(t *testing.T) {
	takesNode(t)
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
	sharesNodes(t)
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
	ours(t, "kills containers on their node, and starts its kubelet anew")
	sharesNodes(t)
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
	before := d.here()
	if err := d.node().RestartKubelet(nil); err != nil {
		t.Fatal(err)
	}
	d.synced(before)
	d.advances()
	pod := d.here()
	if pod.UID != first.UID {
		t.Error("the pod is another one")
	}
	for _, container := range []string{"postgres", "outrider", "outrider-restore"} {
		if was, is := restarts(before, container), restarts(pod, container); was != is {
			t.Errorf("the new kubelet has started %s anew: %d times, %d before", container, is, was)
		}
	}
	d.andMoves(stop)
}

// synced waits until a kubelet that was started anew looks after the pod: then it has probed it.
func (d *database) synced(pod *corev1.Pod) {
	d.t.Helper()
	probes := "/api/v1/nodes/" + pod.Spec.NodeName + "/proxy/metrics/probes"
	d.until("the kubelet to probe the pod", func(ctx context.Context) error {
		said, err := field.Kubectl(ctx, "get", "--raw", probes).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, said)
		}
		for line := range strings.Lines(string(said)) {
			if strings.HasPrefix(line, "prober_probe_total{") && strings.Contains(line, fmt.Sprintf("pod_uid=%q", pod.UID)) &&
				strings.Contains(line, `container="postgres"`) && strings.Contains(line, `result="successful"`) {
				return nil
			}
		}
		return errors.New("it has not yet")
	})
}

// andMoves ends a scenario in which the database has stayed where it was: nothing may say that it has ended, and the next pod has
// all of it from the archive.
func (d *database) andMoves(stop func()) {
	d.t.Helper()
	d.untilProtected()
	first, epoch := d.here(), d.epoch()
	d.until("outrider why to know that it runs", func(ctx context.Context) error {
		// A receipt may be of an earlier stop in the same pod, as the kubelet stops orderly what is left of one without a sandbox.
		said, err := d.why(ctx, "--epoch", strconv.Itoa(epoch))
		if err == nil && !strings.Contains(said, "\nrunning: ") {
			err = errors.New(said)
		}
		return err
	})
	began := time.Now()
	kubectl(d.t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(first, began)
	d.provenClean(epoch)
	stop()
	d.nothingLost()
}

// TestSandbox kills what holds the pod's namespaces, as a reboot of the node does: all containers start anew on the same
// disk.
func TestSandbox(t *testing.T) {
	ours(t, "kills a pod's sandbox on its node")
	sharesNodes(t)
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
	d.andMoves(stop)
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
