package admit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// known are namespaces with their annotations.
type known map[string]map[string]string

func (k known) Annotations(_ context.Context, name string) (map[string]string, error) {
	a, ok := k[name]
	if !ok {
		return nil, errors.New("reading the annotations of namespace " + name + ": no route to host")
	}
	return a, nil
}

func input(namespace string, annotations map[string]string) inject.Input {
	if annotations["panic"] != "" {
		panic("what was not thought of")
	}
	return inject.Input{
		Namespace: namespace,
		Levels:    []policy.Level{policy.Namespace(namespace, annotations)},
		Image:     inject.Image{Name: "outrider:v1"}, KubernetesCluster: "0c5ff3f3",
	}
}

// hook is a server of all paths and what it counts and logs.
type hook struct {
	*httptest.Server
	reg *prometheus.Registry
	log *bytes.Buffer
}

func newHook(tb testing.TB, stored ...there) *hook {
	tb.Helper()
	stored = append(stored, there{})
	h := &hook{reg: prometheus.NewRegistry(), log: &bytes.Buffer{}}
	handlers := New(Config{
		Namespaces: known{
			"shop":  {"outrider.dev/archive": "oss://backups/prod", "outrider.dev/oss-endpoint": "oss-cn-hangzhou.aliyuncs.com"},
			"bare":  {},
			"wrong": {"outrider.dev/archive": "oss://backups/prod", "panic": "yes"},
		},
		Workloads: stored[0], Input: input, Log: slog.New(slog.NewJSONHandler(h.log, nil)), Metrics: h.reg,
	})
	mux := http.NewServeMux()
	mux.Handle("/mutate-pod", handlers.Pods())
	mux.Handle("/review-workload", handlers.Workloads())
	mux.Handle("/review-scale", handlers.Scales())
	h.Server = httptest.NewServer(mux)
	tb.Cleanup(h.Close)
	return h
}

// review is an AdmissionReview as an API server sends it.
func review(tb testing.TB, resource, operation, namespace, object, old string) []byte {
	tb.Helper()
	asJSON := func(text string) json.RawMessage {
		if text == "" {
			return json.RawMessage("null")
		}
		b, err := yaml.YAMLToJSON([]byte(text))
		if err != nil {
			tb.Fatal(err)
		}
		return b
	}
	group, kind := "apps", map[string]string{"pods": "Pod", "statefulsets": "StatefulSet", "deployments": "Deployment"}[resource]
	if resource == "pods" {
		group = ""
	}
	b, err := json.Marshal(map[string]any{
		"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
		"request": map[string]any{
			"uid": "705ab4f5", "kind": map[string]string{"group": group, "version": "v1", "kind": kind},
			"resource":  map[string]string{"group": group, "version": "v1", "resource": resource},
			"operation": operation, "namespace": namespace, "userInfo": map[string]any{"username": "somebody"},
			"object": asJSON(object), "oldObject": asJSON(old), "dryRun": true, "options": map[string]any{},
			"somethingNewer": true,
		},
	})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func (h *hook) ask(tb testing.TB, path string, body []byte) *admissionv1.AdmissionResponse {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, h.URL+path+"?timeout=5s", bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(raw, &answer); err != nil || res.StatusCode != http.StatusOK {
		tb.Fatalf("%s, %v: %s", res.Status, err, raw)
	}
	if answer.Kind != "AdmissionReview" || answer.APIVersion != "admission.k8s.io/v1" || answer.Response.UID != "705ab4f5" {
		tb.Fatalf("an API server would not take this for its answer: %s", raw)
	}
	return answer.Response
}

func (h *hook) counted(t *testing.T, resource, decision, reason string) float64 {
	t.Helper()
	families, err := h.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == "outrider_webhook_admissions_total" && slices.Equal(labels, []string{decision, reason, resource}) {
				return m.Counter.GetValue()
			}
		}
	}
	return 0
}

// The object of a request often has no namespace of its own.
const postgres = `
metadata: {name: orders, unknownOfMetadata: 1}
unknownOfPod: {a: [1, 2]}
spec:
  unknownOfSpec: keep
  containers:
  - name: postgres
    image: postgres:16
    unknownOfContainer: {b: true}
    env:
    - {name: POSTGRES_PASSWORD, valueFrom: {fileKeyRef: {volumeName: config, path: p, key: k}}}
    volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data, unknownOfMount: 7}]
  - {name: web, image: "nginx:1", resizePolicyOfTheFuture: x}
  volumes:
  - {name: data, unknownVolumeSource: {size: 10Gi}, persistentVolumeClaim: {claimName: data, unknownOfClaim: y}}
`

