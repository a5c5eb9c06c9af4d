package retention_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/retention"
	"outrider.dev/sidecar/internal/wal"
)

func silent() *slog.Logger { return slog.New(slog.DiscardHandler) }

// stored is a real archive in a bucket in memory: 40 segments, and a snapshot in every fourth of them. Snapshot n was
// taken 40-n hours ago. Segment 40 is open.
func stored(t *testing.T) (*archivetest.Bucket, *archive.WAL) {
	t.Helper()
	ctx, bucket := t.Context(), archivetest.Memory()
	w := archive.New(bucket).WAL(mib)
	claims := errors.Join(
		w.ClaimCluster(ctx, archive.Cluster{SystemIdentifier: 7, SegmentSize: mib}),
		w.ClaimEpoch(ctx, archive.Epoch{Number: 1, Timeline: 1, Since: mib}),
		w.ClaimTimeline(ctx, archive.TimelineClaim{Timeline: 1, Epoch: 1, Switch: mib}))
	if claims != nil {
		t.Fatal(claims)
	}
	for n := uint64(1); n <= 40; n++ {
		raw := bytes.Repeat([]byte{byte(n)}, mib)
		seg := wal.Segment{Timeline: 1, Number: n}
		chunk := archive.Chunk{Segment: seg, Epoch: 1, From: seg.Start(mib), To: seg.Start(mib) + 8192}
		if n == 3 || n == 38 || n == 40 {
			if _, err := w.PutChunk(ctx, chunk, raw[:8192]); err != nil {
				t.Fatal(err)
			}
		}
		if n < 40 {
			if _, err := w.Seal(ctx, archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: mib}); err != nil {
				t.Fatal(err)
			}
		}
		if n%4 == 0 {
			at := time.Now().Add(time.Duration(n)*time.Hour - 40*time.Hour)
			store(t, w, seg, at)
			bucket.SetModified("basebackups_005/"+archive.BackupName(seg, mib)+"_backup_stop_sentinel.json", at)
		}
	}
	return bucket, w
}

func store(t *testing.T, w *archive.WAL, seg wal.Segment, at time.Time) {
	t.Helper()
	ctx, name := t.Context(), archive.BackupName(seg, mib)
	start, stop := seg.Start(mib)+40, seg.Start(mib)+500
	from, to := uint64(start), uint64(stop)
	if err := w.ClaimBackup(ctx, name, archive.BackupClaim{Epoch: 1, Instance: "x", ClaimedAt: at}); err != nil {
		t.Fatal(err)
	}
	part, err := w.UploadPart(ctx, name, "part_001", strings.NewReader("a tar"))
	if err != nil {
		t.Fatal(err)
	}
	m := archive.Manifest{Name: name, Epoch: 1, Timeline: 1, Start: start, Stop: stop, StopTime: at, Parts: []archive.Part{part}}
	s := archive.Sentinel{LSN: &from, FinishLSN: &to, FinishTime: at}
	if err := w.CommitBackup(ctx, m, archive.Metadata{}, s); err != nil {
		t.Fatal(err)
	}
}

func with(b *archivetest.Bucket, what string) (n int) {
	for _, k := range b.Keys() {
		if strings.Contains(k, what) {
			n++
		}
	}
	return n
}

func rules() retention.Rules { return retention.Rules{Window: 10 * time.Hour, MinBackups: 2} }

func TestRun(t *testing.T) {
	bucket, w := stored(t)
	before := bucket.Keys()
	if p, err := retention.Propose(t.Context(), w, rules()); err != nil || p.Empty() {
		t.Fatalf("a dry run proposes nothing: %+v, %v", p, err)
	}
	if !slices.Equal(before, bucket.Keys()) {
		t.Fatal("a dry run has changed the archive")
	}
	p, err := retention.Run(t.Context(), w, rules(), silent())
	if err != nil {
		t.Fatal(err)
	}
	// Snapshots of the last 10 hours are those in segments 32, 36 and 40; the one before them is in 28.
	if len(p.Backups) != 6 || with(bucket, "_backup_stop_sentinel.json") != 4 || with(bucket, "part_001") != 4 || with(bucket, "outrider-claim") != 4 {
		t.Errorf("%d snapshots went, and these keys are left:\n%s", len(p.Backups), strings.Join(bucket.Keys(), "\n"))
	}
	if with(bucket, "wal_005/") != 39-27 {
		t.Errorf("%d segments are left, want those from 28 to 39", with(bucket, "wal_005/"))
	}
	if got := with(bucket, "outrider/tail/"); got != 1 {
		t.Errorf("%d chunks are left, want that of the open segment: 3 has expired and 38 is sealed", got)
	}
	if got := with(bucket, "outrider/expire/"); got != 0 {
		t.Errorf("%d marks are left after a run that was finished", got)
	}
	if again, err := retention.Run(t.Context(), w, rules(), silent()); err != nil || !again.Empty() {
		t.Errorf("a second run deletes more: %+v, %v", again, err)
	}
}

