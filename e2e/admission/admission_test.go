package admission

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/yaml"
)

// rounds is how often namespace and workload are applied at once: what is denied at random is denied at least once.
const rounds = 20

// TestNamespaceAndWorkloadAtOnce applies both with one command. The namespace's annotations have to be known to the
// webhook when the first pod comes, a moment later.
func TestNamespaceAndWorkloadAtOnce(t *testing.T) {
	w := shared
	var namespaces []string
	for range rounds {
		ns := "test-" + rand.String(6)
		w.apply(t, `
apiVersion: v1
kind: Namespace
metadata:
  name: `+ns+`
  labels: {outrider.dev/protect: enabled}
  annotations: {outrider.dev/archive: "oss://`+ns+`/prod"}
---`+database(ns, "db"))
		w.removeLater(t, ns)
		namespaces = append(namespaces, ns)
	}
	for _, ns := range namespaces {
		pod := w.ready(t, ns, "db-0")
		if got, want := environment(pod, "outrider-restore", "OUTRIDER_ARCHIVE"), "oss://"+ns+"/prod/"+ns+"/db-0"; !isProtected(pod) || got != want {
			t.Errorf("pod of namespace %s: its archive is %q, want %q; protected: %v", ns, got, want, isProtected(pod))
		}
		events, err := w.client.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "outrider: ") {
				t.Errorf("namespace %s: %s %s: %s", ns, e.InvolvedObject.Kind, e.Reason, e.Message)
			}
		}
	}
}

// environment is the value of a variable of an init container.
func environment(pod *corev1.Pod, container, name string) string {
	for _, c := range pod.Spec.InitContainers {
		for _, e := range c.Env {
			if c.Name == container && e.Name == name {
				return e.Value
			}
		}
	}
	return ""
}

// TestDenialsReachOwners: whoever asks why there is no pod looks at the Events of what should have made it.
func TestDenialsReachOwners(t *testing.T) {
	w := shared
	t.Run("StatefulSet", func(t *testing.T) {
		ns := w.protected(t, "rpo=soon")
		out := w.apply(t, database(ns, "db"))
		if !strings.Contains(out, "Warning: outrider: pods of this StatefulSet will be refused") || !strings.Contains(out, "outrider.dev/rpo") {
			t.Errorf("kubectl apply printed %q, want a warning that names outrider.dev/rpo", out)
		}
		w.event(t, ns, "StatefulSet", "FailedCreate", `outrider.dev/rpo`)
		// Mended, the controller goes on by itself.
		if out, err := w.kubectl(t, "", "annotate", "namespace", ns, "outrider.dev/rpo=2s", "--overwrite"); err != nil {
			t.Fatalf("kubectl annotate: %v\n%s", err, out)
		}
		if pod := w.ready(t, ns, "db-0"); environment(pod, "outrider", "OUTRIDER_RPO") != "2s" {
			t.Errorf("the sidecar has the rpo %q, want 2s", environment(pod, "outrider", "OUTRIDER_RPO"))
		}
	})
	t.Run("ReplicaSet", func(t *testing.T) {
		ns := w.protected(t)
		w.apply(t, `
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: bare, namespace: `+ns+`}
spec:
  selector: {matchLabels: {app: bare}}
  template:
    metadata: {labels: {app: bare}}
    spec: {containers: [{name: postgres, image: "postgres:17"}]}
`)
		w.event(t, ns, "ReplicaSet", "FailedCreate", "outrider.dev/cluster") // what to set
	})
	t.Run("a pod by hand", func(t *testing.T) {
		ns := w.protected(t)
		out, err := w.kubectl(t, "", "-n", ns, "run", "db", "--image=postgres:17", "--annotations=outrider.dev/archve=oss://typo")
		if err == nil || !strings.Contains(out, "outrider.dev/archive") {
			t.Errorf("kubectl run: %v\n%s\nwant a refusal that names the nearest key", err, out)
		}
	})
}

