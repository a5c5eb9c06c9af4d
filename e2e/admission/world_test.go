package admission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/hand"
)

// Names of what the manifests install.
const (
	system       = "outrider-system"
	webhook      = "outrider-webhook"
	registration = "outrider"
)

// patience is how long a test waits for something. Nothing takes that long but on a machine that does much else.
const patience = 2 * time.Minute

// world is the cluster with the webhook installed.
type world struct {
	cluster *cluster.Cluster
	client  kubernetes.Interface
	nodes   *hand.Kubelets
	canary  *canary
}

// shared is the one installation. TestMain makes it.
var shared *world

func TestMain(m *testing.M) {
	os.Exit(cluster.Isolated(fetch, func() int {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var err error
		if shared, err = install(ctx); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		cancel()
		if err := shared.canary.verdict(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
		if code != 0 {
			fmt.Fprintf(os.Stderr, "%s", shared.nodes.Logs())
		}
		if err := errors.Join(shared.nodes.Stop(), shared.cluster.Stop()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}))
}

// fetch gets the modules that the programs need while there is a network.
func fetch() error {
	if out, err := exec.Command("go", "list", "-deps", "outrider.dev/webhook", "outrider.dev/webhook/kubectl-outrider").CombinedOutput(); err != nil {
		return fmt.Errorf("fetching the modules of outrider-webhook: %w\n%s", err, out)
	}
	return nil
}

// install builds the webhook, starts a cluster of four nodes, and installs the one into the other.
func install(ctx context.Context) (*world, error) {
	program := os.TempDir() + "/outrider-webhook"
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "outrider.dev/webhook")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building outrider-webhook: %w\n%s", err, out)
	}
	w := &world{}
	var err error
	if w.cluster, err = cluster.Start(ctx); err != nil {
		return nil, err
	}
	config := w.cluster.Config()
	config.WarningHandler = rest.NoWarnings{} // what kubectl prints is looked at
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	w.nodes, err = hand.Start(ctx, w.cluster, hand.Options{Programs: map[string]string{webhook: program}})
	if err != nil {
		return nil, err
	}
	for name, pool := range map[string]string{"steady-1": "steady", "steady-2": "steady", "spot-1": "spot", "spot-2": "spot"} {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"pool": pool}}}
		if pool == "spot" { // for databases; the webhook stays where nothing is evacuated
			node.Spec.Taints = []corev1.Taint{{Key: "pool", Value: "spot", Effect: corev1.TaintEffectNoSchedule}}
		}
		if err := w.nodes.AddNode(ctx, node); err != nil {
			return nil, err
		}
	}
	if out, err := w.cluster.Kubectl(ctx, "apply", "-k", "testdata/install").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("kubectl apply -k: %w\n%s", err, out)
	}
	if out, err := w.cluster.Kubectl(ctx, "-n", system, "rollout", "status", "deployment/"+webhook, "--timeout=2m").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("waiting for the webhook: %w\n%s\n%s", err, out, w.nodes.Logs())
	}
	w.canary, err = startCanary(ctx, w)
	return w, err
}

// kubectl calls it with a manifest, if any, and returns what it printed: output and warnings.
func (w *world) kubectl(t *testing.T, manifest string, args ...string) (string, error) {
	t.Helper()
	cmd := w.cluster.Kubectl(t.Context(), args...)
	cmd.Stdin = strings.NewReader(manifest)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// apply applies a manifest that has to be accepted, and returns what kubectl printed.
func (w *world) apply(t *testing.T, manifest string, args ...string) string {
	t.Helper()
	out, err := w.kubectl(t, manifest, append([]string{"apply", "-f", "-"}, args...)...)
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s\n%s", err, out, manifest)
	}
	return out
}

// protected makes a namespace with the label, and further annotations NAME=VALUE of outrider.dev. It is removed when
// the test ends.
func (w *world) protected(t *testing.T, annotations ...string) string {
	t.Helper()
	ns := &corev1.Namespace{}
	metav1.SetMetaDataLabel(&ns.ObjectMeta, "outrider.dev/protect", "enabled")
	for _, a := range annotations {
		name, value, _ := strings.Cut(a, "=")
		metav1.SetMetaDataAnnotation(&ns.ObjectMeta, "outrider.dev/"+name, value)
	}
	return w.namespace(t, ns)
}

// namespace makes a namespace with a name of its own, which is removed when the test ends.
func (w *world) namespace(t *testing.T, ns *corev1.Namespace) string {
	t.Helper()
	ns.Name = "test-" + rand.String(6)
	if _, err := w.client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	w.removeLater(t, ns.Name)
	return ns.Name
}

func (w *world) removeLater(t *testing.T, namespace string) {
	t.Cleanup(func() {
		// Nobody waits for the end of it.
		if err := w.client.CoreV1().Namespaces().Delete(context.Background(), namespace, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}

// await tries until it works.
func (w *world) await(t *testing.T, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready waits until a pod is ready, and returns it.
func (w *world) ready(t *testing.T, namespace, name string) *corev1.Pod {
	t.Helper()
	var pod *corev1.Pod
	w.await(t, "pod "+namespace+"/"+name+" to be ready", func(ctx context.Context) (err error) {
		pod, err = w.client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return errors.Join(err, w.lastEvents(ctx, namespace))
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
				return nil
			}
		}
		return fmt.Errorf("its status is %+v", pod.Status)
	})
	return pod
}

// lastEvents is what happened in a namespace, as an error, for messages.
func (w *world) lastEvents(ctx context.Context, namespace string) error {
	events, err := w.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, e := range events.Items {
		fmt.Fprintf(&text, "\n%s %s %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Reason, e.Message)
	}
	return errors.New("Events: " + text.String())
}

// event waits for an Event about an object that has a text in it.
func (w *world) event(t *testing.T, namespace, kind, reason, text string) corev1.Event {
	t.Helper()
	var found corev1.Event
	w.await(t, fmt.Sprintf("an Event %s of a %s with %q", reason, kind, text), func(ctx context.Context) error {
		events, err := w.client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.InvolvedObject.Kind == kind && e.Reason == reason && strings.Contains(e.Message, text) {
				found = e
				return nil
			}
		}
		return w.lastEvents(ctx, namespace)
	})
	return found
}

// isProtected tells whether a pod has both containers of ours where they belong.
func isProtected(pod *corev1.Pod) bool {
	init := pod.Spec.InitContainers
	return len(init) >= 2 && init[0].Name == "outrider-restore" && init[1].Name == "outrider" &&
		init[1].RestartPolicy != nil && *init[1].RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// database is a StatefulSet of one Postgres pod as people write it. It may be on spot nodes.
func database(namespace, name string) string {
	return `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: ` + name + `, namespace: ` + namespace + `}
spec:
  serviceName: ` + name + `
  selector: {matchLabels: {app: ` + name + `}}
  template:
    metadata: {labels: {app: ` + name + `}}
    spec:
      nodeSelector: {pool: spot}
      tolerations: [{key: pool, operator: Exists}]
      containers:
      - name: postgres
        image: postgres:17
        env: [{name: POSTGRES_PASSWORD, value: secret}]
        resources: {requests: {cpu: 100m, memory: 100Mi, ephemeral-storage: 1Gi}}
`
}
