package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWebhookAway: without any replica, databases wait instead of starting empty, everything else goes on, and the
// webhook comes back by itself.
func TestWebhookAway(t *testing.T) {
	w := shared
	labelled, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	w.outage(t, func() {
		w.scale(t, 0)
		w.apply(t, database(labelled, "db"))
		w.event(t, labelled, "StatefulSet", "FailedCreate", `failed calling webhook "pods.outrider.dev"`)
		w.apply(t, database(plain, "db"))
		if pod := w.ready(t, plain, "db-0"); isProtected(pod) {
			t.Error("a pod in a namespace without the label is protected")
		}
		pods, err := w.client.CoreV1().Pods(labelled).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 0 {
			t.Errorf("in the labelled namespace there are %d pods: %v", len(pods.Items), err)
		}
		// Whoever labels everything labels the webhook's namespace, too. It must not wait for itself.
		w.labelSystem(t, "enabled")
		defer w.labelSystem(t, "disabled")
		w.scale(t, 2)
	})
	// The controller tries again by itself.
	if pod := w.ready(t, labelled, "db-0"); !isProtected(pod) {
		t.Errorf("the pod that waited has the init containers %+v", pod.Spec.InitContainers)
	}
}

// TestWebhookHangs: both replicas are there and do not answer. What they are not asked about does not wait for them.
func TestWebhookHangs(t *testing.T) {
	w := shared
	labelled, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	w.outage(t, func() {
		replicas := w.replicas(t)
		signal := func(s syscall.Signal) {
			for _, pod := range replicas {
				if err := w.nodes.Signal(system, pod.Name, s); err != nil {
					t.Error(err)
				}
			}
		}
		signal(syscall.SIGSTOP)
		defer signal(syscall.SIGCONT)
		w.apply(t, database(plain, "db"))
		w.ready(t, plain, "db-0")
		w.apply(t, database(labelled, "db")) // the rule for workloads is skipped
		w.event(t, labelled, "StatefulSet", "FailedCreate", `failed calling webhook "pods.outrider.dev"`)
	})
	if pod := w.ready(t, labelled, "db-0"); !isProtected(pod) {
		t.Errorf("the pod that waited has the init containers %+v", pod.Spec.InitContainers)
	}
}

// scale sets the number of replicas and waits until it is so.
func (w *world) scale(t *testing.T, replicas int) {
	t.Helper()
	if out, err := w.kubectl(t, "", "-n", system, "scale", "deployment/"+webhook, "--replicas="+fmt.Sprint(replicas)); err != nil {
		t.Fatalf("kubectl scale: %v\n%s", err, out)
	}
	w.await(t, fmt.Sprintf("%d replicas", replicas), func(ctx context.Context) error {
		d, err := w.client.AppsV1().Deployments(system).Get(ctx, webhook, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pods, err := w.client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{})
		if err != nil || len(pods.Items) != replicas || int(d.Status.ReadyReplicas) != replicas {
			return errors.Join(err, fmt.Errorf("there are %d pods, %d ready", len(pods.Items), d.Status.ReadyReplicas), w.lastEvents(ctx, system))
		}
		return nil
	})
}

func (w *world) labelSystem(t *testing.T, value string) {
	t.Helper()
	if out, err := w.kubectl(t, "", "label", "namespace", system, "outrider.dev/protect="+value, "--overwrite"); err != nil {
		t.Errorf("kubectl label: %v\n%s", err, out)
	}
}

// committed is a database whose template says that it has to be protected.
func committed(namespace string) string {
	return strings.Replace(database(namespace, "db"), "metadata: {labels: {app: db}}",
		"metadata: {labels: {app: db}, annotations: {outrider.dev/protect: enabled}}", 1)
}

