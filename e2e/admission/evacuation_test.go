package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/util/retry"

	"outrider.dev/e2e/cluster/hand"
)

const (
	reclaimed = "outrider.dev/reclaimed" // the taint
	audience  = "outrider.dev"
)

// answer is what the webhook answers to a call for evacuation.
type answer struct {
	Outcome      string `json:"outcome"`
	Message      string `json:"message"`
	Tainted      bool   `json:"tainted"`
	GraceSeconds int64  `json:"grace_seconds"`
}

// spotNodes makes nodes that a test has for itself, and returns the value of their label pool-of.
func (w *world) spotNodes(t *testing.T, count int) string {
	t.Helper()
	pool := "own-" + rand.String(6)
	for i := range count {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", pool, i), Labels: map[string]string{"pool": "spot", "pool-of": pool},
		}}
		if err := w.nodes.AddNode(t.Context(), node); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := w.client.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	return pool
}

// on is a database that may run on the nodes of a pool only, and takes some seconds to stop.
func on(pool, namespace, name string) string {
	manifest := strings.Replace(database(namespace, name), "nodeSelector: {pool: spot}", "nodeSelector: {pool-of: "+pool+"}", 1)
	return strings.Replace(manifest, "metadata: {labels: {app: "+name+"}}",
		"metadata: {labels: {app: "+name+"}, annotations: {"+hand.StopAfter+": 3s}}", 1)
}

// token is what the pod's sidecar finds in its volume: made for the pod, as a kubelet asks for it.
func (w *world) token(t *testing.T, pod *corev1.Pod, aud string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:      []string{aud},
		BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	got, err := w.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(t.Context(), "default", request, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return got.Status.Token
}

// call asks for an evacuation with a token, as the pod's sidecar would: it trusts what the pod was told at its admission
// to trust. The release of the node is so long from now.
func (w *world) call(t *testing.T, pod *corev1.Pod, token string, release time.Duration) (int, answer) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(environment(pod, "outrider", "OUTRIDER_EVACUATION_CA"))) {
		t.Fatalf("pod %s/%s was told of no authority", pod.Namespace, pod.Name)
	}
	url := environment(pod, "outrider", "OUTRIDER_EVACUATION_URL")
	replica := w.replicas(t)[0].Status.PodIP // there is no kube-proxy
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(replica, "9443"))
		},
	}
	body := fmt.Sprintf(`{"release_at": %q, "instance": "i-test"}`, time.Now().Add(release).UTC().Format(time.RFC3339))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&a); err != nil {
		t.Fatalf("%s: %v\n%s", response.Status, err, raw)
	}
	return response.StatusCode, a
}

// taint is the value of our taint on a node, "" without one.
func (w *world) taint(t *testing.T, node string) string {
	t.Helper()
	n, err := w.client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, taint := range n.Spec.Taints {
		if taint.Key == reclaimed {
			return taint.Value
		}
	}
	return ""
}

// TestEvacuation: a pod without any right asks to be moved, and is: with the time that is left, away from its node.
func TestEvacuation(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, on(w.spotNodes(t, 2), ns, "db"))
	before := w.ready(t, ns, "db-0")
	// 120 s are its grace period; a minute is left, of which 10 s are spare.
	status, a := w.call(t, before, w.token(t, before, audience), time.Minute)
	if status != http.StatusOK || a.Outcome != "evicted" || !a.Tainted || a.GraceSeconds > 50 || a.GraceSeconds < 30 {
		t.Fatalf("the answer is %d %+v, want 200, evicted with the 50 s that are left, and a taint", status, a)
	}
	if value := w.taint(t, before.Spec.NodeName); value == "" {
		t.Errorf("node %s has no taint", before.Spec.NodeName)
	}
	stopping, err := w.client.CoreV1().Pods(ns).Get(t.Context(), "db-0", metav1.GetOptions{})
	if err != nil || stopping.UID != before.UID || stopping.DeletionTimestamp == nil || *stopping.DeletionGracePeriodSeconds != a.GraceSeconds {
		t.Errorf("the pod is %+v, %v; want it to be stopping with %d s", stopping.ObjectMeta, err, a.GraceSeconds)
	}
	// Asked again it is the same, and nothing is done twice.
	if status, again := w.call(t, before, w.token(t, before, audience), time.Minute); status != http.StatusOK || again.Outcome != "terminating" {
		t.Errorf("the second answer is %d %+v, want terminating", status, again)
	}
	w.await(t, "another pod", func(ctx context.Context) error {
		pod, err := w.client.CoreV1().Pods(ns).Get(ctx, "db-0", metav1.GetOptions{})
		if err == nil && pod.UID == before.UID {
			err = errors.New("it is still the old one")
		}
		return err
	})
	if after := w.ready(t, ns, "db-0"); after.Spec.NodeName == before.Spec.NodeName || !isProtected(after) {
		t.Errorf("its successor is on %s, as before", after.Spec.NodeName)
	}
	w.evacuatedEvent(t, ns)
}

