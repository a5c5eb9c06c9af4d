//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRestricted protects a database in a namespace that admits restricted pods only.
func TestRestricted(t *testing.T) {
	sharesNodes(t)
	deletedIn(t, "testdata/restricted")
}

// TestQuota protects a database in a namespace where each container has to say what it needs.
func TestQuota(t *testing.T) {
	sharesNodes(t)
	deletedIn(t, "testdata/quota")
}

// deletedIn deletes the pod of a variant of the example under load.
func deletedIn(t *testing.T, dir string) {
	d := settle(t, dir)
	stop := d.load()
	first := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(first, began)
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// TestDeployment restarts a Deployment, whose pods have another name each.
func TestDeployment(t *testing.T) {
	sharesNodes(t)
	d := found(t, "web", "sessions")
	d.install("testdata/deployment")
	d.pod = d.podOf("sessions", "")
	d.follow()
	d.until("the pod to be ready", func(ctx context.Context) error { _, err := d.ready(ctx); return err })
	d.untilProtected()
	stop := d.load()
	first := d.pod
	began := time.Now()
	kubectl(t, "-n", d.namespace, "rollout", "restart", "deployment/sessions")
	d.untilGone("")
	gone := time.Now()
	d.provenClean(1)
	d.pod = d.podOf("sessions", first)
	d.door.lead(named(d.namespace, d.pod))
	d.up(began, gone)
	d.untilProtected()
	d.advances()
	stop()
	d.nothingLost()
}

// podOf is the name of the only pod with that label, once there is one with another name than not.
func (d *database) podOf(app, not string) (name string) {
	d.t.Helper()
	d.until("the Deployment's pod", func(ctx context.Context) error {
		client, err := ground.Client()
		if err != nil {
			return err
		}
		pods, err := client.CoreV1().Pods(d.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || pods.Items[0].Name == not {
			return fmt.Errorf("there are %v", namesOf(pods.Items))
		}
		name = pods.Items[0].Name
		return nil
	})
	return name
}

func namesOf(pods []corev1.Pod) []string {
	var names []string
	for _, p := range pods {
		names = append(names, p.Name)
	}
	return names
}
