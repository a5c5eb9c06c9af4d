//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/ledger"
)

// TestDelete deletes the pod of a database that has no volume. It comes back on another node and has everything.
func TestDelete(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	cordon(t, first.Spec.NodeName)
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.moved(first, began)
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// TestNotice reclaims the node under a loaded database after a notice, and then takes it away.
func TestNotice(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := field.Node(first.Spec.NodeName)
	began := time.Now()
	field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(2 * time.Minute))
	until(t, "the taint of the node", func(ctx context.Context) error { return tainted(ctx, node.Name) })
	d.note("the node was tainted %.1f s after the notice", time.Since(began).Seconds())
	d.moved(first, began)
	d.provenClean(1)
	replace(t, node.Name)
	stop()
	d.nothingLost()
}

// TestLost takes the node away without a word. What was acknowledged is there but for the last second or so.
func TestLost(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := field.Node(first.Spec.NodeName)
	began := time.Now()
	kill := d.mark()
	if err := node.Lose(); err != nil {
		t.Fatal(err)
	}
	// What a cloud's controller does when it sees that the instance is gone.
	until(t, "the node to count as lost", func(ctx context.Context) error { return notReady(ctx, node.Name) })
	d.note("the node counts as lost after %.1f s", time.Since(began).Seconds())
	replace(t, node.Name)
	d.moved(first, began)
	stop()
	d.honest(kill)
}

// here is the pod as it is now, or as soon as it is ready: a probe that a busy machine answered late is no reason to fail.
func (d *database) here() (pod *corev1.Pod) {
	d.t.Helper()
	d.until("the pod to be ready", func(ctx context.Context) (err error) { pod, err = d.ready(ctx); return err })
	return pod
}

// moved waits until the database accepts writes in another pod on another node.
func (d *database) moved(first *corev1.Pod, began time.Time) {
	d.t.Helper()
	if second := d.replaced(first, began); second.Spec.NodeName == first.Spec.NodeName {
		d.t.Errorf("it came back on %s", second.Spec.NodeName)
	}
}

// replaced waits until the database accepts writes in another pod, which it returns, and notes what took how long.
func (d *database) replaced(first *corev1.Pod, began time.Time) *corev1.Pod {
	d.t.Helper()
	d.until("another pod", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		if err == nil && pod.UID == first.UID {
			err = errors.New("the first one is there")
		}
		return err
	})
	second := d.up(began, time.Now())
	d.t.Logf("from %s to %s", first.Spec.NodeName, second.Spec.NodeName)
	return second
}

// nothingLost judges after an orderly stop, once the load has ended.
func (d *database) nothingLost() {
	d.t.Helper()
	report := d.judge(ledger.Options{})
	d.t.Logf("%d of %d rows", report.Present, report.Acknowledged)
}
