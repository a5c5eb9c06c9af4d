package kubectl

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"outrider.dev/sidecar/policy"
)

// nothing stands in a table for what is unknown.
const nothing = "-"

// Table writes databases for people, as of now: one line each, then the reasons, one line each. wide adds columns,
// namespaces the first one.
func Table(w io.Writer, all []Database, now time.Time, wide, namespaces bool) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	head := []string{"POD", "WORKLOAD", "STATE", "SINCE", "WAL-AGE", "SNAPSHOT", "WINDOW", "EPOCH"}
	if wide {
		head = append(head, "TIMELINE", "RESTORE", "DRILL", "NODE", "VERSION", "ARCHIVE")
	}
	if namespaces {
		head = append([]string{"NAMESPACE"}, head...)
	}
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, d := range all {
		cells := append([]string{d.Pod, or(d.Workload), d.stateText(now)}, d.Sidecar.cells(now)...)
		if wide {
			cells = append(cells, d.Sidecar.wide(d.Node, now)...)
		}
		if namespaces {
			cells = append([]string{d.Namespace}, cells...)
		}
		fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	reasons(&b, all, now)
	// The writer pads the last column as well.
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

func reasons(b *strings.Builder, all []Database, now time.Time) {
	first := true
	line := func(d Database, what, text string) {
		if text == "" {
			return
		}
		if first {
			b.WriteByte('\n')
			first = false
		}
		fmt.Fprintf(b, "%s/%s: %s: %s\n", d.Namespace, d.Pod, what, strings.ReplaceAll(text, "\n", "; "))
	}
	for _, d := range all {
		line(d, d.State, d.Reason)
		if d.Sidecar != nil {
			line(d, "drill", d.Sidecar.Drills.trouble(now))
		}
	}
}

// stateText is the state with what stands above it.
func (d Database) stateText(now time.Time) string {
	s := d.State
	if r := d.Sidecar; r != nil {
		if r.Notice != nil {
			s += ",notice"
		}
		s += r.Drills.mark(now)
	}
	if d.Ending {
		s += ",ending"
	}
	return s
}

// cells are since, age of WAL, snapshot, window, epoch.
func (r *Report) cells(now time.Time) []string {
	if r == nil {
		return []string{nothing, nothing, nothing, nothing, nothing}
	}
	since := r.Since
	if r.NotProtectedSince != nil {
		since = r.NotProtectedSince
	}
	age, snapshot, epoch := nothing, nothing, nothing
	if r.AgeSeconds != nil {
		age = seconds(*r.AgeSeconds)
	}
	if r.LastSnapshot != nil {
		snapshot = ago(&r.LastSnapshot.Taken, now)
	}
	if r.Epoch > 0 {
		epoch = fmt.Sprint(r.Epoch)
	}
	return []string{ago(since, now), age, snapshot, ago(r.RecoverableFrom, now), epoch}
}

// wide are timeline, restore, drill, node, version, archive.
func (r *Report) wide(node string, now time.Time) []string {
	if r == nil {
		return []string{nothing, nothing, nothing, or(node), nothing, nothing}
	}
	timeline, restore := nothing, nothing
	if r.Timeline > 0 {
		timeline = fmt.Sprint(r.Timeline)
	}
	if r.PredictedRestore != nil {
		restore = "~" + seconds(*r.PredictedRestore)
	}
	return []string{timeline, restore, r.Drills.cell(now), or(node), or(r.Version), or(r.Archive)}
}

func or(s string) string {
	if s == "" {
		return nothing
	}
	return s
}

// ago is a time as the span since then, with its largest two units at most.
func ago(at *time.Time, now time.Time) string {
	if at == nil || at.IsZero() {
		return nothing
	}
	d := max(now.Sub(*at), 0)
	switch {
	case d >= 2*policy.Day:
		d = d.Truncate(time.Hour)
	case d >= 2*time.Hour:
		d = d.Truncate(time.Minute)
	default:
		d = d.Truncate(time.Second)
	}
	return span(d)
}

// span writes 2d4h, 3h5m, 12s.
func span(d time.Duration) string {
	if d < time.Second {
		return "0s"
	}
	return policy.FormatDuration(d)
}

func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return span(d.Truncate(time.Second))
}
