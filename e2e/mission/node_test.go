//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/cluster"
)

// reclaimed is the taint of a node that is about to go.
const reclaimed = "outrider.dev/reclaimed"

func tainted(ctx context.Context, name string) error {
	node, err := nodeObject(ctx, name)
	if err != nil {
		return err
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == reclaimed {
			return nil
		}
	}
	return fmt.Errorf("its taints are %v", node.Spec.Taints)
}

func notReady(ctx context.Context, name string) error {
	node, err := nodeObject(ctx, name)
	if err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status != corev1.ConditionTrue {
			return nil
		}
	}
	return errors.New("it counts as ready")
}

func nodeObject(ctx context.Context, name string) (*corev1.Node, error) {
	client, err := field.Client()
	if err != nil {
		return nil, err
	}
	return client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
}

// replace takes a node away, if it is still there, and brings a new one of that name at the test's end.
func replace(t *testing.T, name string) {
	t.Helper()
	if node := field.Node(name); node != nil {
		if err := node.Lose(); err != nil {
			t.Fatal(err)
		}
	}
	if err := field.Forget(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	renew(t, name)
}

// renew brings a new node at the test's end.
func renew(t *testing.T, name string) {
	t.Helper()
	after(t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*long)
		defer cancel()
		if err := addNode(ctx, name); err != nil {
			t.Error(err)
		}
	})
}

// cordon keeps new pods off a node until the test's end.
func cordon(t *testing.T, name string) {
	t.Helper()
	kubectl(t, "cordon", name)
	after(t, func() { _ = field.Kubectl(context.Background(), "uncordon", name).Run() }) // it may be gone
}

// node is where the pod is.
func (d *database) node() *cluster.Node {
	d.t.Helper()
	node := field.Node(d.here().Spec.NodeName)
	if node == nil {
		d.t.Fatal("the pod's node is not there")
	}
	return node
}

// containerID is what containerd calls one of the pod's containers.
func containerID(t *testing.T, pod *corev1.Pod, container string) string {
	t.Helper()
	for _, s := range append(pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses...) {
		if id, ok := strings.CutPrefix(s.ContainerID, "containerd://"); ok && s.Name == container {
			return id
		}
	}
	t.Fatalf("pod %s has no running container %s", pod.Name, container)
	return ""
}

// ctr runs containerd's own client on a node.
func ctr(t *testing.T, node *cluster.Node, args ...string) (string, error) {
	t.Helper()
	out, err := node.Run(t.Context(), cluster.Ctr, append([]string{"-n", "k8s.io"}, args...)...)
	return string(out), err
}

// kill kills the first process of a container, and with it the others.
func (d *database) kill(container string) {
	d.t.Helper()
	pod := d.here()
	if _, err := ctr(d.t, d.node(), "tasks", "kill", "--signal", "SIGKILL", containerID(d.t, pod, container)); err != nil {
		d.t.Fatal(err)
	}
}
