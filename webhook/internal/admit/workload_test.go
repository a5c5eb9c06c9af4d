package admit

import (
	"strings"
	"testing"
)

func deployment(replicas, strategy, image, more string) string {
	return `
metadata: {name: cache` + more + `}
spec:
  replicas: ` + replicas + `
  strategy: {type: ` + strategy + `}
  selector: {matchLabels: {app: cache}}
  template:
    metadata: {labels: {app: cache}}
    spec: {containers: [{name: db, image: "` + image + `"}]}
`
}

func statefulSet(replicas, image, annotations string) string {
	return `
metadata: {name: orders}
spec:
  replicas: ` + replicas + `
  serviceName: orders
  selector: {matchLabels: {app: orders}}
  template:
    metadata: {labels: {app: orders}, annotations: {` + annotations + `}}
    spec: {containers: [{name: db, image: "` + image + `", volumeMounts: [{name: data, mountPath: /var/lib/postgresql/data}]}]}
  volumeClaimTemplates: [{metadata: {name: data}}]
`
}

// A person who applies a workload is told what controllers keep to themselves.
func TestWorkloads(t *testing.T) {
	good := deployment("1", "Recreate", "postgres:16", "")
	for name, c := range map[string]struct {
		resource, operation, now, before string
		allowed                          bool
		reason                           string
		says                             string // in the refusal, or in a warning
	}{
		"one that is right":               {"deployments", "CREATE", good, "", true, "injected", "emptyDir"},
		"a web server":                    {"deployments", "CREATE", deployment("3", "RollingUpdate", "nginx:1", ""), "", true, "no_postgres", ""},
		"two pods of one database":        {"deployments", "CREATE", deployment("2", "Recreate", "postgres:16", ""), "", false, "shared_identity", "set replicas to 1"},
		"a second pod during an update":   {"deployments", "CREATE", deployment("1", "RollingUpdate", "postgres:16", ""), "", false, "shared_identity", "Recreate"},
		"scaled away":                     {"deployments", "UPDATE", deployment("0", "RollingUpdate", "postgres:16", ""), deployment("2", "RollingUpdate", "postgres:16", ""), true, "shared_identity", "will be refused"},
		"an update that makes it right":   {"deployments", "UPDATE", good, deployment("2", "RollingUpdate", "postgres:16", ""), true, "injected", ""},
		"a label on one that is wrong":    {"deployments", "UPDATE", deployment("2", "RollingUpdate", "postgres:16", ", labels: {a: b}"), deployment("2", "RollingUpdate", "postgres:16", ""), true, "unchanged", ""},
		"a finalizer of one that goes":    {"deployments", "UPDATE", deployment("2", "RollingUpdate", "postgres:17", `, deletionTimestamp: "2026-01-01T00:00:00Z"`), deployment("2", "RollingUpdate", "postgres:16", ""), true, "unchanged", ""},
		"another image":                   {"deployments", "UPDATE", deployment("1", "Recreate", "registry.example.com/db:16", ""), good, false, "postgres_vanished", "outrider.dev/container"},
		"another image, opted out":        {"statefulsets", "UPDATE", statefulSet("1", "nginx:1", "outrider.dev/protect: disabled"), statefulSet("1", "postgres:16", ""), true, "opted_out", ""},
		"another image of one pod of two": {"statefulsets", "UPDATE", statefulSet("2", "nginx:1", ""), statefulSet("2", "postgres:16", ""), false, "postgres_vanished", "orders-0"},
		"a web server with another image": {"statefulsets", "UPDATE", statefulSet("1", "nginx:2", ""), statefulSet("1", "nginx:1", ""), true, "no_postgres", ""},
		"three databases":                 {"statefulsets", "CREATE", statefulSet("3", "postgres:16", ""), "", true, "injected", ""},
		"three pods of one database":      {"statefulsets", "CREATE", statefulSet("3", "postgres:16", "outrider.dev/cluster: orders"), "", false, "shared_identity", "outrider.dev/cluster"},
		"a misspelt annotation":           {"statefulsets", "CREATE", statefulSet("1", "postgres:16", "outrider.dev/retenton: 7d"), "", true, "bad_policy", "outrider.dev/retention"},
		"a pod":                           {"pods", "CREATE", good, "", false, "bad_request", "StatefulSets"},
		"no Deployment":                   {"deployments", "CREATE", "spec: 3", "", false, "bad_request", "Deployment"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHook(t)
			got := h.ask(t, "/review-workload", review(t, c.resource, c.operation, "shop", c.now, c.before))
			if got.Allowed != c.allowed || got.Patch != nil {
				t.Errorf("allowed: %t (%+v), patch: %s", got.Allowed, got.Result, got.Patch)
			}
			if got.AuditAnnotations["reason"] != c.reason {
				t.Errorf("the reason is %s, want %s", got.AuditAnnotations["reason"], c.reason)
			}
			text := strings.Join(got.Warnings, "\n")
			if !c.allowed {
				text = got.Result.Message
			}
			if !strings.Contains(text, c.says) {
				t.Errorf("%q is not in %q", c.says, text)
			}
		})
	}
}

func TestWorkloadsNamespaceCannotBeTold(t *testing.T) {
	got := newHook(t).ask(t, "/review-workload", review(t, "deployments", "CREATE", "far", deployment("1", "Recreate", "postgres:16", ""), ""))
	if got.Allowed || got.Result.Code != 503 {
		t.Errorf("the answer is %+v", got)
	}
}