// TestWarnings are printed to whoever applies a workload; what its controller is told about pods, nobody reads.
func TestWarnings(t *testing.T) {
	w := shared
	const want = "Warning: container postgres requests no ephemeral-storage"
	for _, kind := range []string{"StatefulSet", "Deployment"} {
		t.Run(kind, func(t *testing.T) {
			ns := w.protected(t)
			out := w.apply(t, workload(kind, ns, 1, "Recreate"))
			if !strings.Contains(out, want) {
				t.Errorf("kubectl apply printed\n%s\nwant %q", out, want)
			}
			// The same again is no change, and says nothing.
			if out := w.apply(t, workload(kind, ns, 1, "Recreate")); strings.Contains(out, "Warning") {
				t.Errorf("kubectl apply of no change printed\n%s", out)
			}
		})
	}
}

// workload is a Deployment or StatefulSet with warnings in it.
func workload(kind, namespace string, replicas int, strategy string) string {
	text := `
apiVersion: apps/v1
kind: ` + kind + `
metadata: {name: db, namespace: ` + namespace + `}
spec:
  replicas: ` + fmt.Sprint(replicas) + `
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      nodeSelector: {pool: spot}
      tolerations: [{key: pool, operator: Exists}]
      containers: [{name: postgres, image: "postgres:17"}]
`
	if kind == "Deployment" {
		text += "  strategy: {type: " + strategy + "}\n"
	}
	return text
}

// askAboutScales makes the API server ask at another path. What the webhook does not know it answers as an older one does.
func (w *world) askAboutScales(t *testing.T, path string) {
	t.Helper()
	patch := `[{"op": "test", "path": "/webhooks/1/name", "value": "scale.outrider.dev"},
		{"op": "replace", "path": "/webhooks/1/clientConfig/service/path", "value": "` + path + `"}]`
	if out, err := w.kubectl(t, "", "patch", "validatingwebhookconfiguration", registration, "--type=json", "-p", patch); err != nil {
		t.Fatalf("kubectl patch: %v\n%s", err, out)
	}
}

// TestOneWriter: several pods that would be one database are refused before there is any.
func TestOneWriter(t *testing.T) {
	w := shared
	ns := w.protected(t)
	for _, tt := range []struct {
		name, manifest, want string
	}{
		{"replicas", workload("Deployment", ns, 2, "Recreate"), "set replicas to 1"},
		{"surge", workload("Deployment", ns, 1, "RollingUpdate"), "set strategy.type to Recreate"},
		{"one name for all", strings.Replace(workload("StatefulSet", ns, 2, ""), "metadata: {labels: {app: db}}",
			"metadata: {labels: {app: db}, annotations: {outrider.dev/cluster: main}}", 1), "leave out outrider.dev/cluster"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, err := w.kubectl(t, tt.manifest, "apply", "-f", "-")
			if err == nil || !strings.Contains(out, tt.want) || !strings.Contains(out, "denied the request") {
				t.Errorf("kubectl apply: %v\n%s\nwant a refusal with %q", err, out, tt.want)
			}
		})
	}
	t.Run("scaled later", func(t *testing.T) {
		w.apply(t, strings.ReplaceAll(workload("Deployment", ns, 1, "Recreate"), "db", "scaled"))
		for _, args := range [][]string{
			{"scale", "deployment/scaled", "--replicas=2"},
			{"patch", "deployment/scaled", "--subresource=scale", "--type=merge", "-p", `{"spec":{"replicas":3}}`}, // as an autoscaler does
		} {
			out, err := w.kubectl(t, "", append([]string{"-n", ns}, args...)...)
			if err == nil || !strings.Contains(out, "set replicas to 1") {
				t.Errorf("kubectl %v: %v\n%s\nwant a refusal", args, err, out)
			}
		}
		for _, replicas := range []string{"0", "1"} {
			if out, err := w.kubectl(t, "", "-n", ns, "scale", "deployment/scaled", "--replicas="+replicas); err != nil {
				t.Errorf("kubectl scale to %s: %v\n%s", replicas, err, out)
			}
		}
		w.apply(t, strings.ReplaceAll(workload("Deployment", ns, 0, "RollingUpdate"), "db", "surging"))
		if out, err := w.kubectl(t, "", "-n", ns, "scale", "deployment/surging", "--replicas=1"); err != nil || !strings.Contains(out, "Warning: outrider: one pod may start") || !strings.Contains(out, "Recreate") {
			t.Errorf("kubectl scale of a Deployment that surges: %v\n%s\nwant a warning", err, out)
		}
		if out, err := w.kubectl(t, "", "-n", ns, "scale", "deployment/surging", "--replicas=2"); err == nil || !strings.Contains(out, "set replicas to 1") {
			t.Errorf("kubectl scale of a Deployment that surges to two: %v\n%s\nwant a refusal", err, out)
		}
		if out, err := w.kubectl(t, "", "-n", ns, "create", "deployment", "web", "--image=nginx:1"); err != nil {
			t.Fatalf("kubectl create deployment: %v\n%s", err, out)
		}
		if out, err := w.kubectl(t, "", "-n", ns, "scale", "deployment/web", "--replicas=3"); err != nil {
			t.Errorf("kubectl scale of web servers: %v\n%s", err, out)
		}
	})
	t.Run("scaled while replicas are older", func(t *testing.T) {
		w.apply(t, strings.ReplaceAll(workload("Deployment", ns, 1, "Recreate"), "db", "waiting"))
		scaled := func(context.Context) error {
			out, err := w.kubectl(t, "", "-n", ns, "scale", "deployment/waiting", "--replicas=2", "--dry-run=server")
			if err != nil {
				return fmt.Errorf("kubectl scale: %w\n%s", err, out)
			}
			return nil
		}
		w.askAboutScales(t, "/not-known-yet")
		w.await(t, "scaling to depend on nobody", scaled)
		w.askAboutScales(t, "/review-scale")
		w.await(t, "scaling to be refused again", func(ctx context.Context) error {
			if err := scaled(ctx); err == nil || !strings.Contains(err.Error(), "set replicas to 1") {
				return fmt.Errorf("the answer is: %w", err)
			}
			return nil
		})
	})
	t.Run("a database of two pods that are each their own", func(t *testing.T) {
		w.apply(t, workload("StatefulSet", ns, 2, ""))
		first, second := w.ready(t, ns, "db-0"), w.ready(t, ns, "db-1")
		a, b := environment(first, "outrider", "OUTRIDER_ARCHIVE"), environment(second, "outrider", "OUTRIDER_ARCHIVE")
		if a == b || !isProtected(first) || !isProtected(second) {
			t.Errorf("their archives are %q and %q", a, b)
		}
	})
}

