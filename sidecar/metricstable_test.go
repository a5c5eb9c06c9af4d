package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metric is one that the code declares.
type metric struct {
	name, help string
	labels     []string
	kind       string // as in the text format
}

// Names of metrics are a contract: dashboards and alerts of others are built on them.
func TestMetricsAreNamedByTheRules(t *testing.T) {
	for _, dir := range []string{".", "../webhook"} {
		for _, m := range declaredMetrics(t, dir) {
			text := fmt.Sprintf("# HELP %s %s\n# TYPE %[1]s %[3]s\n", m.name, m.help, m.kind)
			if m.kind == "histogram" {
				text += fmt.Sprintf("%s_bucket{le=\"+Inf\"} 1\n%[1]s_sum 1\n%[1]s_count 1\n", m.name)
			} else {
				text += m.name + " 1\n"
			}
			problems, err := promlint.New(strings.NewReader(text)).Lint()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range problems {
				t.Errorf("%s: %s", p.Metric, p.Text)
			}
			if !strings.HasPrefix(m.name, "outrider_") || strings.ContainsRune(m.help, '|') || !strings.HasSuffix(m.help, ".") {
				t.Errorf("%s: the name must begin with outrider_, and the help end with a full stop: %q", m.name, m.help)
			}
			if (m.kind == "counter") != strings.HasSuffix(m.name, "_total") {
				t.Errorf("%s is a %s", m.name, m.kind)
			}
		}
	}
}

// metricsTable is what README says of the metrics that are declared below a directory.
func metricsTable(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| metric | labels | meaning |\n|---|---|---|\n")
	for _, m := range declaredMetrics(t, dir) {
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		name := m.name
		if m.kind == "histogram" {
			name += "_{bucket,sum,count}"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, labels, m.help)
	}
	return b.String()
}

// declaredMetrics reads the declarations from the sources: what a registry knows depends on what has happened.
func declaredMetrics(t *testing.T, dir string) []metric {
	t.Helper()
	var all []metric
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		found, err := metricsOf(f)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, found...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("no metric is declared below %s", dir)
	}
	slices.SortFunc(all, func(x, y metric) int { return cmp.Compare(x.name, y.name) })
	for i := range len(all) - 1 {
		if all[i].name == all[i+1].name {
			t.Errorf("%s is declared twice", all[i].name)
		}
	}
	return all
}

// metricsOf finds calls such as NewGaugeVec(prometheus.GaugeOpts{Name: …, Help: …}, []string{…}), and those of the
// collector: add(name, help, labels…).
func metricsOf(f *ast.File) (found []metric, err error) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || err != nil {
			return err == nil
		}
		var m *metric
		if m, err = metricOf(call); m != nil {
			found = append(found, *m)
		}
		return err == nil
	})
	return found, err
}

var errLiteral = errors.New("names, helps and labels of metrics have to be literals: that is what the table in README is made of")

func metricOf(call *ast.CallExpr) (*metric, error) {
	if len(call.Args) == 0 {
		return nil, nil
	}
	if f, ok := call.Fun.(*ast.Ident); ok && f.Name == "add" {
		texts := literals(call.Args)
		if len(texts) < 2 || !strings.HasPrefix(texts[0], "outrider_") {
			return nil, nil
		}
		return &metric{name: texts[0], help: texts[1], labels: texts[2:], kind: "gauge"}, nil
	}
	if f, ok := call.Fun.(*ast.SelectorExpr); ok && f.Sel.Name == "NewDesc" {
		texts := literals(call.Args[:2])
		if len(texts) < 2 {
			return nil, nil // the collector's, see above
		}
		return &metric{name: texts[0], help: texts[1], labels: labelsOf(call.Args[2]), kind: "gauge"}, nil
	}
	opts, ok := call.Args[0].(*ast.CompositeLit)
	if !ok {
		return nil, nil
	}
	kinds := map[string]string{"CounterOpts": "counter", "GaugeOpts": "gauge", "HistogramOpts": "histogram"}
	sel, ok := opts.Type.(*ast.SelectorExpr)
	if !ok {
		return nil, nil
	}
	kind, ok := kinds[sel.Sel.Name]
	if !ok {
		return nil, nil
	}
	m := &metric{kind: kind}
	for _, e := range opts.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			return nil, errLiteral
		}
		text := literals([]ast.Expr{kv.Value})
		switch key := kv.Key.(*ast.Ident).Name; {
		case key == "Name" && len(text) == 1:
			m.name = text[0]
		case key == "Help" && len(text) == 1:
			m.help = text[0]
		case key != "Buckets":
			return nil, errLiteral
		}
	}
	if len(call.Args) > 1 {
		m.labels = labelsOf(call.Args[1])
	}
	return m, nil
}

func labelsOf(e ast.Expr) []string {
	if l, ok := e.(*ast.CompositeLit); ok {
		return literals(l.Elts)
	}
	return nil
}

// literals are the strings among the expressions.
func literals(list []ast.Expr) []string {
	var texts []string
	for _, e := range list {
		if l, ok := e.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if s, err := strconv.Unquote(l.Value); err == nil {
				texts = append(texts, s)
			}
		}
	}
	return texts
}
