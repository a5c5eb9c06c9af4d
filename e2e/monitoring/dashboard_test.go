package monitoring_test

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"outrider.dev/e2e/monitoring/watch"
)

// query is one of the dashboard's.
type query struct{ panel, expr string }

type dashboardPanel struct {
	ID          int `json:"id"`
	Type, Title string
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr  string
		RefID string
	}
}

type dashboard struct {
	UID        string
	Panels     []dashboardPanel
	Templating struct {
		List []struct{ Name, Definition, Type string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	if err := json.Unmarshal(read(t, monitoring+"dashboard.json"), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// queries are all of the dashboard's, as Grafana sends them when everything is selected.
func (d dashboard) queries(t *testing.T) []query {
	t.Helper()
	var all []query
	for _, p := range d.Panels {
		for _, x := range p.Targets {
			all = append(all, query{p.Title, strings.NewReplacer("$namespace", ".*", "$pod", ".*", "$__rate_interval", "10s").Replace(x.Expr)})
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			m := regexp.MustCompile(`^label_values\((.*), \w+\)$`).FindStringSubmatch(v.Definition)
			if m == nil {
				t.Fatalf("the variable %s is %s", v.Name, v.Definition)
			}
			all = append(all, query{"variable " + v.Name, strings.ReplaceAll(m[1], "$namespace", ".*")})
		}
	}
	if len(all) == 0 {
		t.Fatal("the dashboard asks nothing")
	}
	return all
}

// The dashboard answers five questions, from top to bottom, and nothing on it covers anything else.
func TestDashboardAnswersInOrder(t *testing.T) {
	d := readDashboard(t)
	var rows []string
	ids := map[int]bool{}
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			rows = append(rows, p.Title)
		} else if len(p.Targets) == 0 {
			t.Errorf("%s asks nothing", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s covers %s, or is outside", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
	want := []string{"Protected?", "How fresh?", "Can I restore, and how fast?", "What happened?", "What does it cost?"}
	if !slices.Equal(rows, want) {
		t.Errorf("the rows are %q", rows)
	}
}

// A renamed metric must not leave an alert that never fires, or a panel without a line.
func TestAllMetricsThatAreAskedForExist(t *testing.T) {
	for _, q := range readDashboard(t).queries(t) {
		for _, name := range watch.Undocumented(t, q.expr) {
			t.Errorf("the panel %q asks for %s, which README.md does not have", q.panel, name)
		}
	}
	for _, g := range readGroups(t, rulesFile, costsFile) {
		for _, r := range g.Rules {
			for _, name := range watch.Undocumented(t, r.Expr) {
				t.Errorf("%s%s asks for %s, which README.md does not have", r.Alert, r.Record, name)
			}
		}
	}
}
