package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// run calls the program with arguments and standard input.
func run(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = execute(t.Context(), newApp(args, strings.NewReader(stdin), &out, &errs))
	return code, out.String(), errs.String()
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const objects = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, annotations: {outrider.dev/archive: "oss://backups/prod"}}
---
# not a pod
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: orders, namespace: shop}
spec:
  serviceName: orders
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}}
    spec:
      containers: [{name: postgres, image: "postgres:16", volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]}]
  volumeClaimTemplates: [{metadata: {name: data}}]
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop}
  spec: {containers: [{name: nginx, image: nginx}]}
`

const surging = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: cache}
spec:
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: postgres, image: "postgres:16"}]}
`

func TestInjectShowsWhatWouldChange(t *testing.T) {
	code, out, errs := run(t, "", "inject", "-f", write(t, objects), "--config", write(t, "image: registry.example.com/outrider:v1\npolicy: {rpo: 500ms}\n"))
	if code != exitOK || errs != "" {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	documents := strings.Split(out, "---\n")[1:]
	if len(documents) != 2 {
		t.Fatalf("%d documents:\n%s", len(documents), out)
	}
	if want := "# StatefulSet shop/orders: injected\n"; !strings.HasPrefix(documents[0], want) {
		t.Errorf("the first document is not %q:\n%s", want, documents[0])
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict([]byte(documents[0]), &pod); err != nil {
		t.Fatalf("the pod cannot be read: %v", err)
	}
	got := map[string]string{}
	for _, e := range pod.Spec.InitContainers[1].Env {
		got[e.Name] = e.Value
	}
	for name, want := range map[string]string{"OUTRIDER_ARCHIVE": "oss://backups/prod/shop/orders-0", "OUTRIDER_RPO": "500ms"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if pod.Spec.InitContainers[0].Image != "registry.example.com/outrider:v1" {
		t.Errorf("the image is %s", pod.Spec.InitContainers[0].Image)
	}
	if documents[1] != "# Pod shop/web: no_postgres\n" {
		t.Errorf("the web server: %s", documents[1])
	}
}

func TestInjectSaysWhyNot(t *testing.T) {
	code, out, _ := run(t, surging, "inject", "-f", "-", "-n", "shop", "--namespace-annotations", "outrider.dev/archive=oss://backups/prod")
	if code != exitRefused {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"# Deployment shop/cache: shared_identity\n", "set strategy.type to Recreate", "# warning: no volume holds"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said:\n%s", want, out)
		}
	}
	if strings.Contains(out, "kind: Pod") {
		t.Errorf("a refused pod is printed:\n%s", out)
	}
}

func TestInjectPrintsPatchAndPolicy(t *testing.T) {
	code, out, errs := run(t, objects, "inject", "-f", "-", "-o", "patch", "--explain")
	if code != exitOK {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	var lines []string
	for line := range strings.SplitSeq(out, "\n") {
		if !strings.HasPrefix(line, "#") && line != "---" {
			lines = append(lines, line)
		}
	}
	var ops []struct{ Op, Path string }
	if err := json.Unmarshal([]byte(strings.Join(lines, "\n")), &ops); err != nil || len(ops) < 5 {
		t.Errorf("%d operations, %v:\n%s", len(ops), err, out)
	}
	for _, want := range []string{"# archive ", "namespace shop", "# pgdata ", "detected"} {
		if !strings.Contains(out, want) {
			t.Errorf("the policy lacks %q:\n%s", want, out)
		}
	}
}

func TestBadInputIsSaid(t *testing.T) {
	file := write(t, objects)
	for name, c := range map[string]struct {
		stdin string
		args  []string
		want  string
	}{
		"no file":               {"", []string{"inject"}, "name the file"},
		"no such file":          {"", []string{"inject", "-f", "/nowhere"}, "/nowhere"},
		"no objects":            {"kind: Service\n", []string{"inject", "-f", "-"}, "no Pod"},
		"no YAML":               {"a: [\n", []string{"inject", "-f", "-"}, "yaml"},
		"misspelt field":        {"kind: Pod\nmetadata: {name: a}\nspec: {container: []}\n", []string{"inject", "-f", "-"}, `Pod a: error unmarshaling JSON: while decoding JSON: json: unknown field "container"`},
		"bad annotation":        {"", []string{"inject", "-f", file, "--namespace-annotations", "x"}, "KEY=VALUE"},
		"bad output":            {"", []string{"inject", "-f", file, "-o", "json"}, "yaml or patch"},
		"unknown configuration": {"", []string{"inject", "-f", file, "--config", write(t, "polcy: {}\n")}, `unknown field "polcy"`},
		"list in policy":        {"", []string{"inject", "-f", file, "--config", write(t, "policy: [rpo]\n")}, "policy"},
		"no configuration":      {"", []string{"inject", "-f", file, "--config", "/nowhere"}, "/nowhere"},
		"argument":              {"", []string{"inject", "-f", file, "more"}, "takes no argument"},
		"unknown command":       {"", []string{"injekt"}, "injekt"},
		"unknown flag":          {"", []string{"inject", "--file", file}, "unknown flag"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out, errs := run(t, c.stdin, c.args...)
			if code != exitUsage || !strings.Contains(errs, c.want) || !strings.HasPrefix(errs, "outrider-webhook: ") || strings.Contains(errs, "usage:") {
				t.Errorf("exit code %d, %q; want %q", code, errs, c.want)
			}
			if out != "" {
				t.Errorf("it writes %q", out)
			}
		})
	}
}

// A policy that is wrong is not a usage error: the file is readable, and the pods in it would be refused.
func TestBadPolicyIsARefusal(t *testing.T) {
	code, out, _ := run(t, objects, "inject", "-f", "-", "--config", write(t, "policy: {retenton: 7d}\n"))
	if code != exitRefused || !strings.Contains(out, "configuration: retenton: unknown key; the nearest is retention") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

func TestVersion(t *testing.T) {
	if code, out, _ := run(t, "", "version"); code != exitOK || !strings.HasPrefix(out, "outrider-webhook ") {
		t.Errorf("exit code %d: %q", code, out)
	}
}