// TestDeploymentKeepsItsIdentity: every change of the template makes another ReplicaSet, and must not make another archive.
func TestDeploymentKeepsItsIdentity(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, workload("Deployment", ns, 1, "Recreate"))
	archives := map[string]string{} // by ReplicaSet
	one := func() *corev1.Pod {
		var only *corev1.Pod
		w.await(t, "one pod of another ReplicaSet", func(ctx context.Context) error {
			pods, err := w.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "app=db"})
			if err != nil || len(pods.Items) != 1 || archives[pods.Items[0].OwnerReferences[0].Name] != "" {
				return errors.Join(fmt.Errorf("%d pods", len(pods.Items)), err, w.lastEvents(ctx, ns))
			}
			only = &pods.Items[0]
			return nil
		})
		return only
	}
	for _, image := range []string{"postgres:17", "postgres:17.2"} {
		if out, err := w.kubectl(t, "", "-n", ns, "set", "image", "deployment/db", "postgres="+image); err != nil {
			t.Fatalf("kubectl set image: %v\n%s", err, out)
		}
		pod := one()
		archives[pod.OwnerReferences[0].Name] = environment(pod, "outrider", "OUTRIDER_ARCHIVE")
	}
	want := "oss://backups/test/" + ns + "/db"
	for set, archive := range archives {
		if archive != want {
			t.Errorf("pods of ReplicaSet %s have the archive %q, want %q", set, archive, want)
		}
	}
}

