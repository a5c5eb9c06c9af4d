package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is the last line.
type report struct {
	Machine    string    `json:"machine"`
	Began      time.Time `json:"began"`
	Rounds     int       `json:"rounds"`
	LoadBefore string    `json:"load_average_before"`
	LoadAfter  string    `json:"load_average_after"`
	Rows       []row     `json:"rows"`
}

// row is one measured figure. Less is better in all of them.
type row struct {
	Name   string   `json:"name"`
	Unit   string   `json:"unit"`
	Value  spread   `json:"outrider"`
	Peer   *spread  `json:"pgbackrest,omitempty"`
	Ratio  *float64 `json:"ratio,omitempty"`  // to the peer
	Target float64  `json:"target,omitempty"` // 0 is none; of the ratio if there is a peer, else of the value
	Met    *bool    `json:"met,omitempty"`
	Note   string   `json:"note,omitempty"`
}

// spread is the median of the rounds, and the least and the most.
type spread struct {
	Median float64 `json:"median"`
	Least  float64 `json:"min"`
	Most   float64 `json:"max"`
}

func spreadOf(values []float64) spread {
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	if n == 0 {
		return spread{}
	}
	return spread{Median: round((s[(n-1)/2] + s[n/2]) / 2), Least: round(s[0]), Most: round(s[n-1])}
}

// percentile is the nearest value of which p percent are not larger.
func percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	return s[max(0, int(math.Ceil(p/100*float64(len(s))))-1)]
}

// value adds a figure that stands alone.
func (r *report) value(name, unit string, target float64, values ...float64) {
	w := row{Name: name, Unit: unit, Value: spreadOf(values), Target: target}
	if target > 0 {
		met := w.Value.Median <= target
		w.Met = &met
	}
	r.Rows = append(r.Rows, w)
}

// against adds a figure beside that of the peer, which is absent where the peer is.
func (r *report) against(name, unit string, target float64, ours, peer []float64) {
	w := row{Name: name, Unit: unit, Value: spreadOf(ours), Target: target}
	if len(peer) == 0 {
		w.Note = "pgbackrest is not installed"
	} else {
		p := spreadOf(peer)
		ratio := round(w.Value.Median / p.Median)
		w.Peer, w.Ratio = &p, &ratio
		if target > 0 {
			met := ratio <= target
			w.Met = &met
		}
	}
	r.Rows = append(r.Rows, w)
}

func (r *report) show(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "\nfigure\tunit\tOutrider\tpgBackRest\tratio\ttarget\t\n")
	for _, w := range r.Rows {
		peer, ratio, target, met := w.Note, "", "", ""
		if w.Peer != nil {
			peer, ratio = w.Peer.String(), fmt.Sprintf("%.2f", *w.Ratio)
		}
		if w.Target > 0 {
			target = fmt.Sprintf("≤ %g", w.Target)
		}
		if w.Met != nil {
			met = map[bool]string{true: "met", false: "MISSED"}[*w.Met]
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", w.Name, w.Unit, w.Value, peer, ratio, target, met)
	}
	_ = t.Flush() // there is nobody to tell if standard output is gone
	fmt.Fprintf(out, "\n%s, %s, load average %s before, %s after.\n", r.Began.Format(time.DateOnly), r.Machine, r.LoadBefore, r.LoadAfter)
}

// String implements fmt.Stringer.
func (s spread) String() string {
	if s.Least == s.Most {
		return fmt.Sprintf("%g", s.Median)
	}
	return fmt.Sprintf("%g (%g-%g)", s.Median, s.Least, s.Most)
}

func round(x float64) float64 { return math.Round(x*1000) / 1000 }

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// machine says on what was measured.
func machine() string {
	model := "unknown processor"
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if name, v, _ := strings.Cut(s.Text(), ":"); strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s", model, runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// loadAverage is that of the last minute.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return cmp.Or(first, "unknown")
}
