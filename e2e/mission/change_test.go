//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestRolling changes the template, so that the StatefulSet's controller replaces the pod.
func TestRolling(t *testing.T) {
	sharesNodes(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "rollout", "restart", "statefulset/orders")
	d.replaced(first, began)
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// TestUpgrade changes the image of the sidecar in the running pod. The database runs on, and it is the same writer.
func TestUpgrade(t *testing.T) {
	sharesNodes(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	for i, c := range first.Spec.InitContainers {
		if c.Name == "outrider" {
			kubectl(t, "-n", d.namespace, "patch", "pod", d.pod, "--type=json",
				"-p", fmt.Sprintf(`[{"op": "replace", "path": "/spec/initContainers/%d/image", "value": %q}]`, i, renamed(t, first)))
		}
	}
	d.until("the sidecar to be started again", func(ctx context.Context) error {
		pod, err := d.ready(ctx)
		if err == nil && restarts(pod, "outrider") == 0 {
			err = errors.New("it was not yet")
		}
		return err
	})
	d.untilProtected()
	d.advances()
	pod := d.here()
	if pod.UID != first.UID || restarts(pod, "postgres") != 0 {
		t.Errorf("the database was started again: %d times", restarts(pod, "postgres"))
	}
	if epoch := d.epoch(); epoch != 1 {
		t.Errorf("the epoch is %d, not 1", epoch)
	}
	d.andMoves(stop)
}

// TestVolume has a persistent volume: data and timeline stay. Set back to an older state, the volume is refused.
func TestVolume(t *testing.T) {
	ours(t, "changes what is on a node's disk")
	sharesNodes(t)
	d := setUp(t, "testdata/volume", spaceOf(t))
	after(t, func() {
		_ = field.Kubectl(context.Background(), "delete", "pv", "orders", "--wait=false").Run() // after the claim
	})
	d.untilProtected()
	stop := d.load()
	node := d.node()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.untilProtected()
	if status := d.says(); status["timeline"] != 1.0 {
		t.Errorf("the timeline is %v, not 1", status["timeline"])
	}
	shell := func(script string) {
		t.Helper()
		if _, err := node.Run(t.Context(), "/bin/sh", "-c", script); err != nil {
			t.Fatal(err)
		}
	}
	d.scale(0)
	shell("cp -a /var/lib/disk/orders /var/lib/disk/older")
	d.scale(1)
	d.advances()
	stop()
	d.nothingLost()
	d.scale(0)
	shell("mv /var/lib/disk/orders /var/lib/disk/newer && mv /var/lib/disk/older /var/lib/disk/orders")
	d.scale(1)
	t.Log(d.refused("older than its archive", "empty the disk", "set stale-disk to fork"))
	d.scale(0)
	shell("mv /var/lib/disk/orders /var/lib/disk/older && mv /var/lib/disk/newer /var/lib/disk/orders")
	d.scale(1)
	d.write()
	d.nothingLost()
	// The disk is lost for good, and the refusal says what to do then.
	d.scale(0)
	shell("rm -rf /var/lib/disk/orders/* && mv /var/lib/disk/older /var/lib/disk/gone")
	began := time.Now()
	d.scale(1)
	d.up(began, began)
	d.nothingLost()
}

// TestWebhookAway loses a reclaimed node while nobody answers calls for evacuation or admits pods.
func TestWebhookAway(t *testing.T) {
	ours(t, "takes a node away")
	d := protect(t)
	stop := d.load()
	first, node := d.here(), d.node()
	back := func() {
		t.Helper()
		kubectl(t, "-n", "outrider-system", "scale", "deployment/outrider-webhook", "--replicas=2")
		kubectl(t, "-n", "outrider-system", "rollout", "status", "deployment/outrider-webhook", "--timeout=120s")
	}
	kubectl(t, "-n", "outrider-system", "scale", "deployment/outrider-webhook", "--replicas=0")
	kubectl(t, "-n", "outrider-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=outrider", "--timeout=120s")
	after(t, func() {
		_ = field.Kubectl(context.Background(), "-n", "outrider-system", "scale", "deployment/outrider-webhook", "--replicas=2").Run()
	})
	began := time.Now()
	field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(time.Minute))
	d.until("the sidecar to have prepared", func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err == nil && (status["notice"] == nil || status["prepared"] == nil) {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
	kill := d.mark()
	replace(t, node.Name)
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--grace-period=0", "--force")
	d.until("a pod to be refused", func(ctx context.Context) error {
		out, err := field.Kubectl(ctx, "-n", d.namespace, "get", "events").CombinedOutput()
		if err == nil && !strings.Contains(string(out), "FailedCreate") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	back()
	d.replaced(first, began)
	stop()
	d.honest(kill)
}