// TestServerSideApply: nothing of ours gets in the way of whoever owns the object.
func TestServerSideApply(t *testing.T) {
	w := shared
	ns := w.protected(t)
	pod := `
apiVersion: v1
kind: Pod
metadata: {name: alone, namespace: ` + ns + `}
spec:
  containers: [{name: postgres, image: "postgres:17"}]
`
	for _, manifest := range []string{database(ns, "db"), pod} {
		for range 2 {
			w.apply(t, manifest, "--server-side", "--field-manager=gitops")
		}
	}
	if pod := w.ready(t, ns, "db-0"); !isProtected(pod) {
		t.Errorf("pod of a StatefulSet: init containers %+v", pod.Spec.InitContainers)
	}
	alone, err := w.client.CoreV1().Pods(ns).Get(t.Context(), "alone", metav1.GetOptions{})
	if err != nil || !isProtected(alone) {
		t.Errorf("pod applied by itself: %v, %+v", err, alone.Spec.InitContainers)
	}
	// What is ours was not put into the workload: nothing for a GitOps tool to take back.
	set, err := w.client.AppsV1().StatefulSets(ns).Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil || len(set.Spec.Template.Spec.InitContainers) != 0 {
		t.Errorf("the StatefulSet: %v, %+v", err, set.Spec.Template.Spec.InitContainers)
	}
}

// TestDryRun shows what would become of a pod, and does nothing.
func TestDryRun(t *testing.T) {
	w := shared
	ns := w.protected(t)
	out, err := w.kubectl(t, "", "-n", ns, "run", "db", "--image=postgres:17", "--dry-run=server", "-o", "yaml")
	var pod corev1.Pod
	if _, text, ok := strings.Cut(out, "apiVersion:"); ok && err == nil { // after the warnings
		err = yaml.Unmarshal([]byte("apiVersion:"+text), &pod)
	}
	if err != nil || !isProtected(&pod) {
		t.Errorf("kubectl run --dry-run=server: %v\n%s", err, out)
	}
	out, err = w.kubectl(t, database(ns, "db"), "apply", "-f", "-", "--dry-run=server")
	if err != nil || !strings.Contains(out, "created (server dry run)") {
		t.Errorf("kubectl apply --dry-run=server: %v\n%s", err, out)
	}
	pods, err := w.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
	if err != nil || len(pods.Items) != 0 {
		t.Errorf("afterwards there are %d pods: %v", len(pods.Items), err)
	}
}

// TestCopies: kubectl debug copies a pod with our containers in it, and the copy must not be a second writer.
func TestCopies(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, database(ns, "db"))
	w.ready(t, ns, "db-0")
	out, err := w.kubectl(t, "", "-n", ns, "debug", "db-0", "--copy-to=copy", "--container=postgres", "--image=postgres:17", "--", "sleep", "1d")
	if err != nil {
		t.Fatalf("kubectl debug: %v\n%s", err, out)
	}
	pod, err := w.client.CoreV1().Pods(ns).Get(t.Context(), "copy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(fmt.Sprintf("%+v", pod.Spec), "oss://backups/test/"+ns+"/db-0") {
		t.Errorf("the copy has the archive of the original: %+v", pod.Spec.InitContainers)
	}
}

// TestCopiesThatNobodyLooksAt: a copy that opts out, or that is made where the webhook is not asked, has production's archive
// and identity in it, and would take the database from it.
func TestCopiesThatNobodyLooksAt(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, database(ns, "db"))
	original := w.ready(t, ns, "db-0")
	root := "oss://backups/test/" + ns + "/db-0"
	if !strings.Contains(fmt.Sprintf("%+v", original.Spec), root) {
		t.Fatalf("the original has not the archive %s: %+v", root, original.Spec.InitContainers)
	}
	copyOf := func(name string, change func(*corev1.Pod)) (*corev1.Pod, error) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: original.Annotations}, Spec: *original.Spec.DeepCopy()}
		p.Spec.NodeName = ""
		change(p)
		return w.client.CoreV1().Pods(ns).Create(t.Context(), p, metav1.CreateOptions{})
	}
	optOut := func(p *corev1.Pod) { p.Annotations = map[string]string{"outrider.dev/protect": "disabled"} }
	ofJob := func(p *corev1.Pod) {
		p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "batch/v1", Kind: "Job", Name: "none", UID: "none", Controller: new(true)}}
	}
	for name, change := range map[string]func(*corev1.Pod){"opted-out": optOut, "of-a-job": ofJob} {
		pod, err := copyOf(name, change)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(fmt.Sprintf("%+v", pod.Spec), root) || len(pod.Spec.InitContainers) != 0 {
			t.Errorf("%s: the copy has our containers: %+v", name, pod.Spec.InitContainers)
		}
	}
	if out, err := w.kubectl(t, "", "label", "namespace", ns, "outrider.dev/protect-"); err != nil {
		t.Fatalf("kubectl label: %v\n%s", err, out)
	}
	for name, change := range map[string]func(*corev1.Pod){"unlabelled": func(*corev1.Pod) {}, "unlabelled-opted-out": optOut} {
		if _, err := copyOf(name, change); err == nil || !strings.Contains(err.Error(), "kubectl label namespace "+ns) {
			t.Errorf("%s: %v, want a refusal of outrider-guard", name, err)
		}
	}
	out, err := w.kubectl(t, "", "-n", ns, "debug", "db-0", "--copy-to=copy", "--container=postgres", "--image=postgres:17", "--", "sleep", "1d")
	if err == nil || !strings.Contains(out, "--keep-init-containers=false") {
		t.Errorf("kubectl debug --copy-to: %v\n%s\nwant a refusal that says how to do it", err, out)
	}
	out, err = w.kubectl(t, "", "-n", ns, "debug", "db-0", "--copy-to=copy", "--keep-init-containers=false", "--container=postgres", "--image=postgres:17", "--", "sleep", "1d")
	if err != nil {
		t.Errorf("kubectl debug --copy-to --keep-init-containers=false: %v\n%s", err, out)
	}
}

