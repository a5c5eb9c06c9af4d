package admission

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRollout replaces both replicas, twice, while pods are created all the time.
func TestRollout(t *testing.T) {
	w := shared
	w.canary.watch(t, func() {
		for range 2 {
			before := w.replicas(t)
			for _, args := range [][]string{{"restart"}, {"status", "--timeout=2m"}} {
				args = append([]string{"-n", system, "rollout", args[0], "deployment/" + webhook}, args[1:]...)
				if out, err := w.kubectl(t, "", args...); err != nil {
					t.Fatalf("kubectl %v: %v\n%s\n%s", args, err, out, w.nodes.Logs())
				}
			}
			for _, now := range w.replicas(t) {
				for _, then := range before {
					if now.UID == then.UID && now.DeletionTimestamp == nil {
						t.Errorf("replica %s is still there", now.Name)
					}
				}
			}
		}
	})
}

// TestReplicaDies: one of two ends without a word. The API server may meet it until its endpoint goes, so that creations
// in that moment can be refused; controllers ask again. What must be: the other one goes on, and both are back.
func TestReplicaDies(t *testing.T) {
	w := shared
	w.outage(t, func() {
		victim := w.replicas(t)[0]
		if err := w.nodes.Signal(system, victim.Name, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ns := w.protected(t)
		w.apply(t, database(ns, "db"))
		w.ready(t, ns, "db-0")
		w.await(t, "the replica to be back", func(ctx context.Context) error {
			pod, err := w.client.CoreV1().Pods(system).Get(ctx, victim.Name, metav1.GetOptions{})
			if err == nil && (pod.Status.ContainerStatuses[0].RestartCount == 0 || !pod.Status.ContainerStatuses[0].Ready) {
				err = fmt.Errorf("its status is %+v", pod.Status.ContainerStatuses)
			}
			return err
		})
	})
}

// TestDrain: a node with a replica is drained, as for an upgrade.
func TestDrain(t *testing.T) {
	w := shared
	node := w.replicas(t)[0].Spec.NodeName
	w.canary.watch(t, func() {
		if out, err := w.kubectl(t, "", "drain", node, "--ignore-daemonsets", "--pod-selector=app.kubernetes.io/component=webhook", "--timeout=1m"); err != nil {
			t.Errorf("kubectl drain: %v\n%s", err, out)
		}
		if out, err := w.kubectl(t, "", "uncordon", node); err != nil {
			t.Fatalf("kubectl uncordon: %v\n%s", err, out)
		}
		w.scale(t, 2) // as it was: it waits until both are ready
	})
}

// TestSecretEmptied: somebody removes what is in the Secret. New certificates come into use as in any change.
func TestSecretEmptied(t *testing.T) {
	w := shared
	w.canary.watch(t, func() {
		authority, leaf := w.certificates(t)
		if out, err := w.kubectl(t, "", "-n", system, "patch", "secret", "outrider-webhook-tls", "--type=json", `-p=[{"op": "remove", "path": "/data"}]`); err != nil {
			t.Fatalf("kubectl patch: %v\n%s", err, out)
		}
		empty, _ := fingerprints(nil)
		w.await(t, "new certificates", func(context.Context) error {
			if a, l := w.certificates(t); a == authority || l == leaf || a == empty || l == empty {
				return fmt.Errorf("authority %s, server %s", a, l)
			}
			return nil
		})
	})
}

// replicas are the pods of the webhook.
func (w *world) replicas(t *testing.T) []corev1.Pod {
	t.Helper()
	pods, err := w.client.CoreV1().Pods(system).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
	if err != nil || len(pods.Items) < 2 {
		t.Fatalf("the webhook has %d replicas: %v", len(pods.Items), err)
	}
	return pods.Items
}

// TestCertificatesChange waits until another authority signs and another certificate is served. Pods are created all the
// time, here and in all other tests.
func TestCertificatesChange(t *testing.T) {
	t.Parallel() // with what else only waits
	w := shared
	w.canary.watch(t, func() {
		authority, leaf := w.certificates(t)
		w.await(t, "another authority to sign", func(context.Context) error {
			if a, l := w.certificates(t); a == authority || l == leaf {
				return fmt.Errorf("authority %s, server %s", a, l)
			}
			return nil
		})
		// What pods are told to trust has the new one in it. Those who trust the old one still do.
		for name, bundle := range w.bundles(t) {
			if len(bundle) < 2 {
				t.Errorf("for %s the API server is told to trust %d authorities, want old and new", name, len(bundle))
			}
		}
	})
}

// certificates are fingerprints of the authority that signs and of the server's certificate.
func (w *world) certificates(t *testing.T) (authority, leaf string) {
	t.Helper()
	secret, err := w.client.CoreV1().Secrets(system).Get(t.Context(), "outrider-webhook-tls", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return fingerprints(secret.Data)
}

func fingerprints(data map[string][]byte) (authority, leaf string) {
	fingerprint := func(key string) string { return fmt.Sprintf("%x", sha256.Sum256(data[key])) }
	return fingerprint("ca.crt"), fingerprint("tls.crt")
}

// bundles are what API servers trust, for each webhook that they ask.
func (w *world) bundles(t *testing.T) map[string][]*x509.Certificate {
	t.Helper()
	mutating, err := w.client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), registration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	validating, err := w.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(t.Context(), registration, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]*x509.Certificate{}
	for _, hook := range mutating.Webhooks {
		all[hook.Name] = authorities(t, hook.ClientConfig.CABundle)
	}
	for _, hook := range validating.Webhooks {
		all[hook.Name] = authorities(t, hook.ClientConfig.CABundle)
	}
	return all
}

func authorities(t *testing.T, bundle []byte) (all []*x509.Certificate) {
	t.Helper()
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return all
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
}