// TestGuardHoldsWithoutTheLabel: somebody takes the label away, and the next pod would start with an empty database.
func TestGuardHoldsWithoutTheLabel(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, committed(ns))
	w.ready(t, ns, "db-0")
	if out, err := w.kubectl(t, "", "label", "namespace", ns, "outrider.dev/protect-"); err != nil {
		t.Fatalf("kubectl label: %v\n%s", err, out)
	}
	if out, err := w.kubectl(t, "", "-n", ns, "delete", "pod", "db-0"); err != nil {
		t.Fatalf("kubectl delete: %v\n%s", err, out)
	}
	w.event(t, ns, "StatefulSet", "FailedCreate", "kubectl label namespace "+ns+" outrider.dev/protect=enabled")
	if out, err := w.kubectl(t, "", "label", "namespace", ns, "outrider.dev/protect=enabled"); err != nil {
		t.Fatalf("kubectl label: %v\n%s", err, out)
	}
	if pod := w.ready(t, ns, "db-0"); !isProtected(pod) {
		t.Errorf("with the label back, the pod has the init containers %+v", pod.Spec.InitContainers)
	}
	// In a namespace that never had one, the annotation is binding from the start, and pods without it are free.
	plain := w.namespace(t, &corev1.Namespace{})
	w.apply(t, committed(plain))
	w.event(t, plain, "StatefulSet", "FailedCreate", "outrider-guard")
	w.apply(t, database(plain, "free"))
	w.ready(t, plain, "free-0")
}

// TestGuardHoldsWithoutTheWebhook: the configuration of the webhook is deleted.
func TestGuardHoldsWithoutTheWebhook(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.outage(t, func() {
		if out, err := w.kubectl(t, "", "delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", registration); err != nil {
			t.Fatalf("kubectl delete: %v\n%s", err, out)
		}
		// API servers take a moment to notice.
		w.await(t, "a pod to be admitted without protection", func(ctx context.Context) error {
			if err := w.canary.create(ctx); err == nil || !strings.Contains(err.Error(), "without protection") {
				return fmt.Errorf("creating one: %w", err)
			}
			return nil
		})
		w.apply(t, committed(ns))
		w.event(t, ns, "StatefulSet", "FailedCreate", "MutatingWebhookConfiguration outrider is installed")
		if out, err := w.kubectl(t, "", "apply", "-k", "testdata/install"); err != nil {
			t.Fatalf("kubectl apply -k: %v\n%s", err, out)
		}
	})
	if pod := w.ready(t, ns, "db-0"); !isProtected(pod) {
		t.Errorf("the pod that waited has the init containers %+v", pod.Spec.InitContainers)
	}
}

// TestApplyAgain: what the webhook has written into its own objects survives whoever applies the manifests again.
func TestApplyAgain(t *testing.T) {
	w := shared
	w.canary.watch(t, func() {
		if out, err := w.kubectl(t, "", "apply", "-k", "testdata/install"); err != nil {
			t.Fatalf("kubectl apply -k: %v\n%s", err, out)
		}
		for name, bundle := range w.bundles(t) {
			if len(bundle) == 0 {
				t.Errorf("the authorities are gone from the registration of %s", name)
			}
		}
		ns := w.protected(t)
		w.apply(t, database(ns, "db"))
		w.ready(t, ns, "db-0")
	})
}

// TestAudit: a database that was there before its namespace was protected is not touched, and spoken of.
func TestAudit(t *testing.T) {
	t.Parallel() // with what else only waits: the audit looks around once a minute
	w := shared
	ns := w.namespace(t, &corev1.Namespace{})
	w.apply(t, database(ns, "db"))
	before := w.ready(t, ns, "db-0")
	if out, err := w.kubectl(t, "", "label", "namespace", ns, "outrider.dev/protect=enabled"); err != nil {
		t.Fatalf("kubectl label: %v\n%s", err, out)
	}
	w.event(t, ns, "Pod", "NotProtected", "not protected")
	w.event(t, ns, "StatefulSet", "NotProtected", "not protected")
	w.unmoved(t, before)
}
