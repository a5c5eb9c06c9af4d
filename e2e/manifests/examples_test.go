package manifests_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

var update = flag.Bool("update", false, "write the outcomes of the examples and the tables of README.md instead of comparing them")

// program is outrider-webhook, built once.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "outrider-manifests")
	if err == nil {
		program = filepath.Join(dir, "outrider-webhook")
		var out []byte
		if out, err = exec.Command("go", "build", "-ldflags=-X main.linkedImage=outrider:dev", "-o", program, "outrider.dev/webhook").CombinedOutput(); err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "building outrider-webhook:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// examples are those whose namespace is protected, and the configuration of the webhook that they meet.
func examples() map[string]string {
	return map[string]string{
		"orders-protected": "overlays/dev/config.yaml",
		"timescaledb":      "overlays/ack/config.yaml",
		"deployment":       "overlays/dev/config.yaml",
		"clone":            "overlays/dev/config.yaml",
		"drill":            "overlays/dev/config.yaml",
		"expire":           "overlays/dev/config.yaml",
		"another-region":   "overlays/ack/config.yaml",
	}
}

// What becomes of each example is written down in testdata, for a person to read:
// go test ./e2e/manifests -run Example -update.
func TestExamplesBecomeWhatIsWrittenDown(t *testing.T) {
	for name, config := range examples() {
		t.Run(name, func(t *testing.T) {
			code, got := inject(t, render(t, filepath.Join(top, "examples", name)), filepath.Join(top, config))
			if code != 0 {
				t.Errorf("exit code %d: %s", code, got)
			}
			path := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(read(t, path)), string(got)); diff != "" {
				t.Errorf("the outcome differs from %s (-want +got), written anew by -update:\n%s", path, diff)
			}
			if strings.Count(string(got), ": injected\n") != 1 {
				t.Error("there is not exactly one protected pod in it")
			}
		})
	}
}

// inject runs `outrider-webhook inject` and returns its exit code and what it printed.
func inject(t *testing.T, objects []byte, config string) (int, []byte) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, "inject", "-f", "-", "--config", config)
	cmd.Stdin = bytes.NewReader(objects)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.Bytes()
}

// No example is forgotten, and only labelled namespaces are expected to be protected.
func TestExamplesAreAllTried(t *testing.T) {
	dirs, err := filepath.Glob(filepath.Join(top, "examples", "*", "kustomization.yaml"))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no examples, %v", err)
	}
	for _, path := range dirs {
		name := filepath.Base(filepath.Dir(path))
		_, tried := examples()[name]
		labelled := false
		for _, o := range build(t, filepath.Dir(path)) {
			if ns, ok := o.Object.(*corev1.Namespace); ok && ns.Labels["outrider.dev/protect"] == "enabled" {
				labelled = true
			}
		}
		if labelled != tried {
			t.Errorf("example %s: its namespace is labelled: %t; its outcome is compared: %t", name, labelled, tried)
		}
	}
}

// Protecting what is there takes two lines, and neither is on the workload.
func TestProtectionIsTwoLines(t *testing.T) {
	var lines []string
	for line := range strings.Lines(string(read(t, top+"/examples/orders-protected/protect.yaml"))) {
		if strings.Contains(line, "outrider.dev/") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if want := []string{"outrider.dev/protect: enabled", "outrider.dev/archive: oss://backups/prod"}; !cmp.Equal(lines, want) {
		t.Errorf("the lines are %q, want %q", lines, want)
	}
	before, after := workloads(t, "orders"), workloads(t, "orders-protected")
	if diff := cmp.Diff(before, after); diff != "" || len(before) == 0 {
		t.Errorf("the workload differs:\n%s", diff)
	}
}

func workloads(t *testing.T, example string) []runtime.Object {
	t.Helper()
	var all []runtime.Object
	for _, o := range build(t, filepath.Join(top, "examples", example)) {
		if k := o.kind(); k == "StatefulSet" || k == "Deployment" {
			all = append(all, o.Object)
		}
	}
	return all
}