// TestLeftAlone: no container of ours in pods that are not to be protected.
func TestLeftAlone(t *testing.T) {
	w := shared
	labelled, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	pod := func(namespace string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "p-" + rand.String(6), Namespace: namespace},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "postgres", Image: "postgres:17"}}},
		}
		change(p)
		return p
	}
	for name, p := range map[string]*corev1.Pod{
		"in a namespace without the label": pod(plain, func(*corev1.Pod) {}),
		"opted out": pod(labelled, func(p *corev1.Pod) {
			p.Annotations = map[string]string{"outrider.dev/protect": "disabled"}
		}),
		"no Postgres": pod(labelled, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx" }),
		"a mirror of a static pod": pod(labelled, func(p *corev1.Pod) {
			p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "static"}
			p.Spec.NodeName = "spot-1"
		}),
	} {
		t.Run(name, func(t *testing.T) {
			w.await(t, "the pod to be admitted", func(ctx context.Context) error { // once it has its service account
				got, err := w.client.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
				if err == nil && len(got.Spec.InitContainers) != 0 {
					t.Errorf("it has the init containers %+v", got.Spec.InitContainers)
				}
				return err
			})
		})
	}
	t.Run("a Job", func(t *testing.T) {
		out, err := w.kubectl(t, "", "-n", labelled, "create", "job", "dump", "--image=postgres:17", "--", "pg_dump")
		if err != nil {
			t.Fatalf("kubectl create job: %v\n%s", err, out)
		}
		w.await(t, "the Job's pod", func(ctx context.Context) error {
			pods, err := w.client.CoreV1().Pods(labelled).List(ctx, metav1.ListOptions{LabelSelector: "job-name=dump"})
			if err != nil || len(pods.Items) != 1 {
				return errors.Join(err, errors.New("not yet"), w.lastEvents(ctx, labelled))
			}
			if len(pods.Items[0].Spec.InitContainers) != 0 {
				t.Errorf("it has the init containers %+v", pods.Items[0].Spec.InitContainers)
			}
			return nil
		})
	})
	t.Run("an ephemeral container of a protected pod", func(t *testing.T) {
		w.apply(t, database(labelled, "db"))
		before := w.ready(t, labelled, "db-0")
		// It goes on to attach, which no played kubelet can.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		debug := w.cluster.Kubectl(ctx, "-n", labelled, "debug", "db-0", "--image=busybox", "--attach=false")
		if out, err := debug.CombinedOutput(); err != nil {
			t.Fatalf("kubectl debug: %v\n%s", err, out)
		}
		after, err := w.client.CoreV1().Pods(labelled).Get(t.Context(), "db-0", metav1.GetOptions{})
		if err != nil || after.UID != before.UID || len(after.Spec.EphemeralContainers) != 1 {
			t.Errorf("the pod afterwards: %v, %+v", err, after.Spec.EphemeralContainers)
		}
	})
}
