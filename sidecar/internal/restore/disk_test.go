package restore

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func verdict(t *testing.T, a *archive.Archive, dir string, want Disk) Verdict {
	t.Helper()
	v, err := CheckDisk(t.Context(), a, dir)
	if err != nil {
		t.Errorf("checking the disk: %v", err)
	} else if v.Disk != want {
		t.Errorf("the disk is %s (%s), want %s", v.Disk, v.Reason, want)
	}
	return v
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "data")
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copying a data directory: %v: %s", err, out)
	}
	return to
}

func openWriter(t *testing.T, dir string, settings map[string]string) *pgtest.Server {
	t.Helper()
	all := serverSettings()
	for k, v := range settings {
		all[k] = v
	}
	return pgtest.Open(t, dir, pgtest.Options{Settings: all})
}

func TestDisks(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.insert(1)
	w.snapshot()
	w.bulk(2)
	w.insert(2)
	w.db.Kill()
	old := copyDir(t, w.db.DataDir) // a disk snapshot of now
	w.db.Start()
	w.insert(3)
	w.bulk(3)
	w.insert(4)
	w.db.Kill()
	dir := w.db.DataDir

	t.Run("ours after a crash", func(t *testing.T) { verdict(t, w.a, dir, DiskOurs) })
	t.Run("nothing archived yet", func(t *testing.T) {
		verdict(t, archive.New(archivetest.Memory()), dir, DiskUnprotected)
		a := archive.New(archivetest.Memory())
		must(t, a.ClaimCluster(t.Context(), archive.Cluster{SystemIdentifier: w.system, SegmentSize: segmentSize}))
		verdict(t, a, dir, DiskUnprotected)
	})
	t.Run("another database", func(t *testing.T) {
		a := archive.New(archivetest.Memory())
		must(t, a.ClaimCluster(t.Context(), archive.Cluster{SystemIdentifier: 7, SegmentSize: segmentSize}))
		verdict(t, a, dir, DiskForeign)
	})
	t.Run("cannot tell", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		away := errors.New("the network is down")
		b.Fault(func(string, string) error { return away })
		if v, err := CheckDisk(t.Context(), archive.New(b), dir); !errors.Is(err, away) {
			t.Errorf("an archive out of reach: %+v, %v", v, err)
		}
		broken := t.TempDir()
		if v, err := CheckDisk(t.Context(), w.a, broken); err == nil {
			t.Errorf("a directory without a control file: %+v", v)
		}
	})
	t.Run("stale", func(t *testing.T) { verdict(t, w.a, old, DiskStale) })
	// Both have left the segment of the fork behind them, one more, one less far than the archive goes.
	t.Run("stale, started elsewhere, and ahead", func(t *testing.T) { testDiverged(t, w, old, 5000, ErrHole) })
	t.Run("stale, started elsewhere, and behind", func(t *testing.T) { testDiverged(t, w, old, 1500, ErrNoSnapshot) })
	t.Run("ahead", func(t *testing.T) {
		a := copyDir(t, dir)
		s := openWriter(t, a, map[string]string{"wal_keep_size": "0", "max_wal_size": "2MB", "min_wal_size": "2MB"})
		s.Exec("INSERT INTO bulk SELECT repeat(md5(g::text), 30) FROM generate_series(1, 5000) g", "CHECKPOINT",
			"SELECT pg_switch_wal()", "CHECKPOINT")
		s.Kill()
		verdict(t, w.a, a, DiskAhead)
		// Somebody begins to restore what the archive holds.
		since := archive.New(cloneBucket(t, w.bucket))
		known, err := since.Epochs(t.Context())
		must(t, err)
		next := uint64(len(known)) + 1
		must(t, since.ClaimEpoch(t.Context(), archive.Epoch{Number: next, Writer: archive.Identity{Instance: "elsewhere"}}))
		v, err := CheckDisk(t.Context(), since, a)
		must(t, err)
		if v.Disk != DiskAhead || len(v.Since) != 1 || v.Since[0].Number != next || len(v.Epochs) != int(next) {
			t.Errorf("after another one has claimed epoch %d: %+v", next, v)
		}
	})
	t.Run("promoted, and nothing shipped", func(t *testing.T) { testPromoted(t, w) })
}

