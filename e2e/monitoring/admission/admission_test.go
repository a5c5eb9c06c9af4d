// Package admission holds the alerts on the webhook against a webhook in a cluster and a real Prometheus.
package admission

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/hand"
	"outrider.dev/e2e/monitoring/watch"
)

const (
	system  = "outrider-system"
	webhook = "outrider-webhook"
)

func TestMain(m *testing.M) { os.Exit(cluster.Isolated(fetch, m.Run)) }

// fetch gets the modules that the program needs while there is a network.
func fetch() error {
	if out, err := exec.Command("go", "list", "-deps", "outrider.dev/webhook").CombinedOutput(); err != nil {
		return fmt.Errorf("fetching the modules of outrider-webhook: %w\n%s", err, out)
	}
	return nil
}

// scene is a cluster with the webhook, and a Prometheus that scrapes it.
type scene struct {
	*watch.Prometheus
	t       *testing.T
	cluster *cluster.Cluster
	client  kubernetes.Interface
	nodes   *hand.Kubelets
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func install(t *testing.T) *scene {
	t.Helper()
	program := t.TempDir() + "/" + webhook
	build := exec.Command("go", "build", "-o", program, "outrider.dev/webhook")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building outrider-webhook: %v\n%s", err, out)
	}
	// It lives until its own Stop: t.Context ends before.
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	s := &scene{t: t}
	var err error
	s.cluster, err = cluster.Start(ctx)
	must(t, err)
	t.Cleanup(func() { must(t, s.cluster.Stop()) })
	s.client, err = s.cluster.Client()
	must(t, err)
	s.nodes, err = hand.Start(ctx, s.cluster, hand.Options{Programs: map[string]string{webhook: program}})
	must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.cluster.Kubectl(ctx, "get", "events,pods", "-A").CombinedOutput()
			t.Logf("%s\n%s\n%v", s.nodes.Logs(), out, err)
		}
		must(t, s.nodes.Stop())
	})
	for _, name := range []string{"one", "two"} {
		must(t, s.nodes.AddNode(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}))
	}
	s.kubectl("", "apply", "-k", "testdata/install")
	s.Prometheus = watch.Start(t)
	s.follow()
	return s
}

func (s *scene) kubectl(manifest string, args ...string) {
	s.t.Helper()
	cmd := s.cluster.Kubectl(s.t.Context(), args...)
	cmd.Stdin = strings.NewReader(manifest)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		s.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
}

// follow waits until the webhook is there and has its replicas scraped.
func (s *scene) follow() {
	s.t.Helper()
	s.kubectl("", "-n", system, "rollout", "status", "deployment/"+webhook, "--timeout=3m")
	pods, err := s.client.CoreV1().Pods(system).List(s.t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=webhook"})
	must(s.t, err)
	for i, pod := range pods.Items {
		if pod.DeletionTimestamp == nil {
			s.Scrape(fmt.Sprintf("%s/replica-%d", system, i), pod.Status.PodIP+":8080")
		}
	}
}

// configure changes the webhook's configuration.
func (s *scene) configure(change func(before string) string) (before string) {
	s.t.Helper()
	maps := s.client.CoreV1().ConfigMaps(system)
	m, err := maps.Get(s.t.Context(), webhook, metav1.GetOptions{})
	must(s.t, err)
	before = m.Data["config.yaml"]
	m.Data["config.yaml"] = change(before)
	_, err = maps.Update(s.t.Context(), m, metav1.UpdateOptions{})
	must(s.t, err)
	return before
}

func namespace(name, protect string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {outrider.dev/protect: %s}}\n", name, protect)
}

// suspect has no image that is known, and PostgreSQL in its name.
func suspect(ns, annotation string) string {
	return strings.ReplaceAll(database(ns, annotation), "image: postgres:17", "image: corp/postgres-custom:1")
}

func database(ns, annotation string) string {
	return `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: ` + ns + `}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata:
      labels: {app: db}
      annotations: {` + annotation + `}
    spec:
      containers:
      - name: postgres
        image: postgres:17
        env: [{name: POSTGRES_PASSWORD, value: secret}]
        resources: {requests: {cpu: 100m, memory: 100Mi, ephemeral-storage: 1Gi}}
`
}

const budget = `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: db, namespace: early}
spec:
  minAvailable: 1
  selector: {matchLabels: {app: db}}
`

