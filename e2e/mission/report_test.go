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
)

// figures are what one database went through in one scenario.
type figures struct {
	scenario string
	failed   bool
	rows     int
	lost     int
	oldest   *float64 // age of the oldest loss at the kill, seconds
	requests int64    // to OSS, of all databases of the scenario

	// What of the time without the database was whose. The kubelet tells times in whole seconds.
	outage time.Duration // from what happened to the first write
	away   time.Duration // until Kubernetes had let go of the first pod: its own detection, or the orderly stop
	placed time.Duration // until the new pod's restore ran: Kubernetes again
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
	fmt.Fprintln(table, "scenario\trows\tlost\tRPO s\tRTO s\tstop or detection\tscheduling\trestore\tto first write\tOSS requests\tverdict")
	for _, f := range b.rows {
		verdict := "kept"
		if f.failed {
			verdict = "BROKEN"
		}
		rpo := "0"
		switch {
		case f.oldest != nil:
			rpo = fmt.Sprintf("%.2f", *f.oldest)
		case f.lost > 0:
			rpo = "?"
		}
		times := "-\t-\t-\t-\t-"
		if f.outage > 0 {
			times = fmt.Sprintf("%.1f\t%.1f\t%.1f\t%.1f\t%.1f",
				f.outage.Seconds(), f.away.Seconds(), f.placed.Seconds(), f.rebuilt.Seconds(), f.started.Seconds())
		}
		fmt.Fprintf(table, "%s\t%d\t%d\t%s\t%s\t%d\t%s\n", f.scenario, f.rows, f.lost, rpo, times, f.requests, verdict)
	}
	return table.Flush()
}

// outage splits the time until the first write.
func (f *figures) split(began, gone, written time.Time, second *corev1.Pod) {
	f.outage, f.away = written.Sub(began), gone.Sub(began)
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
	f.rows, f.lost, f.oldest = r.Acknowledged, r.Lost, r.OldestLostAge
}