// A copy from the past was started elsewhere and has written other WAL than the archive holds. It is forked,
// keeps what it has, and is archived on a timeline of its own beside what it lacks.
func testDiverged(t *testing.T, w *writer, old string, bulk int, wantPlan error) {
	stale := copyDir(t, old)
	s := openWriter(t, stale, nil)
	s.Exec("INSERT INTO t VALUES (100)", fmt.Sprintf("INSERT INTO bulk SELECT repeat(md5((g + 7)::text), 30) FROM generate_series(1, %d) g", bulk),
		"INSERT INTO t VALUES (101)")
	s.Kill()
	bucket := cloneBucket(t, w.bucket)
	a := archive.New(bucket)
	// Numbers 2 and 3 are taken by others, 2 with a history and 3 by a claim alone.
	must(t, a.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 3, Epoch: 1, Parent: 1, Switch: w.pos}))
	must(t, a.PutHistory(t.Context(), 2, []byte(wal.History{{Parent: 1, LSN: w.pos - 8, Reason: "x"}}.Format())))
	verdict(t, a, stale, DiskDiverged)

	if _, err := Fork(t.Context(), a, Options{Dir: t.TempDir()}); err == nil {
		t.Error("forked an empty directory")
	}
	_, err := Fork(t.Context(), a, Options{Dir: stale})
	must(t, err)
	if state, err := Inspect(stale); state != Recovering || err != nil {
		t.Errorf("the forked directory is %s (%v), want recovering", state, err)
	}
	// The init container runs again before the server starts.
	res, err := Fill(t.Context(), a, FillOptions{Dir: stale})
	if !res.Complete || err != nil {
		t.Errorf("filling the spool of a fork: %+v, %v", res, err)
	}
	r := restored{t: t, a: a, dir: stale}
	s = r.start()
	wantRows(t, s, 1, 2, 100, 101)
	if tli := timelineNow(s); tli != 4 {
		t.Errorf("the fork is on timeline %d, want 4", tli)
	}
	if _, err := Fork(t.Context(), a, Options{Dir: stale}); err == nil || !strings.Contains(err.Error(), "runs") {
		t.Errorf("forked under a running server: %v", err)
	}
	s.Stop(pgtest.Fast)
	verdict(t, a, stale, DiskOurs)
	s.Start()
	f := r.take(s, bucket, 2)
	f.insert(102)

	// Without a snapshot of the fork nothing leads to it: its parent in the archive is another one.
	_, err = NewPlan(t.Context(), a, Request{})
	if !errors.Is(err, wantPlan) {
		t.Errorf("a restore of a fork without a snapshot: %v, want %v", err, wantPlan)
	}
	f.snapshot()
	f.insert(103)
	wantRows(t, restoreTo(t, a, Request{}).start(), 1, 2, 100, 101, 102, 103)
	wantRows(t, restoreTo(t, a, Request{Target: Target{Timeline: 1}}).start(), 1, 2, 3, 4)
	if v, err := CheckDisk(t.Context(), a, w.db.DataDir); err != nil || v.Disk != DiskStale && v.Disk != DiskDiverged {
		t.Errorf("the disk of the timeline that was left is %s, %v", v.Disk, err)
	}
	s.Kill()
	verdict(t, a, stale, DiskOurs)
}

// The server was restored and promoted, and lost its sidecar before that could claim the new timeline.
func testPromoted(t *testing.T, w *writer) {
	t.Run("in the middle of a record", func(t *testing.T) {
		bucket := cloneBucket(t, w.bucket)
		a := archive.New(bucket)
		must(t, a.WAL(segmentSize).RemoveChunks(t.Context(), w.tail[len(w.tail)-1:]))
		last := w.tail[len(w.tail)-1]
		raw, err := w.w.ReadChunk(t.Context(), last)
		must(t, err)
		last.To -= 20
		_, err = a.WAL(segmentSize).PutChunk(t.Context(), last, raw[:last.To-last.From])
		must(t, err)
		r := restoreTo(t, a, Request{})
		if r.plan.ReplayEnd >= last.To {
			t.Fatalf("the plan replays up to %s, past the last whole record before %s", r.plan.ReplayEnd, last.To)
		}
		s := r.start()
		s.Kill()
		must(t, Finish(r.dir))
		verdict(t, a, r.dir, DiskOurs)
	})
	for name, req := range map[string]Request{"latest": {}, "a past point": {Target: Target{LSN: w.pos - 300_000}}} {
		t.Run(name, func(t *testing.T) {
			bucket := cloneBucket(t, w.bucket)
			a := archive.New(bucket)
			r := restoreTo(t, a, req)
			s := r.start()
			s.Exec("INSERT INTO t VALUES (50)")
			s.Kill()
			verdict(t, a, r.dir, DiskOurs)
			if name == "latest" {
				must(t, Finish(r.dir)) // the marker is not needed to know
				verdict(t, a, r.dir, DiskOurs)
			}
			// Somebody else goes on from the archive.
			other := restoreTo(t, a, Request{})
			server := other.start()
			o := other.take(server, bucket, 2)
			o.insert(60)
			if v := verdict(t, a, r.dir, DiskDiverged); v.Archive.Timeline != 2 {
				t.Errorf("the archive ends at %s", v.Archive)
			}
			server.Kill()
			verdict(t, a, other.dir, DiskOurs)
			verdict(t, a, w.db.DataDir, DiskStale)
			must(t, os.RemoveAll(filepath.Join(r.dir, "pg_wal")))
		})
	}
}
