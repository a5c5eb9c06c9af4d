package watch

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// Alert is one of manifests/monitoring.
type Alert struct{ Group, Name, Severity, Expr string }

// Alerts are all of them, as the files have them.
func Alerts(t testing.TB) (all []Alert) {
	t.Helper()
	for _, name := range []string{"rules.yaml", "costs.yaml"} {
		raw, err := os.ReadFile(filepath.Join(Repository(t), "manifests", "monitoring", name))
		must(t, err)
		var f struct {
			Groups []struct {
				Name  string `json:"name"`
				Rules []struct {
					Alert  string            `json:"alert"`
					Expr   string            `json:"expr"`
					Labels map[string]string `json:"labels"`
				} `json:"rules"`
			} `json:"groups"`
		}
		must(t, yaml.Unmarshal(raw, &f))
		for _, g := range f.Groups {
			for _, r := range g.Rules {
				if r.Alert != "" {
					all = append(all, Alert{g.Name, r.Alert, r.Labels["severity"], r.Expr})
				}
			}
		}
	}
	return all
}

// firing are the times at which an alert has fired, with each set of labels that it did so with.
func (p *Prometheus) firing(a Alert, labels ...string) []Series {
	p.t.Helper()
	labels = append([]string{`alertstate="firing"`, `alertname="` + a.Name + `"`, `severity="` + a.Severity + `"`}, labels...)
	return p.Ever("ALERTS{" + strings.Join(labels, ",") + "}")
}

// AllHaveFired fails the test unless each alert of these groups of rules has fired, with each of its severities, since
// Prometheus was started: one that was never provoked may be one that never fires.
func (p *Prometheus) AllHaveFired(groups ...string) {
	p.t.Helper()
	seen := 0
	for _, a := range Alerts(p.t) {
		if !slices.Contains(groups, a.Group) {
			continue
		}
		seen++
		if len(p.firing(a)) == 0 {
			p.t.Errorf("%s (%s) has never fired", a.Name, a.Severity)
		}
	}
	if seen == 0 {
		p.t.Errorf("there are no alerts in the groups %v", groups)
	}
}

// AllHaveResolved fails the test unless each of these alerts has fired, with each of its severities and where labels are
// given with those, and has ceased to.
func (p *Prometheus) AllHaveResolved(which func(Alert) bool, labels ...string) {
	p.t.Helper()
	seen := 0
	for _, a := range Alerts(p.t) {
		if !which(a) {
			continue
		}
		seen++
		fired := p.firing(a, labels...)
		switch {
		case len(fired) == 0:
			p.t.Errorf("%s (%s) has never fired: nothing here provokes it", a.Name, a.Severity)
		case !slices.ContainsFunc(fired, p.ended):
			p.t.Errorf("%s (%s) has fired and never resolved: %v", a.Name, a.Severity, fired[0].Labels)
		default:
			p.t.Logf("%s (%s) has fired and resolved", a.Name, a.Severity)
		}
	}
	if seen == 0 {
		p.t.Error("there are no such alerts")
	}
}

// ended tells whether a series that was asked for second by second has a gap, or was over before now.
func (p *Prometheus) ended(s Series) bool {
	p.t.Helper()
	at := func(i int) (second float64) {
		must(p.t, json.Unmarshal(s.Values[i][0], &second))
		return second
	}
	last := len(s.Values) - 1
	return at(last)-at(0) > float64(last) || len(p.Now("ALERTS{"+selector(s.Labels)+"}")) == 0
}

// selector chooses the series that has these labels.
func selector(labels map[string]string) string {
	var all []string
	for name, value := range labels {
		if name != "__name__" {
			all = append(all, fmt.Sprintf("%s=%q", name, value))
		}
	}
	return strings.Join(all, ",")
}
