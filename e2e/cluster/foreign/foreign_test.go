package foreign_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/foreign"
)

func TestMain(m *testing.M) { os.Exit(cluster.Isolated(nil, m.Run)) }

// luggage is what a guest brings, with its mark.
const luggage = `
apiVersion: v1
kind: Namespace
metadata: {name: system, labels: {app.kubernetes.io/managed-by: outrider-e2e}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: system, labels: {app.kubernetes.io/managed-by: outrider-e2e}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader, labels: {app.kubernetes.io/managed-by: outrider-e2e}}
`

// TestGuest has guests come to a cluster in which others are, one after the other.
func TestGuest(t *testing.T) {
	host, err := cluster.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := host.Stop(); err != nil {
			t.Error(err)
		}
	}()
	client, err := host.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("removes what one that was killed has left, and leaves nothing", func(t *testing.T) { takesTheRoom(t, host, client) })
	t.Run("leaves others alone", func(t *testing.T) { leavesOthersAlone(t, host, client) })
}

// takesTheRoom has a second guest come while the first one is there, and again when that has not been heard of for long.
func takesTheRoom(t *testing.T, host *cluster.Cluster, client kubernetes.Interface) {
	first, second := open(t, host), open(t, host)
	if err := first.Install(t.Context(), luggage); err != nil {
		t.Fatal(err)
	}
	claim(t, first, "left")
	err := second.Install(t.Context(), luggage)
	if err == nil || !strings.Contains(err.Error(), "has scenarios already: those of process") {
		t.Fatalf("there are two guests: %v", err)
	}
	for range 2 { // the first guest may have said something in between
		silence(t, client)
		if err = second.Install(t.Context(), luggage); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	gone(t, client, "left")
	claim(t, second, "shop")
	leave(t, second)
	if err := second.Claim(t.Context(), "late"); err == nil {
		t.Error("a namespace was claimed after the end")
	}
	leave(t, first) // it has nothing more to remove
	gone(t, client, "system", "shop", "late")
	if _, err := client.RbacV1().ClusterRoles().Get(t.Context(), "reader", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a role is left: %v", err)
	}
}

func leavesOthersAlone(t *testing.T, host *cluster.Cluster, client kubernetes.Interface) {
	role := strings.ReplaceAll(luggage[strings.LastIndex(luggage, "apiVersion"):], "outrider-e2e", "somebody")
	cmd := host.Kubectl(t.Context(), "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(role + "rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	guest := open(t, host)
	if err := guest.Install(t.Context(), luggage); err == nil || !strings.Contains(err.Error(), "has ClusterRole reader, which") {
		t.Errorf("what somebody else has installed was not seen: %v", err)
	}
	leave(t, guest)
	gone(t, client, "system")
	there, err := client.RbacV1().ClusterRoles().Get(t.Context(), "reader", metav1.GetOptions{})
	if err != nil || len(there.Rules) != 1 {
		t.Errorf("the role of somebody else is %+v, %v", there, err)
	}
	if err := guest.Claim(t.Context(), "default"); err == nil {
		t.Error("it claimed a namespace of somebody else")
	}
}

// TestNoGuess refuses a kubeconfig that does not say which cluster is meant.
func TestNoGuess(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(empty, []byte("apiVersion: v1\nkind: Config\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, at := range map[string][2]string{
		"absolute":           {"kubeconfig", ""},
		"no such file":       {empty + "-not-there", ""},
		"no current context": {empty, ""},
		"does not exist":     {empty, "production"},
	} {
		if c, err := foreign.Open(at[0], at[1]); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%s with context %q: %v, %v", at[0], at[1], c, err)
		}
	}
}

// TestPulled looks at what a Deployment and a configuration say.
func TestPulled(t *testing.T) {
	const manifest = `
data:
  config.yaml: |
    image: outrider:dev
spec:
  containers:
  - image: docker.io/library/postgres:17
    imagePullPolicy: IfNotPresent
    name: image
`
	want := strings.NewReplacer("outrider:dev", "registry.example.com/team/outrider:dev", "docker.io/library/postgres", "registry.example.com/team/postgres",
		"IfNotPresent", "Always").Replace(manifest)
	if got := foreign.Pulled(manifest, "registry.example.com/team/"); got != want {
		t.Errorf("%s", got)
	}
	if got := foreign.Pulled(manifest, ""); got != manifest {
		t.Errorf("without a registry it is %s", got)
	}
}

func open(t *testing.T, host *cluster.Cluster) *foreign.Cluster {
	t.Helper()
	guest, err := foreign.Open(host.Kubeconfig(), "")
	if err != nil {
		t.Fatal(err)
	}
	return guest
}

func claim(t *testing.T, guest *foreign.Cluster, namespace string) {
	t.Helper()
	if err := guest.Claim(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
}

func leave(t *testing.T, guest *foreign.Cluster) {
	t.Helper()
	if err := guest.Leave(t.Context()); err != nil {
		t.Error(err)
	}
}

// gone fails the test if one of these namespaces is there.
func gone(t *testing.T, client kubernetes.Interface, names ...string) {
	t.Helper()
	for _, name := range names {
		there, err := client.CoreV1().Namespaces().Get(t.Context(), name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("namespace %s is there: %+v, %v", name, there.Status, err)
		}
	}
}

// silence has every guest be silent for an hour.
func silence(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	leases, err := client.CoordinationV1().Leases(corev1.NamespaceAll).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leases.Items {
		if l.Name != "scenarios" {
			continue
		}
		l.Spec.RenewTime = &metav1.MicroTime{Time: time.Now().Add(-time.Hour)}
		_, err = client.CoordinationV1().Leases(l.Namespace).Update(t.Context(), &coordinationv1.Lease{ObjectMeta: l.ObjectMeta, Spec: l.Spec}, metav1.UpdateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
}
