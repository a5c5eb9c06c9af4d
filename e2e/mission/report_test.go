//go:build e2e

package mission_test

import (
	"fmt"
	"io"
	"sync"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// figures are what one database went through in one scenario.
type figures struct {
	scenario string
	failed   bool
	rows     int
	lost     int
	oldest   *float64 // age of the oldest loss at the kill, seconds
	judgedAt float64  // the RPO that the losses were held against, seconds
	requests int64    // to OSS, of all databases of the scenario
	notes    []string // what else was measured

	// What of the time without the database was whose. The kubelet tells times in whole seconds.
	outage   time.Duration // from what happened to the first write
	detected time.Duration // of away, until the first pod was asked to go, or was gone without having been asked
	away     time.Duration // until Kubernetes had let go of the first pod
	placed   time.Duration // until the new pod's restore ran: Kubernetes again
	rebuilt,
	started time.Duration // the restore, and from then to the first write: recovery and PostgreSQL's start
}

// board collects them for the closing table.
type board struct {
	mu   sync.Mutex
	rows []*figures
}

func (b *board) add(f *figures) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows = append(b.rows, f)
}

// print writes the table.
func (b *board) print(w io.Writer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "scenario\trows\tlost\tRPO s\tRTO s\tdetection\tstop\tscheduling\trestore\tto first write\tOSS requests\tverdict")
	for _, f := range b.rows {
		verdict := "kept"
		switch {
		case f.failed:
			verdict = "BROKEN"
		case f.over():
			verdict = fmt.Sprintf("OVER the promised %s", world.RPO)
		}
		rpo := "0"
		switch {
		case f.oldest != nil:
			rpo = fmt.Sprintf("%.2f", *f.oldest)
		case f.lost > 0:
			rpo = "?"
		}
		times := "-\t-\t-\t-\t-\t-"
		if f.outage > 0 {
			times = fmt.Sprintf("%.1f\t%.1f\t%.1f\t%.1f\t%.1f\t%.1f", f.outage.Seconds(),
				f.detected.Seconds(), (f.away - f.detected).Seconds(), f.placed.Seconds(), f.rebuilt.Seconds(), f.started.Seconds())
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", f.scenario, f.rows, f.lost, rpo, times, f.requests, verdict)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if rpo := world.Judged(); rpo > world.RPO {
		// Half a dozen databases, nine kubelets and their control plane share the machine's few cores here.
		fmt.Fprintf(w, "Here losses break a scenario when they are older than %s. They are held to the promised %s in make soak-e2e.\n", rpo, world.RPO)
	}
	for _, f := range b.rows {
		for _, note := range f.notes {
			fmt.Fprintf(w, "%s: %s\n", f.scenario, note)
		}
	}
	return nil
}

// over tells whether something is lost that is older than the promise, where the promise was to be kept: not where a person has
// accepted to lose more.
func (f *figures) over() bool {
	return f.oldest != nil && *f.oldest > world.RPO.Seconds() && f.judgedAt <= world.Judged().Seconds()
}

// note has the closing report say what was measured, which is in no column.
func (d *database) note(format string, args ...any) {
	d.t.Helper()
	said := fmt.Sprintf(format, args...)
	d.t.Log(said)
	d.figures.notes = append(d.figures.notes, said)
}

// split splits the time until the first write. The first pod was asked to go at asked, if ever.
func (f *figures) split(began, asked, gone, written time.Time, second *corev1.Pod) {
	f.outage, f.away = written.Sub(began), gone.Sub(began)
	f.detected = f.away
	if asked.After(began.Add(-time.Second)) && asked.Before(gone) {
		f.detected = max(0, asked.Sub(began))
	}
	for _, s := range second.Status.InitContainerStatuses {
		if end := s.State.Terminated; s.Name == "outrider-restore" && end != nil {
			f.placed = max(0, end.StartedAt.Sub(gone))
			f.rebuilt = end.FinishedAt.Sub(end.StartedAt.Time)
			f.started = max(0, f.outage-f.away-f.placed-f.rebuilt)
		}
	}
}

// judged notes what the ledger found.
func (f *figures) judged(r ledger.Report) {
	f.rows, f.lost, f.oldest, f.judgedAt = r.Acknowledged, r.Lost, r.OldestLostAge, r.RPO
}
