package manifests_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
)

const readme = "../../README.md"

// The table of rights in README is what is installed.
func TestReadmeTableOfRightsIsCurrent(t *testing.T) {
	const begin, end = "<!-- rbac: generated -->\n", "<!-- /rbac -->"
	text := string(read(t, readme))
	before, rest, ok := strings.Cut(text, begin)
	old, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("README.md has no place for the table of rights")
	}
	want := "\n" + rightsTable(t) + "\n"
	if old == want {
		return
	}
	if !*update {
		t.Fatal("the table of rights in README.md is not current: go test ./e2e/manifests -run Readme -update")
	}
	if err := os.WriteFile(readme, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

func rightsTable(t *testing.T) string {
	t.Helper()
	purposes := map[string]string{
		"outrider-admission":  "admission",
		"outrider-evacuation": "evacuation",
		"outrider-audit":      "audit",
		"outrider-webhook":    "itself",
	}
	var b strings.Builder
	b.WriteString("| for | where | what | verbs |\n|---|---|---|---|\n")
	for _, r := range roles(t, base(t)) {
		purpose, known := purposes[r.name]
		if !known {
			t.Errorf("the role %s is for nothing that README speaks of", r.name)
		}
		where := "everywhere"
		if r.namespace != "" {
			where = "`" + r.namespace + "`"
		}
		for _, rule := range r.rules {
			what := "`" + strings.Join(rule.Resources, "`, `") + "`"
			if len(rule.ResourceNames) > 0 {
				what += " named `" + strings.Join(rule.ResourceNames, "`, `") + "`"
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", purpose, where, what, strings.Join(rule.Verbs, ", "))
		}
	}
	return b.String()
}

type role struct {
	name, namespace string
	rules           []rbacv1.PolicyRule
}

// roles are those that the webhook's service account is bound to.
func roles(t *testing.T, objects []object) []role {
	t.Helper()
	var all []role
	for _, o := range objects {
		switch r := o.Object.(type) {
		case *rbacv1.ClusterRole:
			if b := find[*rbacv1.ClusterRoleBinding](t, objects, r.Name); b.RoleRef.Kind != "ClusterRole" || b.RoleRef.Name != r.Name || !isWebhook(b.Subjects) {
				t.Errorf("ClusterRole %s is bound to %v", r.Name, b.Subjects)
			}
			all = append(all, role{r.Name, "", r.Rules})
		case *rbacv1.Role:
			if b := find[*rbacv1.RoleBinding](t, objects, r.Name); b.Namespace != r.Namespace || b.RoleRef.Kind != "Role" || b.RoleRef.Name != r.Name || !isWebhook(b.Subjects) {
				t.Errorf("Role %s is bound to %v", r.Name, b.Subjects)
			}
			all = append(all, role{r.Name, r.Namespace, r.Rules})
		}
	}
	if len(all) == 0 {
		t.Fatal("there are no roles")
	}
	return all
}

func isWebhook(s []rbacv1.Subject) bool {
	return len(s) == 1 && s[0] == rbacv1.Subject{Kind: "ServiceAccount", Name: "outrider-webhook", Namespace: namespace}
}

// What README and the manifests' own page show as YAML is what Kubernetes would take.
func TestReadmeYAMLIsWhatKubernetesKnows(t *testing.T) {
	fence := regexp.MustCompile("(?s)\n```yaml\n(.*?)\n```\n")
	found := 0
	for _, path := range []string{readme, filepath.Join(top, "README.md")} {
		for _, m := range fence.FindAllSubmatch(read(t, path), -1) {
			found++
			var head struct {
				Kind string `json:"kind"`
			}
			if err := yaml.Unmarshal(m[1], &head); err != nil {
				t.Errorf("%s: %v:\n%s", path, err, m[1])
			}
			if head.Kind == "Kustomization" {
				continue
			}
			decode(t, path, m[1])
		}
	}
	if found == 0 {
		t.Error("there is none")
	}
}

// The two lines that README shows are those of the example.
func TestReadmeShowsTheTwoLines(t *testing.T) {
	want := strings.TrimSpace(string(read(t, top+"/examples/orders-protected/protect.yaml")))
	if !strings.Contains(string(read(t, readme)), "```yaml\n"+want+"\n```") {
		t.Error("README.md does not show manifests/examples/orders-protected/protect.yaml")
	}
}

// The reasons of Events in README's table are those in the code. Where they stand there: in calls with a type of Event, in
// those of the audit, and in the functions that choose one.
func TestReadmeKnowsAllEvents(t *testing.T) {
	const dir = "../../webhook/internal/"
	known := map[string]bool{}
	for _, where := range []struct{ files, from, reason string }{
		{"evacuate/*.go", "", `corev1\.EventType[A-Za-z]+, "([A-Za-z]+)"`},
		{"audit/*.go", "", `\.say\(.*?"([A-Za-z]+)"`},
		{"audit/audit.go", "\nfunc reasonFor(", `return "([A-Za-z]+)"`},
		{"report/kind.go", "\nfunc (k Kind) reason() ", `return "([A-Za-z]+)"`},
	} {
		files, err := filepath.Glob(dir + where.files)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s, %v", where.files, err)
		}
		before := len(known)
		for _, path := range files {
			if strings.HasSuffix(path, "_test.go") {
				continue
			}
			text := string(read(t, path))
			if where.from != "" {
				_, text, _ = strings.Cut(text, where.from)
				text, _, _ = strings.Cut(text, "\n}\n")
			}
			for _, m := range regexp.MustCompile(where.reason).FindAllStringSubmatch(text, -1) {
				known[m[1]] = true
			}
		}
		if len(known) == before {
			t.Errorf("%s: there are no reasons in it, or this test does not see them", where.files)
		}
	}
	_, table, _ := strings.Cut(string(read(t, readme)), "\n### What Events say\n")
	table, _, _ = strings.Cut(table, "\n### ")
	said := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`.*?) \\|").FindAllStringSubmatch(table, -1) {
		for _, m := range regexp.MustCompile("`([A-Za-z]+)`").FindAllStringSubmatch(row[1], -1) {
			said[m[1]] = true
		}
	}
	if diff := cmp.Diff(known, said); diff != "" {
		t.Errorf("the Events in README.md are not those of the code (-code +README):\n%s", diff)
	}
}

// What README tells people to type is there.
func TestReadmeNamesWhatIsThere(t *testing.T) {
	text := string(read(t, readme)) + string(read(t, filepath.Join(top, "README.md")))
	paths := regexp.MustCompile(`[^/a-z0-9](manifests/[a-z0-9./-]*[a-z0-9])`).FindAllStringSubmatch(text, -1)
	if len(paths) == 0 {
		t.Fatal("it names nothing")
	}
	for _, m := range paths {
		if _, err := os.Stat("../../" + m[1]); err != nil {
			t.Errorf("%v", err)
		}
	}
	orders := build(t, top+"/examples/orders-protected")
	if ns := find[*corev1.Namespace](t, orders, "shop"); ns.Annotations["outrider.dev/archive"] == "" {
		t.Error("the example has no archive")
	}
}
