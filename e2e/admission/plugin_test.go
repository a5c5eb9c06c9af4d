package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// plugin is kubectl with kubectl-outrider and its completion in PATH.
type plugin struct {
	*world
	dir    string
	config string // kubeconfig; "" for the administrator's
}

func newPlugin(t *testing.T, w *world) plugin {
	t.Helper()
	p := plugin{world: w, dir: t.TempDir()}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(p.dir, "kubectl-outrider"), "outrider.dev/webhook/kubectl-outrider")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building kubectl-outrider: %v\n%s", err, out)
	}
	script, err := os.ReadFile("../../webhook/kubectl-outrider/kubectl_complete-outrider")
	if err == nil {
		err = os.WriteFile(filepath.Join(p.dir, "kubectl_complete-outrider"), script, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(w.cluster.Kubectl(t.Context()).Path, filepath.Join(p.dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	return p
}

// as is the plugin in the hands of a user with a ClusterRole, "" for none, and no other rights.
func (p plugin) as(t *testing.T, user, role string) plugin {
	t.Helper()
	p.config = filepath.Join(t.TempDir(), "config")
	if err := p.cluster.WriteKubeconfig(p.config, user); err != nil {
		t.Fatal(err)
	}
	if role == "" {
		return p
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "test-" + user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
	}
	bindings := p.client.RbacV1().ClusterRoleBindings()
	if _, err := bindings.Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bindings.Delete(context.Background(), binding.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return p
}

// call runs kubectl and returns its exit code and what it printed.
func (p plugin) call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := p.cluster.Kubectl(t.Context(), args...)
	if p.config != "" {
		cmd.Args = append(cmd.Args, "--kubeconfig="+p.config)
	}
	cmd.Env = append(cmd.Env, "PATH="+p.dir+":"+os.Getenv("PATH"))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("kubectl %v: %v", args, err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// outcomes are the findings of a check, as OUTCOME ABOUT: TEXT.
func (p plugin) outcomes(t *testing.T, args ...string) (code int, lines string) {
	t.Helper()
	code, out, errs := p.call(t, append([]string{"outrider", "check", "-o", "json"}, args...)...)
	var found struct {
		Findings []struct{ Outcome, About, Text, Remedy string }
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found.Findings) == 0 {
		t.Fatalf("reading the check: %v\n%s\n%s", err, out, errs)
	}
	var b strings.Builder
	for _, f := range found.Findings {
		if f.Outcome != "ok" && f.Remedy == "" {
			t.Errorf("there is no remedy in %+v", f)
		}
		fmt.Fprintf(&b, "%s %s: %s\n", f.Outcome, f.About, f.Text)
	}
	return code, b.String()
}

func contains(t *testing.T, what, text string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		if !strings.Contains(text, want) {
			t.Errorf("%s has no %q:\n%s", what, want, text)
		}
	}
}

// TestPlugin calls kubectl outrider as people do. No sidecar runs here, so each is unknown, and said to be so.
func TestPlugin(t *testing.T) {
	w := shared
	p := newPlugin(t, w)
	ns := w.namespace(t, &corev1.Namespace{})
	w.apply(t, database(ns, "early"))
	w.ready(t, ns, "early-0")
	if code, out, errs := p.call(t, "outrider", "status", "-n", ns); code != 0 || out != "" || !strings.Contains(errs, "no database") {
		t.Errorf("in a namespace without the label: exit code %d\n%s%s", code, out, errs)
	}
	if out, err := w.kubectl(t, "", "label", "namespace", ns, "outrider.dev/protect=enabled"); err != nil {
		t.Fatalf("kubectl label: %v\n%s", err, out)
	}
	w.apply(t, database(ns, "db"))
	w.ready(t, ns, "db-0")
	w.apply(t, `{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: db, namespace: `+ns+`}, spec: {minAvailable: 1, selector: {matchLabels: {app: db}}}}`)

	t.Run("status", func(t *testing.T) {
		code, out, errs := p.call(t, "outrider", "status", "-n", ns)
		if code != 0 {
			t.Errorf("exit code %d: %s", code, errs)
		}
		contains(t, "the table", out, "POD", "statefulset/db", "unknown", "statefulset/early", "unprotected",
			ns+"/db-0: unknown: the sidecar could not be asked", ns+"/early-0: unprotected: it was made before")
		code, out, errs = p.call(t, "outrider", "status", "-A", "-o", "json")
		var all struct {
			Databases []struct{ Namespace, Pod, State string }
		}
		if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
			t.Fatalf("exit code %d, %v\n%s", code, err, errs)
		}
		found := map[string]string{}
		for _, d := range all.Databases {
			found[d.Namespace+"/"+d.Pod] = d.State
		}
		if found[ns+"/db-0"] != "unknown" || found[ns+"/early-0"] != "unprotected" {
			t.Errorf("everywhere there are %v", found)
		}
	})
	t.Run("check", func(t *testing.T) {
		code, lines := p.outcomes(t, "-n", ns)
		if code != 1 {
			t.Errorf("exit code %d with something wrong", code)
		}
		contains(t, "the check", lines, "ok version", "ok deployment outrider-webhook: 2 of 2", "warning mutating webhook configuration outrider: the last authority in its caBundle expires", // certificates live for minutes here
			"warning validating webhook configuration outrider", "ok admission policy outrider-guard", "ok configuration of the webhook", "ok namespace "+ns,
			"ok clock of this machine: it agrees", "warning certificate of the webhook: it expires at", "failed secret:outrider-oss in namespace "+ns+": there is no such Secret",
			"ok "+ns+"/db-0: its terminationGracePeriodSeconds is 120, enough",
			"ok trial in namespace "+ns, "failed "+ns+"/early-0: unprotected", "unknown "+ns+"/db-0", "disruption budget db never allows a disruption")
		pods, err := w.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 2 {
			t.Errorf("after the check there are %d pods, %v", len(pods.Items), err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		empty := w.protected(t)
		if code, lines := p.outcomes(t, "-n", empty); code != 1 || !strings.Contains(lines, "there is no such Secret") {
			t.Errorf("exit code %d with credentials missing, before the first database:\n%s", code, lines)
		}
		w.apply(t, `{apiVersion: v1, kind: Secret, metadata: {name: outrider-oss, namespace: `+empty+`}, stringData: {OSS_ACCESS_KEY_ID: topsecret, OSS_ACCESS_KEY_SECRET: topsecret}}`)
		code, lines := p.outcomes(t, "-n", empty)
		if code != 0 || strings.Contains(lines, "topsecret") {
			t.Errorf("exit code %d with nothing wrong:\n%s", code, lines)
		}
		contains(t, "the check", lines, "ok secret:outrider-oss in namespace "+empty+": it has both keys")
	})
	t.Run("without rights", func(t *testing.T) {
		code, out, errs := p.as(t, "nobody", "").call(t, "outrider", "status", "-n", ns)
		if code != 1 || out != "" || !strings.Contains(errs, "forbidden") {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
	})
	t.Run("with some rights", func(t *testing.T) {
		code, lines := p.as(t, "looker", "view").outcomes(t, "-n", ns)
		if code != 1 {
			t.Errorf("exit code %d with much that could not be told", code)
		}
		contains(t, "the check", lines, "unknown certificate of the webhook: could not be told", "unknown secret:outrider-oss in namespace "+ns+": could not be told",
			"unknown trial in namespace "+ns, "unknown mutating webhook configuration outrider", "ok deployment outrider-webhook")
	})
	t.Run("restore", func(t *testing.T) {
		code, out, errs := p.call(t, "outrider", "restore", "-n", ns, "statefulset/db", "--name", "db-before", "--target", "2026-11-20T09:30:00Z")
		if code != 0 {
			t.Fatalf("exit code %d\n%s%s", code, out, errs)
		}
		clone := w.ready(t, ns, "db-before")
		root := environment(w.ready(t, ns, "db-0"), "outrider", "OUTRIDER_ARCHIVE")
		if got := environment(clone, "outrider-restore", "OUTRIDER_RESTORE_FROM"); !isProtected(clone) || got != root {
			t.Errorf("the clone is restored from %q, want %q; protected: %v", got, root, isProtected(clone))
		}
		if got := environment(clone, "outrider", "OUTRIDER_ARCHIVING"); got != "off" {
			t.Errorf("archiving of the clone is %q, want off", got)
		}
		if clone.Labels["app"] != "" {
			t.Errorf("a Service finds the clone by %v", clone.Labels)
		}
	})
	t.Run("no such database", func(t *testing.T) {
		for _, command := range []string{"why", "list", "backup", "restore"} {
			code, out, errs := p.call(t, "outrider", command, "-n", ns, "early-0")
			if code != 2 || out != "" || !strings.Contains(errs, "no protected database early-0") {
				t.Errorf("%s: exit code %d\n%s%s", command, code, out, errs)
			}
		}
	})
	t.Run("completion", func(t *testing.T) {
		_, out, errs := p.call(t, "__complete", "outrider", "")
		contains(t, "the completion "+errs, out, "status", "check")
		_, out, errs = p.call(t, "__complete", "outrider", "status", "-n", ns[:len(ns)-1])
		contains(t, "the completion "+errs, out, ns)
	})
}

// TestPluginClonesDisks: the copy of a database on a persistent volume gets one of its own, with the room that the original
// has, and it goes with the pod.
func TestPluginClonesDisks(t *testing.T) {
	w := shared
	p := newPlugin(t, w)
	ns := w.protected(t)
	for _, name := range []string{"one", "two"} {
		addDisk(t, w, ns+"-"+name, ns, "3Gi")
	}
	w.apply(t, strings.Replace(database(ns, "db"), "  template:\n", `  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: `+ns+`, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
  template:
`, 1)+"        volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]\n")
	w.ready(t, ns, "db-0")
	if code, out, errs := p.call(t, "outrider", "restore", "-n", ns, "--name", "copy"); code != 0 || strings.Contains(errs, "warning") {
		t.Fatalf("exit code %d\n%s%s", code, out, errs)
	}
	if copied := w.ready(t, ns, "copy"); !isProtected(copied) || copied.Spec.Volumes[0].Ephemeral == nil {
		t.Errorf("its volumes are %+v", copied.Spec.Volumes)
	}
	claim, err := w.client.CoreV1().PersistentVolumeClaims(ns).Get(t.Context(), "copy-data", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if q := claim.Spec.Resources.Requests[corev1.ResourceStorage]; q.String() != "3Gi" || claim.Status.Phase != corev1.ClaimBound || !metav1.IsControlledBy(claim, w.ready(t, ns, "copy")) {
		t.Errorf("its claim is for %s, %s, and of %+v", q.String(), claim.Status.Phase, claim.OwnerReferences)
	}
	// Somebody who may not look at claims is told where the copy will be.
	w.apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: `+ns+`}, rules: [{apiGroups: [""], resources: [namespaces, pods], verbs: [get, list]}]}`)
	t.Cleanup(func() {
		if err := w.client.RbacV1().ClusterRoles().Delete(context.Background(), ns, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	code, out, errs := p.as(t, "cloner", ns).call(t, "outrider", "restore", "-n", ns, "statefulset/db", "--dry-run")
	if code != 0 || !strings.Contains(out, "emptyDir") || !strings.Contains(errs, "warning: PersistentVolumeClaim "+ns+"/data-db-0") {
		t.Errorf("exit code %d\n%s%s", code, out, errs)
	}
}

// addDisk makes a volume that claims of a class may have.
func addDisk(t *testing.T, w *world, name, class, size string) {
	t.Helper()
	disk := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{
			StorageClassName: class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Capacity:               corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var/empty"}},
		},
	}
	if _, err := w.client.CoreV1().PersistentVolumes().Create(t.Context(), disk, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.client.CoreV1().PersistentVolumes().Delete(context.Background(), name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
}
