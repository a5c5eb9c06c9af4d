package restore

import (
	"testing"

	"outrider.dev/e2e/pgtest"
)

// Every supported major recovers from what is laid down, up to the last commit in the archive.
func TestRestoreToTheLatestCommit(t *testing.T) {
	for _, major := range pgtest.Majors(t) {
		t.Run(pgName(major), func(t *testing.T) {
			w := startWriter(t, major, nil)
			w.insert(1)
			w.snapshot()
			w.insert(2)
			w.bulk(2)
			last := w.insert(3)
			r := restoreTo(t, w.a, Request{})
			if r.plan.ReplayEnd < last.lsn {
				t.Errorf("the plan replays up to %s, the last commit ended at %s", r.plan.ReplayEnd, last.lsn)
			}
			s := r.start()
			wantRows(t, s, 1, 2, 3)
			if tli := timelineNow(s); tli != 2 {
				t.Errorf("the restored server is on timeline %d, want 2", tli)
			}
			h, _ := readHistory(t, r.dir, 2)
			if h[0].LSN != r.plan.ReplayEnd {
				t.Errorf("recovery ended at %s, the plan said %s", h[0].LSN, r.plan.ReplayEnd)
			}
		})
	}
}