func TestMarkFirstThenSentinelThenPartsThenWAL(t *testing.T) {
	bucket, w := stored(t)
	var order []string
	bucket.Fault(func(op, key string) error {
		if op == "remove" || op == "put" && strings.HasPrefix(key, "outrider/expire/") {
			order = append(order, op+" "+key)
		}
		return nil
	})
	if _, err := retention.Run(t.Context(), w, rules(), silent()); err != nil {
		t.Fatal(err)
	}
	at := func(part string) int {
		return slices.IndexFunc(order, func(s string) bool { return strings.Contains(s, part) })
	}
	name := archive.BackupName(wal.Segment{Timeline: 1, Number: 24}, mib)
	steps := []string{
		"put outrider/expire/", name + "_backup_stop_sentinel.json", name + "/outrider.json", name + "/outrider-claim.json",
		"remove wal_005/", "remove outrider/tail/", "remove outrider/expire/",
	}
	for i, s := range steps {
		if at(s) < 0 || i > 0 && at(s) < at(steps[i-1]) {
			t.Errorf("%q comes at %d, %q at %d\n%s", s, at(s), steps[max(i-1, 0)], at(steps[max(i-1, 0)]), strings.Join(order, "\n"))
		}
	}
}

// TestCutShort stops a run after every seventh of its deletions, and demands that the next run finishes the work.
func TestCutShort(t *testing.T) {
	whole, w := stored(t)
	if _, err := retention.Run(t.Context(), w, rules(), silent()); err != nil {
		t.Fatal(err)
	}
	want := whole.Keys()
	for n := 1; ; n += 7 {
		bucket, w := stored(t)
		left := n
		bucket.Fault(func(op, _ string) error {
			if op == "remove" {
				if left--; left < 0 {
					return errors.New("the power is gone")
				}
			}
			return nil
		})
		_, err := retention.Run(t.Context(), w, rules(), silent())
		bucket.Fault(nil)
		if err == nil {
			if n < 20 {
				t.Fatalf("a run had only %d deletions", n)
			}
			break
		}
		if all, err := w.Backups(t.Context()); err != nil || len(all) < 4 {
			t.Fatalf("cut short after %d deletions: %d snapshots, %v", n, len(all), err)
		}
		if _, err := retention.Run(t.Context(), w, rules(), silent()); err != nil {
			t.Fatalf("the run after one that was cut short after %d deletions: %v", n, err)
		}
		if got := bucket.Keys(); !slices.Equal(got, want) {
			t.Fatalf("cut short after %d deletions: %d keys are left in the end, want %d:\n%s", n, len(got), len(want), strings.Join(got, "\n"))
		}
	}
}

func TestARightThatIsMissingIsNamed(t *testing.T) {
	for _, denied := range []string{"remove", "put"} {
		bucket, w := stored(t)
		before := bucket.Keys()
		bucket.Fault(func(op, key string) error {
			if op == denied {
				return fmt.Errorf("%s %s: %w", op, key, fs.ErrPermission)
			}
			return nil
		})
		_, err := retention.Run(t.Context(), w, rules(), silent())
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "expiring needs the right to delete") {
			t.Errorf("without the right to %s: error = %v", denied, err)
		}
		if denied == "put" && !slices.Equal(before, bucket.Keys()) {
			t.Error("without a mark something was deleted")
		}
	}
}

func TestWhatChangesMeanwhileStays(t *testing.T) {
	bucket, w := stored(t)
	old := archive.BackupName(wal.Segment{Timeline: 1, Number: 24}, mib)
	marked := false
	bucket.Fault(func(op, key string) error {
		if op != "put" || marked || !strings.HasPrefix(key, "outrider/expire/") {
			return nil
		}
		// While the mark is being written, somebody completes a delta on a snapshot that is to go.
		marked = true
		seg := wal.Segment{Timeline: 1, Number: 39}
		start, stop := uint64(seg.Start(mib)+40), uint64(seg.Start(mib)+500)
		s := archive.Sentinel{LSN: &start, FinishLSN: &stop, DeltaFrom: &old, FinishTime: time.Now()}
		name := archive.BackupName(seg, mib) + "_D_" + old[5:]
		return w.CommitBackup(context.WithoutCancel(t.Context()), archive.Manifest{Name: name, StopTime: time.Now()}, archive.Metadata{}, s)
	})
	if _, err := retention.Run(t.Context(), w, rules(), silent()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Backup(t.Context(), old); err != nil || !marked {
		t.Errorf("the parent of a delta that came meanwhile: %v", err)
	}
}

func TestChunksOfAPaddedSegmentStay(t *testing.T) {
	ctx := t.Context()
	bucket, w := stored(t)
	// Segment 41 is the padded end of a clean stop, 42 to 44 came after it was listed as sealed, and its chunks hold more.
	raw := bytes.Repeat([]byte{1}, mib)
	for n := uint64(40); n <= 44; n++ {
		seg := wal.Segment{Timeline: 1, Number: n}
		valid := int64(mib)
		if n == 41 {
			valid = 4096
			if _, err := w.PutChunk(ctx, archive.Chunk{Segment: seg, Epoch: 1, From: seg.Start(mib), To: seg.End(mib)}, raw); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := w.Seal(ctx, archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: valid}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := retention.Run(ctx, w, rules(), silent()); err != nil {
		t.Fatal(err)
	}
	if got := with(bucket, "outrider/tail/"); got != 1 {
		t.Errorf("%d chunks are left, want that of the padded segment", got)
	}
}

func TestMarksOfTheSameMoment(t *testing.T) {
	_, w := stored(t)
	e := archive.Expiry{Time: time.Now(), Backups: []string{"one"}}
	first, err := w.MarkExpiry(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	e.Backups = []string{"another"}
	second, err := w.MarkExpiry(t.Context(), e)
	if err != nil || first == second {
		t.Errorf("two runs at the same moment: marks %s and %s, %v", first, second, err)
	}
	all, err := w.Expiries(t.Context())
	if err != nil || len(all) != 2 || all[0].Key != first {
		t.Errorf("marks = %+v, %v", all, err)
	}
}
