package page

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// plot is the age of unshipped WAL of late. Its paths are in a square of 1000 that is stretched to the room there is;
// everything else is in per cent, so that neither letters nor dots are.
type plot struct {
	Line, Area string // of paths; "" without samples
	Points     int
	Gaps       []band
	Target     string // height of the target's line, in per cent
	TargetText string
	Last       *dot // the newest sample, unless it is not known
	Y          []tick
	X          []tick
	Summary    string // the same for those who do not see it
}

type band struct{ X, Width string }

type dot struct{ X, Y string }

type tick struct{ At, Text, Anchor string }

const scale = 1000

func draw(s Status) plot {
	s.Span = covered(s)
	begin := s.Now.Add(-s.Span)
	var top, highest time.Duration
	for _, a := range s.Ages {
		if a.Age != nil {
			highest = max(highest, *a.Age)
		}
	}
	top = ceiling(max(highest, s.Target*3/2))
	p := plot{TargetText: "target " + duration(s.Target), Target: percent(1 - s.Target.Seconds()/top.Seconds())}
	x := func(t time.Time) float64 { return t.Sub(begin).Seconds() / s.Span.Seconds() }
	y := func(d time.Duration) float64 { return 1 - d.Seconds()/top.Seconds() }
	var path, area strings.Builder
	var run []Sample
	flush := func() {
		stroke(&path, &area, run, x, y)
		run = nil
	}
	known := begin // up to which nothing is left to say
	for _, a := range s.Ages {
		if a.At.Before(begin) || a.Age == nil {
			flush()
			continue
		}
		if len(run) > 0 && a.At.Sub(run[len(run)-1].At) > 3*s.Step {
			flush() // nobody looked
		}
		if from := known; a.At.Sub(from) > 3*s.Step {
			p.Gaps = append(p.Gaps, band{percent(x(from)), percent(x(a.At) - x(from))})
		}
		run, known = append(run, a), a.At
		p.Points++
	}
	if s.Now.Sub(known) > 3*s.Step {
		p.Gaps = append(p.Gaps, band{percent(x(known)), percent(1 - x(known))})
	}
	if n := len(run); n > 0 {
		p.Last = &dot{percent(x(run[n-1].At)), percent(y(*run[n-1].Age))}
	}
	flush()
	p.Line, p.Area = path.String(), area.String()
	p.Y = []tick{{At: percent(0), Text: duration(top)}, {At: percent(1)}}
	p.X = []tick{
		{percent(0), duration(s.Span) + " ago", "start"}, {percent(0.5), duration(s.Span/2) + " ago", "middle"}, {percent(1), "now", "end"},
	}
	p.Summary = summary(s, p, highest)
	return p
}

// covered is the span of the plot: whole minutes, and no more of them than there are samples for.
func covered(s Status) time.Duration {
	if len(s.Ages) == 0 {
		return s.Span
	}
	seen := s.Now.Sub(s.Ages[0].At) - s.Step // the first of a full span is not yet out of it
	return min(s.Span, max(1, (seen+time.Minute-1)/time.Minute)*time.Minute)
}

// stroke adds what is known without a break to the paths. A sample alone is a stroke of the length of a step.
func stroke(path, area *strings.Builder, run []Sample, x func(time.Time) float64, y func(time.Duration) float64) {
	if len(run) == 0 {
		return
	}
	point := func(a Sample) string {
		return fmt.Sprintf("%.1f %.1f", scale*x(a.At), scale*y(*a.Age))
	}
	fmt.Fprintf(path, "M%s", point(run[0]))
	fmt.Fprintf(area, "M%.1f %d", scale*x(run[0].At), scale)
	for _, a := range run {
		fmt.Fprintf(path, "L%s", point(a))
		fmt.Fprintf(area, "L%s", point(a))
	}
	fmt.Fprintf(area, "L%.1f %dZ", scale*x(run[len(run)-1].At), scale)
}

func summary(s Status, p plot, highest time.Duration) string {
	if p.Points == 0 {
		return "Age of unshipped WAL over the last " + duration(s.Span) + ": nothing is known."
	}
	now := unknown
	if s.Age != nil {
		now = duration(*s.Age)
	}
	text := fmt.Sprintf("Age of unshipped WAL over the last %s: now %s, at most %s, target %s.", duration(s.Span), now, duration(highest), duration(s.Target))
	if len(p.Gaps) > 0 {
		text += " Where nothing is drawn it is not known."
	}
	return text
}

// ceiling is the next round number of seconds or minutes.
func ceiling(d time.Duration) time.Duration {
	for _, unit := range []time.Duration{time.Second, time.Minute, time.Hour} {
		for _, n := range []time.Duration{1, 2, 3, 5, 10, 15, 30} {
			if d <= n*unit {
				return n * unit
			}
		}
	}
	day := 24 * time.Hour
	return day * time.Duration(math.Ceil(d.Hours()/24))
}

func percent(f float64) string { return fmt.Sprintf("%.2f%%", 100*min(max(f, 0), 1)) }
