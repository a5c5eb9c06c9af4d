package live_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/audit"
	"outrider.dev/webhook/internal/inject"
)

func auditInput(namespace string, annotations map[string]string) inject.Input {
	return inject.Input{
		Namespace: namespace, Image: inject.Image{Name: "outrider:v2"},
		Levels: []policy.Level{policy.Configuration(map[string]string{"archive": "oss://bucket/prod"}), policy.Namespace(namespace, annotations)},
	}
}

// audited runs an audit with the webhook's rights until the test ends.
func (w *world) audited() *prometheus.Registry {
	w.t.Helper()
	client, err := kubernetes.NewForConfig(w.rights)
	must(w.t, err)
	reg := prometheus.NewRegistry()
	a, err := audit.New(audit.Options{
		Client: client, Input: auditInput, Recorder: w.recorder(client), Registerer: reg, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)), Interval: 50 * time.Millisecond,
	})
	must(w.t, err)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
		if v := values(w.t, reg); v["outrider_audit_errors_total"] != 0 {
			w.t.Errorf("something could not be read: %v", v)
		} else if len(v) != 1 {
			w.t.Errorf("who does not lead any more still says %v", v)
		}
	})
	return reg
}

// values are metrics by name and labels.
func values(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	must(t, err)
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return all
}

func (w *world) becomes(reg *prometheus.Registry, want map[string]float64) {
	w.t.Helper()
	var got map[string]float64
	defer func() {
		if w.t.Failed() {
			w.t.Logf("the metrics are %v, want %v", got, want)
		}
	}()
	w.wait("the metrics", func() bool {
		got = values(w.t, reg)
		for name, v := range want {
			if have, ok := got[name]; !ok || have != v {
				return false
			}
		}
		return true
	})
}

func database(p *corev1.Pod) {
	ordinary(p)
	p.Spec.Containers[0].Image = "postgres:16"
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/postgresql/data"}}
	p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	p.Annotations = map[string]string{"outrider.dev/cluster": p.Name}
}

func TestAudit(t *testing.T) {
	w := newWorld(t)
	// An audit sees all namespaces, so they take turns.
	t.Run("pods are judged", func(t *testing.T) { testJudged(w.in(t)) })
	t.Run("workloads wait for a webhook", func(t *testing.T) { testWaiting(w.in(t)) })
	t.Run("workloads wait for their label", func(t *testing.T) { testGuarded(w.in(t)) })
}

// testGuarded: somebody has taken the label away. The guard refuses the pods, and the database is down.
func testGuarded(w *world) {
	ns := "guarded"
	w.namespace(ns, nil)
	if out, err := w.cluster.Kubectl(w.t.Context(), "apply", "-f", "../../../manifests/base/guard.yaml").CombinedOutput(); err != nil {
		w.t.Fatalf("applying the guard: %v\n%s", err, out)
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}, Annotations: map[string]string{"outrider.dev/protect": "enabled"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "postgres", Image: "postgres:16"}}},
	}
	w.wait("the guard to be in force", func() bool {
		_, err := w.admin.CoreV1().Pods(ns).Create(w.t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "probe", Annotations: template.Annotations}, Spec: template.Spec,
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "outrider-guard")
	})
	_, err := w.admin.AppsV1().StatefulSets(ns).Create(w.t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "orders"},
		Spec:       appsv1.StatefulSetSpec{ServiceName: "db", Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{})
	must(w.t, err)
	reg := w.audited()
	w.becomes(reg, map[string]float64{"outrider_audit_waiting_workloads guarded": 1})
	w.wait("an event on orders", func() bool { return w.told(ns, "WaitsForProtection", "orders") })
	must(w.t, w.admin.AppsV1().StatefulSets(ns).Delete(w.t.Context(), "orders", metav1.DeleteOptions{}))
	w.wait("no more word of it", func() bool {
		v := values(w.t, reg)
		_, said := v["outrider_audit_waiting_workloads guarded"]
		return !said && len(v) > 1
	})
}

