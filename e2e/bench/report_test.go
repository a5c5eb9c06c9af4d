package main

import (
	"strings"
	"testing"
)

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   spread
	}{
		{nil, spread{}},
		{[]float64{3}, spread{3, 3, 3}},
		{[]float64{5, 1, 3}, spread{3, 1, 5}},
		{[]float64{4, 1, 2, 9}, spread{3, 1, 9}},
	} {
		if got := spreadOf(c.values); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var values []float64
	for i := 200; i > 0; i-- {
		values = append(values, float64(i))
	}
	for p, want := range map[float64]float64{50: 100, 99: 198, 100: 200, 0: 1} {
		if got := percentile(values, p); got != want {
			t.Errorf("%g %%: %g, want %g", p, got, want)
		}
	}
}

func TestTargetsAreHeldAgainstTheRatioOrTheValue(t *testing.T) {
	r := &report{}
	r.value("memory", "MiB", 64, 60, 70, 63)
	r.value("memory", "MiB", 64, 65)
	r.against("CPU", "s", 0.7, []float64{2}, []float64{4})
	r.against("CPU", "s", 0.7, []float64{3}, []float64{4})
	r.against("CPU", "s", 0.7, []float64{3}, nil)
	want := []string{"met", "MISSED", "met", "MISSED", ""}
	for i, w := range r.Rows {
		switch {
		case want[i] == "" && w.Met != nil:
			t.Errorf("row %d was compared with nothing", i)
		case want[i] != "" && (w.Met == nil || *w.Met != (want[i] == "met")):
			t.Errorf("row %d: %+v, want %s", i, w, want[i])
		}
	}
	var out strings.Builder
	r.show(&out)
	for _, text := range []string{"63 (60-70)", "0.5", "not installed", "MISSED"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("the table lacks %q:\n%s", text, out.String())
		}
	}
}
