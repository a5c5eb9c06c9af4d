package manifests_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
)

// right is one verb on one resource, by name where it is bound to one.
type right struct{ group, resource, name, verb string }

// needed is what a package says of the rights that it needs: lines of a group, resources and verbs below the heading
// "# Rights" of its documentation. "only with" behind them marks an opt-in.
func needed(t *testing.T, pkg string) (always, optIn map[right]bool) {
	t.Helper()
	raw, err := os.ReadFile("../../webhook/internal/" + pkg + "/doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(raw), "// # Rights\n")
	if !ok {
		t.Fatalf("the documentation of %s has no heading Rights", pkg)
	}
	always, optIn = map[right]bool{}, map[right]bool{}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "// # ") {
			break
		}
		line, indented := strings.CutPrefix(strings.TrimSpace(line), "//\t")
		columns := regexp.MustCompile(`\s{2,}`).Split(line, -1)
		if !indented || len(columns) < 3 {
			continue
		}
		into := always
		if len(columns) > 3 && strings.HasPrefix(columns[3], "only with ") {
			into = optIn
		}
		for resource := range strings.SplitSeq(columns[1], ", ") {
			maps.Copy(into, rights(strings.Trim(columns[0], `"`), resource, "", strings.Split(columns[2], ", ")...))
		}
	}
	if len(always) == 0 {
		t.Fatalf("the documentation of %s names no right", pkg)
	}
	return always, optIn
}

func granted(rules []rbacv1.PolicyRule) map[right]bool {
	all := map[right]bool{}
	for _, r := range rules {
		names := r.ResourceNames
		if len(names) == 0 {
			names = []string{""}
		}
		for _, group := range r.APIGroups {
			for _, resource := range r.Resources {
				for _, name := range names {
					for _, verb := range r.Verbs {
						all[right{group, resource, name, verb}] = true
					}
				}
			}
		}
	}
	return all
}

func rights(group, resource, name string, verbs ...string) map[right]bool {
	all := map[right]bool{}
	for _, v := range verbs {
		all[right{group, resource, name, v}] = true
	}
	return all
}

func union(sets ...map[right]bool) map[right]bool {
	all := map[right]bool{}
	for _, s := range sets {
		maps.Copy(all, s)
	}
	return all
}

// Each role has what its part needs, and nothing else. A right that nobody uses is one that somebody else will.
func TestRolesGrantWhatIsNeeded(t *testing.T) {
	evacuation, _ := needed(t, "evacuate")
	audit, _ := needed(t, "audit")
	const registrations = "admissionregistration.k8s.io"
	want := map[string]map[right]bool{
		"outrider-evacuation": evacuation,
		"outrider-audit":      audit,
		// webhook/kubernetes.go, webhook/run.go, webhook/internal/admit, webhook/internal/namespaces, webhook/internal/certs.
		"outrider-admission": union(
			rights("", "namespaces", "", "get", "list", "watch"),
			rights("apps", "deployments", "", "get"),
			rights("apps", "statefulsets", "", "get"),
			rights(registrations, "mutatingwebhookconfigurations", "outrider", "get", "patch"),
			rights(registrations, "validatingwebhookconfigurations", "outrider", "get", "patch"),
		),
		// webhook/internal/certs, webhook/leader.go.
		"outrider-webhook": union(
			rights("", "secrets", "outrider-webhook-tls", "get", "update"),
			rights("coordination.k8s.io", "leases", "", "create"),
			rights("coordination.k8s.io", "leases", "outrider-webhook", "get", "update"),
		),
	}
	seen := map[string]bool{}
	for _, r := range roles(t, base(t)) {
		seen[r.name] = true
		if diff := cmp.Diff(want[r.name], granted(r.rules), cmp.AllowUnexported(right{})); diff != "" {
			t.Errorf("%s: -needed +granted\n%s", r.name, diff)
		}
		if r.namespace == "" != (r.name != "outrider-webhook") {
			t.Errorf("%s is in the namespace %q", r.name, r.namespace)
		}
	}
	if len(seen) != len(want) {
		t.Errorf("the roles are %v", slices.Sorted(maps.Keys(seen)))
	}
}

// What only an opt-in needs is in its component, and not in the base.
func TestOptInsHaveComponentsOfTheirOwn(t *testing.T) {
	_, optIn := needed(t, "evacuate")
	var drain []rbacv1.PolicyRule
	for _, o := range decode(t, "drain-node", read(t, top+"/components/drain-node/rbac.yaml")) {
		if r, ok := o.Object.(*rbacv1.ClusterRole); ok {
			drain = append(drain, r.Rules...)
		}
	}
	if diff := cmp.Diff(optIn, granted(drain), cmp.AllowUnexported(right{})); diff != "" {
		t.Errorf("-needed +granted\n%s", diff)
	}
}

// Nothing in the namespace of the webhook, and nothing everywhere, is for anybody else, or for all.
func TestNoRightIsForAll(t *testing.T) {
	for _, r := range roles(t, base(t)) {
		for right := range granted(r.rules) {
			if right.group == "*" || right.resource == "*" || right.verb == "*" {
				t.Errorf("%s grants %+v", r.name, right)
			}
			secret := right.resource == "secrets" || right.resource == "configmaps"
			if secret && (r.namespace != namespace || right.name == "") {
				t.Errorf("%s grants %s of %s %q", r.name, right.verb, right.resource, right.name)
			}
		}
	}
}
