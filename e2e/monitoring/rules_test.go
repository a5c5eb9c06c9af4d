// Package monitoring_test holds alerts and dashboard against the real Prometheus.
package monitoring_test

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"outrider.dev/e2e/monitoring/watch"
)

var update = flag.Bool("update", false, "write *.prometheusrule.yaml instead of comparing them")

const (
	monitoring = "../../manifests/monitoring/"
	rulesFile  = monitoring + "rules.yaml"
	costsFile  = monitoring + "costs.yaml"
)

// group is one of a rules file.
type group struct {
	Name  string `json:"name"`
	Rules []rule `json:"rules"`
}

type rule struct {
	Alert       string            `json:"alert,omitempty"`
	Record      string            `json:"record,omitempty"`
	Expr        string            `json:"expr"`
	For         string            `json:"for,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

func (r rule) runbook() string { return filepath.Base(r.Annotations["runbook_url"]) }

func readGroups(t *testing.T, files ...string) []group {
	t.Helper()
	var all []group
	for _, path := range files {
		var f struct {
			Groups []group `json:"groups"`
		}
		if err := yaml.UnmarshalStrict(read(t, path), &f); err != nil {
			t.Fatal(err)
		}
		if len(f.Groups) == 0 {
			t.Fatalf("%s has no rules", path)
		}
		all = append(all, f.Groups...)
	}
	return all
}

// readAlerts reads the rules that are alerts.
func readAlerts(t *testing.T) []rule {
	t.Helper()
	var all []rule
	for _, g := range readGroups(t, rulesFile, costsFile) {
		all = append(all, slices.DeleteFunc(g.Rules, func(r rule) bool { return r.Alert == "" })...)
	}
	return all
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), watch.Tool(t, "promtool"), args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestRulesAreValid(t *testing.T) {
	promtool(t, "check", "rules", "--lint-fatal", rulesFile, costsFile)
	// Debian's promtool knows no Kubernetes; everything else of the file is checked.
	config := regexp.MustCompile(`kubernetes_sd_configs: .*`).ReplaceAll(read(t, monitoring+"prometheus.yaml"), []byte("static_configs: []"))
	path := filepath.Join(t.TempDir(), "prometheus.yaml")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", "--syntax-only", path)
}

func TestRulesOfTheOperatorAreTheSame(t *testing.T) {
	for from, name := range map[string]string{rulesFile: "outrider", costsFile: "outrider-costs"} {
		sameRules(t, from, name)
	}
}

// sameRules holds a PrometheusRule against the file that it is made of.
func sameRules(t *testing.T, from, name string) {
	t.Helper()
	path := strings.Replace(from, ".yaml", ".prometheusrule.yaml", 1)
	var want bytes.Buffer
	want.WriteString("# Made of " + filepath.Base(from) + " by `go test ./e2e/monitoring -run Rules -update`: edit that.\n" +
		"apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: " + name + "\n  namespace: outrider-system\n" +
		"  labels: {app.kubernetes.io/name: outrider}\nspec:\n")
	for line := range strings.Lines(string(read(t, from))) {
		if !strings.HasPrefix(line, "#") && line != "\n" {
			want.WriteString("  " + line)
		}
	}
	if *update {
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(read(t, path), want.Bytes()) {
		t.Errorf("%s is not made of %s: go test ./e2e/monitoring -run Rules -update", path, from)
	}
	var o struct {
		Spec struct{ Groups []group } `json:"spec"`
	}
	if err := yaml.Unmarshal(read(t, path), &o); err != nil || len(o.Spec.Groups) != len(readGroups(t, from)) {
		t.Errorf("%s has %d groups: %v", path, len(o.Spec.Groups), err)
	}
}

// Whoever is called at night needs to know how bad it is, what it is, and what to do.
func TestEveryAlertHasARunbook(t *testing.T) {
	verbs := readmeVerbs(t)
	index := string(read(t, monitoring+"README.md"))
	var known []string
	for _, r := range readAlerts(t) {
		if !strings.Contains(index, "| ["+r.Alert+"](runbooks/"+r.Alert+".md) |") {
			t.Errorf("%s is not in the table of manifests/monitoring/README.md", r.Alert)
		}
		if s := r.Labels["severity"]; s != "critical" && s != "warning" {
			t.Errorf("%s has the severity %q", r.Alert, s)
		}
		for _, a := range []string{"summary", "description"} {
			if r.Annotations[a] == "" {
				t.Errorf("%s has no %s", r.Alert, a)
			}
		}
		if r.runbook() != r.Alert+".md" || !strings.HasSuffix(r.Annotations["runbook_url"], "/manifests/monitoring/runbooks/"+r.Alert+".md") {
			t.Errorf("%s has the runbook %s", r.Alert, r.Annotations["runbook_url"])
		}
		known = append(known, r.runbook())
		text := string(read(t, monitoring+"runbooks/"+r.Alert+".md"))
		at := 0
		for _, part := range []string{"# " + r.Alert + "\n", "\nSeverity: ", r.Labels["severity"], "\n## What it means\n", "\n## Look\n", "\n## Do\n"} {
			i := strings.Index(text[at:], part)
			if i < 0 {
				t.Errorf("the runbook of %s has no %q where it should be", r.Alert, part)
				break
			}
			if part != r.Labels["severity"] {
				at += i
			}
		}
		for _, m := range regexp.MustCompile("(?:`|-- )outrider ([a-z]+)").FindAllStringSubmatch(text, -1) {
			if !slices.Contains(verbs, m[1]) {
				t.Errorf("the runbook of %s speaks of outrider %s, which there is not", r.Alert, m[1])
			}
		}
	}
	files, err := filepath.Glob(monitoring + "runbooks/*.md")
	if err != nil || len(files) == 0 {
		t.Fatal("there are no runbooks", err)
	}
	for _, f := range files {
		if !slices.Contains(known, filepath.Base(f)) {
			t.Errorf("%s is of no alert", f)
		}
	}
}

// readmeVerbs are the verbs of outrider in the table of README.md.
func readmeVerbs(t *testing.T) []string {
	t.Helper()
	var verbs []string
	for _, m := range regexp.MustCompile("(?m)^\\| `outrider ([a-z]+)` \\|").FindAllStringSubmatch(string(read(t, "../../README.md")), -1) {
		verbs = append(verbs, m[1])
	}
	if len(verbs) == 0 {
		t.Fatal("README.md has no table of verbs")
	}
	return verbs
}

// Each alert fires and resolves as testdata/alerts.yaml says; none is left out there.
func TestAlertsFire(t *testing.T) {
	const path = "testdata/alerts.yaml"
	promtool(t, "test", "rules", path)
	var f struct {
		Tests []struct {
			Rules []struct {
				Alert  string `json:"alertname"`
				Alerts []struct {
					Labels map[string]string `json:"exp_labels"`
				} `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	if err := yaml.Unmarshal(read(t, path), &f); err != nil {
		t.Fatal(err)
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, c := range f.Tests {
		for _, r := range c.Rules {
			for _, a := range r.Alerts {
				fires[r.Alert+" "+a.Labels["severity"]] = true
			}
			if len(r.Alerts) == 0 {
				silent[r.Alert] = true
			}
		}
	}
	for _, r := range readAlerts(t) {
		if !fires[r.Alert+" "+r.Labels["severity"]] || !silent[r.Alert] {
			t.Errorf("%s does not show when %s (%s) fires, and when not", path, r.Alert, r.Labels["severity"])
		}
	}
}