func testJudged(w *world) {
	ns := w.protected("judged")
	w.namespace("judged-open", nil)
	protected := func(name, image string) *corev1.Pod {
		return w.pod(ns, name, "", func(p *corev1.Pod) {
			database(p)
			in := auditInput(ns, nil)
			in.Image.Name = image
			d, err := inject.Pod(p, in)
			must(w.t, err)
			*p = *d.Pod
		})
	}
	good, old := protected("good", "outrider:v2"), protected("old", "outrider:v1")
	bare := w.pod(ns, "unprotected", "", database)
	w.pod(ns, "web", "", func(p *corev1.Pod) {
		ordinary(p)
		p.Spec.Containers[0].Image = "nginx"
	})
	w.pod(ns, "custom", "", func(p *corev1.Pod) {
		ordinary(p)
		p.OwnerReferences = nil
		p.Spec.Containers[0].Image = "corp/postgres-custom:1"
	})
	w.pod("judged-open", "db", "", database)
	w.budget(ns, "never", "good")
	reg := w.audited()
	w.becomes(reg, map[string]float64{
		"outrider_audit_pods judged protected": 1, "outrider_audit_pods judged outdated": 1, "outrider_audit_pods judged unprotected": 1, "outrider_audit_pods judged suspected": 1,
		"outrider_audit_pods judged refused":     0,
		"outrider_audit_blocking_budgets judged": 1, "outrider_audit_waiting_workloads judged": 0,
	})
	for name := range values(w.t, reg) {
		if strings.Contains(name, "judged-open") {
			w.t.Errorf("a namespace that is not protected is audited: %s", name)
		}
	}
	for name, reason := range map[string]string{"old": "ProtectionOutdated", "unprotected": "NotProtected", "custom": "NotProtected", "good": "EvacuationBlocked", "maker": "NotProtected"} {
		w.wait("an event on "+name, func() bool { return w.told(ns, reason, name) })
	}
	first := values(w.t, reg)["outrider_audit_last_success_timestamp_seconds"]
	w.wait("many more rounds", func() bool { return values(w.t, reg)["outrider_audit_last_success_timestamp_seconds"] > first+1 })
	list, err := w.admin.EventsV1().Events(ns).List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	counts := map[string]int{}
	for _, e := range list.Items {
		counts[e.Regarding.Name+" "+e.Reason+" "+e.Note]++
		if e.Series != nil {
			counts[e.Regarding.Name+" "+e.Reason+" "+e.Note] += int(e.Series.Count)
		}
	}
	for what, n := range counts {
		// Of a workload's Events with one reason the API keeps one, whatever they say, and the pods here have names of their own.
		folded := strings.HasPrefix(what, "maker CheckProtection")
		if n > 1 && !folded && !strings.Contains(what, "FailedScheduling") {
			w.t.Errorf("%d times: %s", n, what)
		}
	}
	for _, p := range []*corev1.Pod{good, old, bare} {
		if now := w.read(p); now.ResourceVersion != p.ResourceVersion && now.DeletionTimestamp != nil {
			w.t.Errorf("%s was changed", p.Name)
		}
	}
}

func testWaiting(w *world) {
	const away = "waiting"
	ns := away
	w.namespace(ns, map[string]string{"outrider.dev/protect": "enabled", "away": "true"})
	hooks := w.admin.AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := hooks.Create(w.t.Context(), &admissionv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: away},
		Webhooks: []admissionv1.MutatingWebhook{{
			Name: "pods.outrider.dev", ClientConfig: admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:1/mutate-pod")},
			FailurePolicy: new(admissionv1.Fail), SideEffects: new(admissionv1.SideEffectClassNone), AdmissionReviewVersions: []string{"v1"},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"away": "true"}},
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create}, Rule: admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
			}},
		}},
	}, metav1.CreateOptions{})
	must(w.t, err)
	w.wait("the webhook to be asked", func() bool {
		_, err := w.admin.CoreV1().Pods(ns).Create(w.t.Context(), &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "a", Image: "a"}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), `failed calling webhook "pods.outrider.dev"`)
	})
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "db"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "postgres", Image: "nginx"}}},
	}
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	_, err = w.admin.AppsV1().StatefulSets(ns).Create(w.t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "orders"}, Spec: appsv1.StatefulSetSpec{ServiceName: "db", Selector: selector, Template: template},
	}, metav1.CreateOptions{})
	must(w.t, err)
	template.Labels = map[string]string{"app": "cache"}
	_, err = w.admin.AppsV1().Deployments(ns).Create(w.t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "cache"}, Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{})
	must(w.t, err)
	reg := w.audited()
	w.becomes(reg, map[string]float64{"outrider_audit_waiting_workloads waiting": 2})
	var notes []string
	for _, name := range []string{"orders", "cache"} {
		w.wait("an event on "+name, func() bool { return w.told(ns, "WaitsForProtection", name) })
	}
	list, err := w.admin.EventsV1().Events(ns).List(w.t.Context(), metav1.ListOptions{FieldSelector: "reason=WaitsForProtection"})
	must(w.t, err)
	for _, e := range list.Items {
		notes = append(notes, e.Regarding.Kind+" "+e.Note)
	}
	if !slices.ContainsFunc(notes, func(n string) bool {
		return strings.HasPrefix(n, "Deployment no pod can be made: failed calling webhook") && strings.Contains(n, "kubectl -n waiting annotate deployment cache woken-at=")
	}) {
		w.t.Errorf("the notes are %q", notes)
	}

	// When it is back, what the Event advises wakes the controllers.
	must(w.t, hooks.Delete(w.t.Context(), away, metav1.DeleteOptions{}))
	woken := 0
	w.until(func() {
		woken++
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{"woken-at": fmt.Sprint(woken)}}})
		must(w.t, err)
		_, err = w.admin.AppsV1().StatefulSets(ns).Patch(w.t.Context(), "orders", types.MergePatchType, patch, metav1.PatchOptions{})
		must(w.t, err)
		_, err = w.admin.AppsV1().Deployments(ns).Patch(w.t.Context(), "cache", types.MergePatchType, patch, metav1.PatchOptions{})
		must(w.t, err)
	}, reg, "outrider_audit_waiting_workloads waiting")
}

// until does something again and again until a metric is 0.
func (w *world) until(do func(), reg *prometheus.Registry, metric string) {
	w.t.Helper()
	w.wait(metric+" to be 0", func() bool {
		do()
		v, ok := values(w.t, reg)[metric]
		return ok && v == 0
	})
}