// findings are what the audit tells of: a database that runs since before its namespace was protected, what may be one,
// one that could not be made anew now, one that is refused, and one that no eviction may move. It looks once a minute: all
// at once. What is wrong is mended, but for the budget.
func (s *scene) findings() {
	s.t.Helper()
	const wrong, right = "outrider.dev/rpo: soon", "outrider.dev/rpo: 2s"
	for name, annotation := range map[string]string{"early": "", "doubtful": wrong} {
		s.kubectl(namespace(name, "disabled"), "apply", "-f", "-")
		s.kubectl(database(name, annotation), "apply", "-f", "-")
		s.Until("the database that nobody protects runs in "+name, func(ctx context.Context) bool {
			pod, err := s.client.CoreV1().Pods(name).Get(ctx, "db-0", metav1.GetOptions{})
			return err == nil && pod.Status.Phase == corev1.PodRunning
		})
		s.kubectl(namespace(name, "enabled"), "apply", "-f", "-")
	}
	s.kubectl(namespace("wrong", "enabled"), "apply", "-f", "-")
	s.kubectl(database("wrong", wrong), "apply", "-f", "-")
	s.kubectl(namespace("strange", "enabled"), "apply", "-f", "-")
	s.kubectl(suspect("strange", ""), "apply", "-f", "-")
	s.kubectl(budget, "apply", "-f", "-")
	s.Fires("OutriderPodUnprotected", `namespace="early"`, `severity="critical"`)
	s.Fires("OutriderPodUnprotected", `namespace="strange"`, `severity="warning"`)
	if s.Firing("OutriderPodUnprotected", `namespace="strange"`, `severity="critical"`) {
		s.t.Error("a suspicion wakes somebody")
	}
	s.Fires("OutriderPodRefused", `namespace="doubtful"`)
	s.Fires("OutriderWorkloadWaits", `namespace="wrong"`)
	s.kubectl("", "-n", "early", "delete", "pod", "db-0")                               // it comes back with a sidecar
	s.kubectl(suspect("strange", "outrider.dev/protect: disabled"), "apply", "-f", "-") // as the runbook says
	s.kubectl(database("doubtful", right), "apply", "-f", "-")
	s.kubectl(database("wrong", right), "apply", "-f", "-")
	s.Fires("OutriderEvacuationBlocked", `namespace="early"`)
}

// Each alert on the webhook is provoked, fires, and resolves when the cause is gone.
func TestAlertsOnTheWebhook(t *testing.T) {
	s := install(t)
	s.Until("the webhook is scraped", func(context.Context) bool {
		return len(s.Now("outrider_webhook_config_last_reload_successful == 1 and on (pod) outrider_webhook_build_info == 1")) == 2
	})
	var exposed strings.Builder
	for _, x := range s.Now(`{__name__=~"outrider_.+"}`) {
		if name := x.Labels["__name__"]; !strings.HasPrefix(name, "outrider:") {
			exposed.WriteString(name + "\n")
		}
	}
	if unknown := watch.Undocumented(t, exposed.String()); len(unknown) > 0 {
		t.Errorf("the webhook has metrics that README.md has not: %v", unknown)
	}

	s.findings()

	s.Fires("OutriderWebhookCertificateExpires")
	s.configure(func(before string) string {
		lasting, _, _ := strings.Cut(before, "certificates:")
		return lasting + "certificates: {settle: 1s}\n"
	})
	// As the runbook says.
	s.kubectl("", "-n", system, "patch", "secret", "outrider-webhook-tls", "--type=json", "-p", `[{"op":"remove","path":"/data"}]`)
	s.kubectl("", "-n", system, "rollout", "restart", "deployment/"+webhook)
	s.follow()
	s.Resolves("OutriderWebhookCertificateExpires")

	before := s.configure(func(before string) string { return before + "\nnonsense: true\n" })
	s.Fires("OutriderWebhookConfigurationRefused")
	s.configure(func(string) string { return before })
	s.Resolves("OutriderWebhookConfigurationRefused", "OutriderPodUnprotected", "OutriderPodRefused", "OutriderWorkloadWaits")
	s.kubectl("", "-n", "early", "delete", "poddisruptionbudget", "db")
	s.Resolves("OutriderEvacuationBlocked")

	s.kubectl("", "-n", system, "scale", "deployment/"+webhook, "--replicas=0")
	s.Fires("OutriderWebhookDown")
	s.kubectl("", "-n", system, "scale", "deployment/"+webhook, "--replicas=2")
	s.follow()
	s.Resolves("OutriderWebhookDown")
	s.AllHaveFired("outrider-webhook")
}
