package admission

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// plugin is kubectl with kubectl-outrider and its completion in PATH.
type plugin struct {
	*world
	dir string
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

// call runs kubectl and returns its exit code and what it printed.
func (p plugin) call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := p.cluster.Kubectl(t.Context(), args...)
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
			"ok trial in namespace "+ns, "failed "+ns+"/early-0: unprotected", "unknown "+ns+"/db-0", "disruption budget db never allows a disruption")
		pods, err := w.client.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(pods.Items) != 2 {
			t.Errorf("after the check there are %d pods, %v", len(pods.Items), err)
		}
	})
	t.Run("empty", func(t *testing.T) {
		empty := w.protected(t)
		if code, lines := p.outcomes(t, "-n", empty); code != 0 {
			t.Errorf("exit code %d with nothing wrong:\n%s", code, lines)
		}
	})
	t.Run("without rights", func(t *testing.T) {
		config := filepath.Join(t.TempDir(), "config")
		if err := w.cluster.WriteKubeconfig(config, "nobody"); err != nil {
			t.Fatal(err)
		}
		code, out, errs := p.call(t, "outrider", "status", "-n", ns, "--kubeconfig", config)
		if code != 1 || out != "" || !strings.Contains(errs, "forbidden") {
			t.Errorf("exit code %d\n%s%s", code, out, errs)
		}
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
