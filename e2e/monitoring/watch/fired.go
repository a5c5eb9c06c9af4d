package watch

import (
	"os"
	"path/filepath"
	"slices"

	"sigs.k8s.io/yaml"
)

// AllHaveFired fails the test unless each alert of these groups of rules has fired, with each of its severities, since
// Prometheus was started: one that was never provoked may be one that never fires.
func (p *Prometheus) AllHaveFired(groups ...string) {
	p.t.Helper()
	seen := 0
	for _, name := range []string{"rules.yaml", "costs.yaml"} {
		raw, err := os.ReadFile(filepath.Join(Repository(p.t), "manifests", "monitoring", name))
		must(p.t, err)
		var f struct {
			Groups []struct {
				Name  string `json:"name"`
				Rules []struct {
					Alert  string            `json:"alert"`
					Labels map[string]string `json:"labels"`
				} `json:"rules"`
			} `json:"groups"`
		}
		must(p.t, yaml.Unmarshal(raw, &f))
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				if r.Alert == "" || !slices.Contains(groups, g.Name) {
					continue
				}
				seen++
				if len(p.Ever(`ALERTS{alertstate="firing",alertname="`+r.Alert+`",severity="`+r.Labels["severity"]+`"}`)) == 0 {
					p.t.Errorf("%s (%s) has never fired", r.Alert, r.Labels["severity"])
				}
			}
		}
	}
	if seen == 0 {
		p.t.Errorf("there are no alerts in the groups %v", groups)
	}
}