// What the API server makes of the answer is the user's pod, with everything in it, and ours added.
func TestUnknownFieldsSurvive(t *testing.T) {
	h := newHook(t)
	body := review(t, "pods", "CREATE", "shop", postgres, "")
	got := h.ask(t, "/mutate-pod", body)
	if !got.Allowed || got.PatchType == nil || *got.PatchType != admissionv1.PatchTypeJSONPatch {
		t.Fatalf("the answer is %+v", got)
	}
	if got.AuditAnnotations["reason"] != "injected" {
		t.Errorf("for the audit log: %v", got.AuditAnnotations)
	}
	before, err := yaml.YAMLToJSON([]byte(postgres))
	if err != nil {
		t.Fatal(err)
	}
	ops, err := jsonpatch.DecodePatch(got.Patch)
	if err != nil {
		t.Fatal(err)
	}
	after, err := ops.Apply(before)
	if err != nil {
		t.Fatalf("the API server cannot apply the patch: %v\n%s", err, got.Patch)
	}
	var pod corev1.Pod
	if err := json.Unmarshal(after, &pod); err != nil {
		t.Fatal(err)
	}
	if len(pod.Spec.InitContainers) != 2 || pod.Spec.InitContainers[0].Name != inject.RestoreContainer || pod.Spec.InitContainers[1].Name != inject.SidecarContainer {
		t.Errorf("the init containers are %+v", pod.Spec.InitContainers)
	}
	var was, is map[string]any
	if err := errors.Join(json.Unmarshal(before, &was), json.Unmarshal(after, &is)); err != nil {
		t.Fatal(err)
	}
	if lost := missing("", was, is); len(lost) > 0 {
		t.Errorf("lost or changed: %s", strings.Join(lost, ", "))
	}
	if n := h.counted(t, "pods", "changed", "injected"); n != 1 {
		t.Errorf("%v admissions are counted", n)
	}
	if !strings.Contains(h.log.String(), `"dry_run":true`) || !strings.Contains(h.log.String(), `"name":"orders"`) {
		t.Errorf("the log says %s", h.log)
	}
}

// missing are the paths of a that b does not have as they were. Numbers that may be raised are none of them.
func missing(path string, a, b any) (lost []string) {
	switch a := a.(type) {
	case map[string]any:
		b, _ := b.(map[string]any)
		for k, v := range a {
			lost = append(lost, missing(path+"/"+k, v, b[k])...)
		}
	case []any:
		b, _ := b.([]any)
		for i, v := range a {
			if i >= len(b) {
				return append(lost, path)
			}
			lost = append(lost, missing(path+"/"+string(rune('0'+i)), v, b[i])...)
		}
	default:
		if !cmp.Equal(a, b) {
			lost = append(lost, path)
		}
	}
	return lost
}

func TestPodsAreRefusedWithAReason(t *testing.T) {
	const noImage = "spec: {containers: [{name: web, image: nginx}]}"
	for name, c := range map[string]struct {
		body             []byte
		allowed          bool
		code             int32
		says             []string
		decision, reason string
	}{
		"no Postgres": {review(t, "pods", "CREATE", "shop", noImage, ""), true, 200, nil, "allowed", "no_postgres"},
		"misspelt": {
			review(t, "pods", "CREATE", "shop", "metadata: {name: a, annotations: {outrider.dev/retenton: 7d}}\nspec: {containers: [{name: pg, image: postgres}]}", ""),
			false, 403,
			[]string{"outrider: bad_policy: ", "outrider.dev/retention"},
			"denied", "bad_policy",
		},
		"no archive": {
			review(t, "pods", "CREATE", "bare", "metadata: {name: a}\nspec: {containers: [{name: pg, image: postgres}]}", ""),
			false, 403,
			[]string{"bad_policy", "archive", "oss://bucket/prefix"},
			"denied", "bad_policy",
		},
		"generated name": {
			review(t, "pods", "CREATE", "shop", "metadata: {generateName: a-}\nspec: {containers: [{name: pg, image: postgres}]}", ""),
			false, 403,
			[]string{"no_identity", "outrider.dev/cluster"},
			"denied", "no_identity",
		},
		"namespace cannot be told": {review(t, "pods", "CREATE", "far", noImage, ""), false, 503, []string{"namespace_unknown", "namespace far", "no route"}, "failed", "namespace_unknown"},
		"a mistake of ours":        {review(t, "pods", "CREATE", "wrong", noImage, ""), false, 500, []string{"internal_error", "what was not thought of"}, "failed", "internal_error"},
		"update":                   {review(t, "pods", "UPDATE", "shop", noImage, noImage), false, 400, []string{"bad_request", "UPDATE of pods"}, "failed", "bad_request"},
		"not a pod":                {review(t, "pods", "CREATE", "shop", "spec: {containers: 3}", ""), false, 400, []string{"bad_request", "Pod"}, "failed", "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t)
			got := h.ask(t, "/mutate-pod", c.body)
			if got.Allowed != c.allowed || got.Patch != nil {
				t.Errorf("allowed: %t, patch: %s", got.Allowed, got.Patch)
			}
			if got.Result == nil || got.Result.Code != c.code {
				t.Errorf("the result is %+v, want the code %d", got.Result, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(got.Result.Message, want) {
					t.Errorf("%q is not in %q", want, got.Result.Message)
				}
			}
			if n := h.counted(t, "pods", c.decision, c.reason); n != 1 {
				t.Errorf("%s, %s is counted %v times", c.decision, c.reason, n)
			}
			if n := testutil.CollectAndCount(h.reg, "outrider_webhook_admission_duration_seconds"); n != 1 {
				t.Errorf("%d durations are exported", n)
			}
		})
	}
}

func TestPanicLeavesAStack(t *testing.T) {
	h := newHook(t)
	h.ask(t, "/mutate-pod", review(t, "pods", "CREATE", "wrong", "spec: {}", ""))
	if log := h.log.String(); !strings.Contains(log, "admit_test.go") || !strings.Contains(log, `"stack"`) {
		t.Errorf("the log says %s", log)
	}
	if got := h.ask(t, "/mutate-pod", review(t, "pods", "CREATE", "shop", postgres, "")); !got.Allowed {
		t.Errorf("the next one is refused: %+v", got.Result)
	}
}

// What is no AdmissionReview at all is refused, too, and kills nobody.
func TestNonsense(t *testing.T) {
	h := newHook(t)
	for _, body := range []string{"", "{", "[]", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, `{"kind":"Pod"}`} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL+"/mutate-pod", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if bytes.Contains(raw, []byte(`"allowed":true`)) {
			t.Errorf("%q is admitted: %s", body, raw)
		}
	}
}
