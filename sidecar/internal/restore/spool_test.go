package restore

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

// wantCuts looks into the spool: of each timeline there is nothing past its leg but zeros.
func (r restored) wantCuts() {
	r.t.Helper()
	z := r.plan.SegmentSize
	names, err := filepath.Glob(filepath.Join(r.dir, ownDir, spoolName, "0*"))
	must(r.t, err)
	looked := 0
	for _, path := range names {
		seg, err := wal.ParseSegment(filepath.Base(path), z)
		if err != nil {
			continue
		}
		b, err := os.ReadFile(path)
		must(r.t, err)
		for _, g := range r.plan.Legs {
			to := min(g.To, r.plan.End)
			switch {
			case g.Timeline != seg.Timeline:
			case seg.Start(z) >= to:
				r.t.Errorf("%s lies past the end of timeline %d at %s", filepath.Base(path), g.Timeline, to)
			case seg.End(z) > to:
				looked++
				if rest := b[z.Offset(to):]; len(bytes.Trim(rest, "\x00")) > 0 {
					r.t.Errorf("%s has more than zeros past %s", filepath.Base(path), to)
				}
			}
		}
	}
	if looked != len(r.plan.Legs) {
		r.t.Errorf("looked at the last segments of %d timelines, the plan has %d", looked, len(r.plan.Legs))
	}
}

// Until the server has read the label recovery begins where that says: pg_control is the last file of a snapshot to be
// read, and may know a later checkpoint.
func TestWhereRecoveryBegins(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.snapshot()
	w.bulk(2)
	r := recovering(t, w.a, Request{}, Options{})
	w.db.Exec("CHECKPOINT")
	later, err := os.ReadFile(wal.ControlPath(w.db.DataDir))
	must(t, err)
	must(t, os.WriteFile(wal.ControlPath(r.dir), later, 0o600))
	from, err := restoreFrom(r.dir, r.plan)
	if from != r.plan.Legs[0].From || err != nil {
		t.Errorf("with the label recovery begins at %s, %v; want %s", from, err, r.plan.Legs[0].From)
	}
	must(t, os.Rename(filepath.Join(r.dir, "backup_label"), filepath.Join(r.dir, "backup_label.old")))
	c, err := wal.ReadControl(r.dir)
	must(t, err)
	from, err = restoreFrom(r.dir, r.plan)
	if from != segmentSize.Floor(c.Redo) || from <= r.plan.Legs[0].From || err != nil {
		t.Errorf("without the label recovery begins at %s, %v; want the segment of %s", from, err, c.Redo)
	}
}

func TestSpoolDrops(t *testing.T) {
	s := spool{dir: t.TempDir(), id: "x"}
	must(t, s.prepare(nil, 0))
	for n := range uint64(5) {
		must(t, s.write(wal.Segment{Timeline: 1, Number: n}.Name(segmentSize), nil, 0o644))
	}
	must(t, s.drop(segmentSize, wal.LSN(3*segmentSize)+5))
	if n := segmentsIn(t, s); n != 2 {
		t.Errorf("%d of 5 segments are left, want the one with the position and the next", n)
	}
	// The same restore keeps what is there, another does not.
	must(t, s.prepare(nil, 0))
	if n := segmentsIn(t, s); bootID() != "" && n != 2 {
		t.Errorf("%d segments are left after the restore was taken up, want 2", n)
	}
	must(t, spool{dir: s.dir, id: "y"}.prepare(nil, 0))
	if n := segmentsIn(t, s); n != 0 {
		t.Errorf("%d segments of another restore are left", n)
	}
}
