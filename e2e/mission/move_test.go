//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// reclaimed is the taint of a node that is about to go.
const reclaimed = "outrider.dev/reclaimed"

// TestDelete deletes the pod of a database that has no volume. It comes back on another node and has everything.
func TestDelete(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first := d.here()
	kubectl(t, "cordon", first.Spec.NodeName)
	t.Cleanup(func() { _ = field.Kubectl(context.Background(), "uncordon", first.Spec.NodeName).Run() })
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.moved(first, began)
	if receipt := d.receipt(1); receipt["clean"] != true {
		t.Errorf("the receipt of an orderly stop: %v", receipt)
	}
	stop()
	d.nothingLost()
}

// TestNotice reclaims the node under a loaded database after a notice, and then takes it away.
func TestNotice(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := field.Node(first.Spec.NodeName)
	began := time.Now()
	field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(2 * time.Minute))
	until(t, "the taint of the node", func(ctx context.Context) error { return tainted(ctx, node.Name) })
	t.Logf("tainted after %.1f s", time.Since(began).Seconds())
	d.moved(first, began)
	if receipt := d.receipt(1); receipt["clean"] != true {
		t.Errorf("the receipt of an orderly stop: %v", receipt)
	}
	replace(t, node.Name)
	stop()
	d.nothingLost()
}

// TestLost takes the node away without a word. What was acknowledged is there but for the last second or so.
func TestLost(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := field.Node(first.Spec.NodeName)
	began := time.Now()
	if err := node.Lose(); err != nil {
		t.Fatal(err)
	}
	kill, err := d.ledger.MarkKill()
	if err != nil {
		t.Fatal(err)
	}
	// What a cloud's controller does when it sees that the instance is gone.
	until(t, "the node to count as lost", func(ctx context.Context) error { return notReady(ctx, node.Name) })
	t.Logf("the node counts as lost after %.1f s", time.Since(began).Seconds())
	replace(t, node.Name)
	d.moved(first, began)
	stop()
	report := d.judge(ledger.Options{Kill: kill, RPO: world.Judged()})
	t.Logf("%d of %d rows, %d older than %s are lost", report.Present, report.Acknowledged, report.LostOlderThan(world.RPO), world.RPO)
}

// here is the pod as it is now.
func (d *database) here() *corev1.Pod {
	d.t.Helper()
	pod, err := d.ready(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return pod
}

// moved waits until the database accepts writes in another pod on another node, and says what took how long.
func (d *database) moved(first *corev1.Pod, began time.Time) {
	d.t.Helper()
	var second *corev1.Pod
	d.until("another pod", func(ctx context.Context) (err error) {
		if second, err = d.object(ctx); err == nil && second.UID == first.UID {
			err = errors.New("the first one is there")
		}
		return err
	})
	gone := time.Now()
	d.write()
	written := time.Now()
	d.until("the pod to be ready", func(ctx context.Context) (err error) { second, err = d.ready(ctx); return err })
	if second.Spec.NodeName == first.Spec.NodeName {
		d.t.Errorf("it came back on %s", second.Spec.NodeName)
	}
	d.t.Logf("from %s to %s: first pod gone after %.1f s, first write %.1f s later, %.1f s in all",
		first.Spec.NodeName, second.Spec.NodeName, gone.Sub(began).Seconds(), written.Sub(gone).Seconds(), written.Sub(began).Seconds())
}

// nothingLost judges after an orderly stop, once the load has ended.
func (d *database) nothingLost() {
	d.t.Helper()
	report := d.judge(ledger.Options{})
	d.t.Logf("%d of %d rows", report.Present, report.Acknowledged)
}

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
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if _, err := field.AddWorker(ctx, name, nil); err != nil {
			t.Error(err)
		}
	})
}
