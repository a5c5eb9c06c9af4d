package admit

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// there are workloads by resource and name, as the API server has them.
type there map[string]string

func (h there) StatefulSet(_ context.Context, _, name string) (*appsv1.StatefulSet, error) {
	s := &appsv1.StatefulSet{}
	return s, h.read("statefulsets", name, s)
}

func (h there) Deployment(_ context.Context, _, name string) (*appsv1.Deployment, error) {
	d := &appsv1.Deployment{}
	return d, h.read("deployments", name, d)
}

func (h there) read(resource, name string, into any) error {
	text, ok := h[resource+"/"+name]
	switch {
	case name == "far":
		return errors.New("no route to host")
	case !ok:
		return apierrors.NewNotFound(schema.GroupResource{Group: "apps", Resource: resource}, name)
	}
	return yaml.Unmarshal([]byte(text), into)
}

// scaleReview is what an API server sends for kubectl scale and for an autoscaler.
func scaleReview(tb testing.TB, resource, name, before, after string) []byte {
	tb.Helper()
	scale := func(n string) string {
		return "{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: " + name + ", namespace: shop}, spec: {replicas: " + n + "}}"
	}
	body := review(tb, resource, "UPDATE", "shop", scale(after), scale(before))
	body = bytes.Replace(body, []byte(`"operation"`), []byte(`"subResource":"scale","name":"`+name+`","operation"`), 1)
	return body
}

// A workload is scaled without its spec being sent. What would be two writers of one database is refused all the same.
func TestScale(t *testing.T) {
	stored := there{
		"deployments/right":     deployment("1", "Recreate", "postgres:16", ""),
		"deployments/gone":      deployment("0", "Recreate", "postgres:16", ""),
		"deployments/surges":    deployment("0", "RollingUpdate", "postgres:16", ""),
		"deployments/several":   deployment("3", "Recreate", "postgres:16", ""),
		"deployments/web":       deployment("1", "RollingUpdate", "nginx:1", ""),
		"deployments/mistake":   deployment("1", "RollingUpdate", "chainguard/postgres:16", ""),
		"statefulsets/orders":   statefulSet("1", "postgres:16", ""),
		"statefulsets/one-name": statefulSet("1", "postgres:16", "outrider.dev/cluster: orders"),
		"statefulsets/out":      statefulSet("1", "postgres:16", "outrider.dev/protect: disabled, outrider.dev/cluster: orders"),
		"statefulsets/typo":     statefulSet("1", "postgres:16", "outrider.dev/retenton: 7d"),
	}
	for name, c := range map[string]struct {
		resource, workload, before, after string
		allowed                           bool
		reason, says                      string
	}{
		"a second pod of one database":               {"deployments", "right", "1", "2", false, "shared_identity", "the 2 pods of Deployment cache"},
		"the first pod again":                        {"deployments", "gone", "0", "1", true, "injected", ""},
		"the first pod of one that surges":           {"deployments", "surges", "0", "1", true, "shared_identity", "one pod may start, and the next rollout would make two: Deployment cache starts a new pod before the old one is gone"},
		"a second pod of one that surges":            {"deployments", "surges", "0", "2", false, "shared_identity", "the 2 pods of Deployment cache"},
		"less of too many":                           {"deployments", "several", "3", "2", true, "unchanged", ""},
		"to nothing":                                 {"deployments", "right", "1", "0", true, "unchanged", ""},
		"the same number":                            {"deployments", "several", "3", "3", true, "unchanged", ""},
		"web servers":                                {"deployments", "web", "1", "5", true, "no_postgres", ""},
		"what looks like PostgreSQL":                 {"deployments", "mistake", "1", "2", true, "no_postgres", "looks like PostgreSQL"},
		"databases that are each their own":          {"statefulsets", "orders", "1", "3", true, "injected", ""},
		"a StatefulSet with one name for all":        {"statefulsets", "one-name", "1", "2", false, "shared_identity", "outrider.dev/cluster"},
		"one that is opted out":                      {"statefulsets", "out", "1", "2", true, "opted_out", ""},
		"one whose pods are refused":                 {"statefulsets", "typo", "1", "2", true, "bad_policy", "pods of this StatefulSet will be refused"},
		"one that is gone":                           {"statefulsets", "never", "1", "2", true, "unchanged", ""},
		"one that cannot be read":                    {"deployments", "far", "1", "2", true, "workload_unknown", "could not be told: reading what is scaled, deployments far in namespace shop: no route to host"},
		"a resource that this is not registered for": {"pods", "right", "1", "2", false, "bad_request", "apply its registration again"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t, stored)
			got := h.ask(t, "/review-scale", scaleReview(t, c.resource, c.workload, c.before, c.after))
			if got.Allowed != c.allowed || got.AuditAnnotations["reason"] != c.reason {
				t.Errorf("allowed: %t (%+v), reason %s; want %t, %s", got.Allowed, got.Result, got.AuditAnnotations["reason"], c.allowed, c.reason)
			}
			text := strings.Join(got.Warnings, "\n")
			if !got.Allowed {
				text = got.Result.Message
			}
			if !strings.Contains(text, c.says) {
				t.Errorf("%q is not in %q", c.says, text)
			}
		})
	}
}

// Nobody's workload waits for what the webhook cannot read. It is said, to whoever scales and in the log.
func TestScaleThatCannotBeJudged(t *testing.T) {
	h := newHook(t, there{"deployments/right": deployment("1", "Recreate", "postgres:16", "")})
	body := bytes.ReplaceAll(scaleReview(t, "deployments", "right", "1", "2"), []byte(`"shop"`), []byte(`"far"`))
	got := h.ask(t, "/review-scale", body)
	if !got.Allowed || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "annotations of namespace far: no route to host") {
		t.Errorf("with a namespace that cannot be read: %+v", got)
	}
	if log := h.log.String(); !strings.Contains(log, `"level":"WARN"`) || !strings.Contains(log, `"reason":"namespace_unknown"`) || !strings.Contains(log, "no route to host") {
		t.Errorf("the log has no warning of it: %s", log)
	}
}

// Each of the two paths is for one thing. On the other it is a mistake of the registration, which is said.
func TestPathsAreNotMixedUp(t *testing.T) {
	h := newHook(t, there{"deployments/right": deployment("1", "Recreate", "postgres:16", "")})
	whole := deployment("1", "Recreate", "postgres:16", "")
	for path, body := range map[string][]byte{
		"/review-workload": scaleReview(t, "deployments", "right", "0", "1"),
		"/review-scale":    review(t, "deployments", "UPDATE", "shop", whole, whole),
	} {
		got := h.ask(t, path, body)
		if got.Allowed || got.AuditAnnotations["reason"] != "bad_request" || !strings.Contains(got.Result.Message, "apply its registration again") {
			t.Errorf("%s answers %+v", path, got)
		}
	}
}