func (w *world) evacuatedEvent(t *testing.T, namespace string) {
	t.Helper()
	w.event(t, namespace, "Pod", "Evacuated", "to stop")
}

// TestEvacuationRefused: no other token moves a pod, and none moves another than its own.
func TestEvacuationRefused(t *testing.T) {
	w := shared
	ns, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	pool := w.spotNodes(t, 1)
	for _, name := range []string{"a", "b", "dead"} {
		w.apply(t, on(pool, ns, name))
	}
	a, b, dead := w.ready(t, ns, "a-0"), w.ready(t, ns, "b-0"), w.ready(t, ns, "dead-0")
	w.apply(t, on(pool, plain, "db"))
	unprotected := w.ready(t, plain, "db-0")
	steady := strings.Replace(database(ns, "steady"), "nodeSelector: {pool: spot}", "nodeSelector: {pool: steady}", 1)
	w.apply(t, steady)
	safe := w.ready(t, ns, "steady-0")

	lost := w.token(t, dead, audience)
	if out, err := w.kubectl(t, "", "-n", ns, "delete", "statefulset/dead", "pod/dead-0", "--force", "--cascade=orphan"); err != nil {
		t.Fatalf("kubectl delete: %v\n%s", err, out)
	}
	w.await(t, "pod dead-0 to be gone", func(ctx context.Context) error {
		_, err := w.client.CoreV1().Pods(ns).Get(ctx, "dead-0", metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return ignoreNotFound(err)
	})
	unbound, err := w.client.CoreV1().ServiceAccounts(ns).CreateToken(t.Context(), "default",
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	good := w.token(t, a, audience)
	for _, tt := range []struct {
		name, token string
		status      int
		outcome     string
	}{
		{"no token", "", http.StatusUnauthorized, "unauthenticated"},
		{"not a token", "x.y.z", http.StatusUnauthorized, "unauthenticated"},
		{"a token for the API server", w.token(t, a, "https://kubernetes.default.svc"), http.StatusUnauthorized, "unauthenticated"},
		{"a token for somebody else", w.token(t, a, "sts.aliyuncs.com"), http.StatusUnauthorized, "unauthenticated"},
		{"a token with another signature", good[:len(good)-8] + "AAAAAAAA", http.StatusUnauthorized, "unauthenticated"},
		{"the token of a pod that is gone", lost, http.StatusUnauthorized, "unauthenticated"},
		{"a token of no pod", unbound.Status.Token, http.StatusForbidden, "no_pod"},
		{"a pod that is not protected", w.token(t, unprotected, audience), http.StatusForbidden, "not_protected"},
		{"a node that nobody reclaims", w.token(t, safe, audience), http.StatusForbidden, "not_spot"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if status, got := w.call(t, a, tt.token, time.Minute); status != tt.status || got.Outcome != tt.outcome {
				t.Errorf("the answer is %d %+v, want %d %s", status, got, tt.status, tt.outcome)
			}
		})
	}
	t.Run("nothing has changed", func(t *testing.T) {
		for _, before := range []*corev1.Pod{a, b, unprotected, safe} {
			w.unmoved(t, before)
			if value := w.taint(t, before.Spec.NodeName); value != "" {
				t.Errorf("node %s has the taint %s", before.Spec.NodeName, value)
			}
		}
	})
	t.Run("a call moves who calls and nobody beside it", func(t *testing.T) {
		if status, got := w.call(t, a, good, time.Minute); status != http.StatusOK || got.Outcome != "evicted" {
			t.Fatalf("the answer is %d %+v, want 200 evicted", status, got)
		}
		w.unmoved(t, b)
		w.unmoved(t, unprotected)
	})
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// unmoved fails the test if a pod is not the one that it was, or stops.
func (w *world) unmoved(t *testing.T, before *corev1.Pod) {
	t.Helper()
	now, err := w.client.CoreV1().Pods(before.Namespace).Get(t.Context(), before.Name, metav1.GetOptions{})
	if err != nil || now.UID != before.UID || now.DeletionTimestamp != nil {
		t.Errorf("pod %s/%s was moved: %v", before.Namespace, before.Name, err)
	}
}

// TestEvacuationAndBudget: a disruption budget is heard as long as there is time.
func TestEvacuationAndBudget(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, on(w.spotNodes(t, 2), ns, "db")+`
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db, namespace: `+ns+`}
spec: {minAvailable: 1, selector: {matchLabels: {app: db}}}
`)
	before := w.ready(t, ns, "db-0")
	w.await(t, "the budget to count the pod", func(ctx context.Context) error {
		pdb, err := w.client.PolicyV1().PodDisruptionBudgets(ns).Get(ctx, "db", metav1.GetOptions{})
		if err == nil && pdb.Status.CurrentHealthy != 1 {
			err = fmt.Errorf("its status is %+v", pdb.Status)
		}
		return err
	})
	token := w.token(t, before, audience)
	if status, a := w.call(t, before, token, 10*time.Minute); status != http.StatusAccepted || a.Outcome != "waiting" {
		t.Fatalf("with ten minutes left the answer is %d %+v, want 202 waiting", status, a)
	}
	w.unmoved(t, before)
	// The taint keeps its first time: the second is not another notice. The pod cannot wait any longer.
	if status, a := w.call(t, before, token, time.Minute); status != http.StatusOK || a.Outcome != "deleted" {
		t.Fatalf("with a minute left the answer is %d %+v, want 200 deleted", status, a)
	}
	w.evacuatedEvent(t, ns)
}

// TestInstanceExpired: ACK says of a node that its instance goes, and all protected pods of it are moved, no others. When
// the machine was only started again, the taint is taken away.
func TestInstanceExpired(t *testing.T) {
	w := shared
	ns, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	pool := w.spotNodes(t, 1)
	w.apply(t, on(pool, ns, "one")+"---"+on(pool, ns, "two")+"---"+on(pool, plain, "db"))
	one, two, other := w.ready(t, ns, "one-0"), w.ready(t, ns, "two-0"), w.ready(t, plain, "db-0")
	node := one.Spec.NodeName
	// The instance is released five minutes after the condition was set, which is a moment from now.
	w.changeStatus(t, node, func(status *corev1.NodeStatus) { expire(status, corev1.ConditionTrue, -5*time.Minute+2*time.Second) })
	for _, before := range []*corev1.Pod{one, two} {
		w.await(t, "pod "+before.Name+" to be moved", func(ctx context.Context) error {
			now, err := w.client.CoreV1().Pods(ns).Get(ctx, before.Name, metav1.GetOptions{})
			if err == nil && now.UID == before.UID && now.DeletionTimestamp == nil {
				err = errors.New("it is as before")
			}
			return ignoreNotFound(err)
		})
	}
	w.unmoved(t, other)
	if w.taint(t, node) == "" {
		t.Errorf("node %s has no taint", node)
	}
	w.changeStatus(t, node, func(status *corev1.NodeStatus) {
		expire(status, corev1.ConditionFalse, 0)
		status.NodeInfo.BootID = "another"
	})
	w.await(t, "the taint to be taken away", func(context.Context) error {
		if value := w.taint(t, node); value != "" {
			return errors.New("it is " + value)
		}
		return nil
	})
	for _, name := range []string{"one-0", "two-0"} {
		if pod := w.ready(t, ns, name); !isProtected(pod) {
			t.Errorf("pod %s has the init containers %+v", name, pod.Spec.InitContainers)
		}
	}
}

// expire sets the condition InstanceExpired, as of so long from now.
func expire(status *corev1.NodeStatus, holds corev1.ConditionStatus, since time.Duration) {
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c corev1.NodeCondition) bool { return c.Type == "InstanceExpired" })
	status.Conditions = append(status.Conditions, corev1.NodeCondition{
		Type: "InstanceExpired", Status: holds, Reason: "InstanceToBeTerminated", LastTransitionTime: metav1.NewTime(time.Now().Add(since)),
	})
}

// changeStatus does what a node's agents do.
func (w *world) changeStatus(t *testing.T, node string, change func(*corev1.NodeStatus)) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		n, err := w.client.CoreV1().Nodes().Get(t.Context(), node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(&n.Status)
		_, err = w.client.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
