package inject

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
)

var update = flag.Bool("update", false, "write what is decided into testdata instead of comparing it")

// testInput is a webhook's configuration with everything in it.
func testInput() Input {
	return Input{
		Namespace: "shop",
		Levels: []policy.Level{
			policy.Configuration(map[string]string{"oss-endpoint": "oss-cn-hangzhou-internal.aliyuncs.com", "oss-region": "cn-hangzhou"}),
			policy.Namespace("shop", map[string]string{"outrider.dev/archive": "oss://backups/prod", "outrider.dev/credentials": "secret:oss"}),
		},
		Image:             Image{Name: "registry.example.com/outrider:v1"},
		KubernetesCluster: "11111111-2222-3333-4444-555555555555",
		Evacuation:        Evacuation{URL: "https://outrider-webhook.outrider-system.svc/v1/evacuations", CA: "-----BEGIN CERTIFICATE-----\nMII…\n-----END CERTIFICATE-----\n"},
		RRSA:              RRSA{ProviderARN: "acs:ram::1234567890123456:oidc-provider/ack-rrsa-c0ffee", VPC: true},
	}
}

// example is a golden file's input.
type example struct {
	name   string
	pod    *corev1.Pod
	decide func(Input) (Decision, error)
}

// examples reads all inputs in testdata.
func examples(t *testing.T) []example {
	t.Helper()
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 60 {
		t.Fatalf("testdata has %d examples: some are missing", len(files))
	}
	var all []example
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		e, err := parseExample(raw)
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		e.name = strings.TrimSuffix(filepath.Base(f), ".in.yaml")
		all = append(all, e)
	}
	return all
}

func parseExample(raw []byte) (example, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(raw, &kind); err != nil {
		return example{}, err
	}
	switch kind.Kind {
	case "StatefulSet":
		var s appsv1.StatefulSet
		err := yaml.UnmarshalStrict(raw, &s)
		return example{pod: StatefulSetPod(&s), decide: func(in Input) (Decision, error) { return StatefulSet(&s, in) }}, err
	case "Deployment":
		var d appsv1.Deployment
		err := yaml.UnmarshalStrict(raw, &d)
		return example{pod: DeploymentPod(&d), decide: func(in Input) (Decision, error) { return Deployment(&d, in) }}, err
	default:
		var p corev1.Pod
		err := yaml.UnmarshalStrict(raw, &p)
		return example{pod: &p, decide: func(in Input) (Decision, error) { return Pod(&p, in) }}, err
	}
}

// outcome is a golden file's output.
type outcome struct {
	Reason   Reason      `json:"reason"`
	Error    []string    `json:"error,omitempty"`
	Warnings []string    `json:"warnings,omitempty"`
	Pod      *corev1.Pod `json:"pod,omitempty"`
}

func TestExamples(t *testing.T) {
	for _, e := range examples(t) {
		t.Run(e.name, func(t *testing.T) {
			given := e.pod.DeepCopy()
			d, err := e.decide(testInput())
			if diff := cmp.Diff(given, e.pod); diff != "" {
				t.Errorf("the given pod was changed (-before +after):\n%s", diff)
			}
			o := outcome{Reason: d.Reason, Warnings: d.Warnings, Pod: d.Pod}
			if err != nil {
				o.Error = strings.Split(err.Error(), "\n")
			}
			if refused := d.Reason.Refused(); refused != (err != nil) || refused && d.Pod != nil {
				t.Errorf("reason %s comes with error %v and a pod: %v", d.Reason, err, d.Pod != nil)
			}
			if d.Pod != nil && (d.Reason == Injected || d.Reason == Drill) {
				if again, err := Pod(d.Pod, testInput()); err != nil || again.Pod != nil {
					t.Errorf("a second injection changes the pod (%v, -once +twice):\n%s", err, cmp.Diff(d.Pod, again.Pod))
				}
			}
			got, err := yaml.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", e.name+".out.yaml")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v: write it with -update, and read it", err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the decision differs from %s (-want +got); -update accepts it:\n%s", file, cmp.Diff(string(want), string(got)))
			}
		})
	}
}

func TestEveryOutputHasAnInput(t *testing.T) {
	files, err := filepath.Glob("testdata/*.out.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("testdata has no outputs")
	}
	for _, f := range files {
		in := strings.TrimSuffix(f, ".out.yaml") + ".in.yaml"
		if _, err := os.Stat(in); err != nil {
			t.Errorf("%s has no partner: %v", f, err)
		}
	}
	others, err := filepath.Glob("testdata/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range others {
		if !strings.HasSuffix(f, ".in.yaml") && !strings.HasSuffix(f, ".out.yaml") {
			t.Errorf("%s is neither an input nor an output: no test reads it", f)
		}
	}
}

// Each reason of the closed list has an example, so that each text was read by a person once.
func TestEveryReasonHasAnExample(t *testing.T) {
	seen := map[Reason]bool{PostgresVanished: true} // depends on what was there before: a test of its own
	for _, e := range examples(t) {
		d, _ := e.decide(testInput())
		seen[d.Reason] = true
	}
	for _, r := range Reasons() {
		if !seen[r] {
			t.Errorf("no example ends with %s", r)
		}
		delete(seen, r)
	}
	for r := range seen {
		t.Errorf("%q is not in the list of reasons", r)
	}
}
