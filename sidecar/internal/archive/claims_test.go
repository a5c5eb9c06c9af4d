package archive_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

func TestClaimEpoch(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	mine := archive.Epoch{Number: 5, Writer: archive.Identity{Instance: "a"}, ClaimedAt: time.Now()}
	for range 2 { // the second time after a lost answer
		if err := a.ClaimEpoch(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	other := mine
	other.Writer.Instance = "b"
	if err := a.ClaimEpoch(t.Context(), other); !errors.Is(err, fs.ErrExist) {
		t.Errorf("somebody else's number: %v, want %v", err, fs.ErrExist)
	}
	if e, err := a.Epoch(t.Context(), 5); err != nil || e.Writer.Instance != "a" {
		t.Errorf("the claim is now %+v, %v", e, err)
	}
	outage(bucket, "open", ".json")
	if err := a.ClaimEpoch(t.Context(), mine); !errors.Is(err, errOutage) || errors.Is(err, fs.ErrExist) {
		t.Errorf("exists, and cannot be compared: %v, want %v", err, errOutage)
	}
}

// vanishing says that objects exist which nobody can read.
type vanishing struct{ *archivetest.Bucket }

func (v vanishing) Open(_ context.Context, key string, _ archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	return nil, archive.ObjectInfo{}, fmt.Errorf("object %s: %w", key, fs.ErrNotExist)
}

func TestWhatVanishesWhileItIsComparedIsNeitherThereNorMissing(t *testing.T) {
	v := vanishing{archivetest.Memory()}
	a := archive.New(v)
	raw := make([]byte, mib)
	seg := segmentOf(1, 1)
	for name, create := range map[string]func() error{
		"epoch":   func() error { return a.ClaimEpoch(t.Context(), archive.Epoch{Number: 1}) },
		"chunk":   func() error { _, err := a.WAL(mib).PutChunk(t.Context(), chunkOf(seg, 1, 0, mib), raw); return err },
		"segment": func() error { _, err := a.WAL(mib).Seal(t.Context(), sealOf(seg, 1, raw)); return err },
	} {
		if err := create(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := create(); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrExist) || errors.Is(err, archive.ErrConflict) {
			t.Errorf("%s: %v, want an error that claims nothing", name, err)
		}
	}
}

func TestClaimCluster(t *testing.T) {
	bucket := archivetest.Memory()
	a := archive.New(bucket)
	mine := archive.Cluster{SystemIdentifier: 7711211053247943853, SegmentSize: mib, CreatedAt: time.Now()}
	for i := range 3 { // each start, at its own time, by its own pod
		mine.CreatedAt = mine.CreatedAt.Add(time.Duration(i) * time.Hour)
		mine.CreatedBy.Pod = fmt.Sprint(i)
		if err := a.ClaimCluster(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*archive.Cluster){
		"another server":       func(c *archive.Cluster) { c.SystemIdentifier++ },
		"another segment size": func(c *archive.Cluster) { c.SegmentSize = 2 * mib },
	} {
		other := mine
		change(&other)
		if err := a.ClaimCluster(t.Context(), other); !errors.Is(err, archive.ErrConflict) {
			t.Errorf("%s: %v, want %v", name, err, archive.ErrConflict)
		}
	}
	if c, err := a.Cluster(t.Context()); err != nil || c.CreatedBy.Pod != "0" {
		t.Errorf("the root is now %+v, %v", c, err)
	}
}

func TestClaimTimeline(t *testing.T) {
	a := archive.New(archivetest.Memory())
	mine := archive.TimelineClaim{Timeline: 2, Epoch: 3, Parent: 1, Switch: 500, ClaimedAt: time.Now()}
	for i := range 3 { // by the same epoch, after a restart
		mine.ClaimedAt = mine.ClaimedAt.Add(time.Duration(i) * time.Hour)
		if err := a.ClaimTimeline(t.Context(), mine); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*archive.TimelineClaim){
		"another epoch":  func(c *archive.TimelineClaim) { c.Epoch++ },
		"another parent": func(c *archive.TimelineClaim) { c.Parent = 3 },
		"another switch": func(c *archive.TimelineClaim) { c.Switch++ },
		"another writer that expects the same epoch": func(c *archive.TimelineClaim) { c.Instance = "other" },
	} {
		other := mine
		change(&other)
		if err := a.ClaimTimeline(t.Context(), other); !errors.Is(err, archive.ErrConflict) {
			t.Errorf("%s: %v, want %v", name, err, archive.ErrConflict)
		}
	}
}

// TestRacingRestores: two restores of one archive promote at the same place and write the same .history, which proves
// nothing. The claim lets one of them through.
func TestRacingRestores(t *testing.T) {
	a := archive.New(archivetest.Memory())
	history := []byte("1\t0/5000108\tno recovery target specified\n")
	const n = 8
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c := archive.TimelineClaim{Timeline: 2, Epoch: uint64(i + 1), Parent: 1, Switch: 0x5000108, ClaimedAt: time.Now()}
			errs[i] = a.ClaimTimeline(t.Context(), c)
			if err := a.PutHistory(t.Context(), 2, history); err != nil {
				t.Errorf("the same history: %v", err)
			}
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, archive.ErrConflict):
			t.Errorf("%v, want %v", err, archive.ErrConflict)
		}
	}
	if won != 1 {
		t.Errorf("%d restores own timeline 2", won)
	}
	if err := a.PutHistory(t.Context(), 2, []byte("1\t0/5000110\tno recovery target specified\n")); !errors.Is(err, archive.ErrConflict) {
		t.Errorf("another history: %v, want %v", err, archive.ErrConflict)
	}
}

func TestClaimBackup(t *testing.T) {
	a := archive.New(archivetest.Memory())
	name, at := "base_00000001000000000000000B", time.Now()
	mine := archive.BackupClaim{Epoch: 1, Instance: "a", ClaimedAt: at}
	if err := a.ClaimBackup(t.Context(), name, mine); err != nil {
		t.Fatal(err)
	}
	mine.ClaimedAt = at.Add(time.Second) // a second attempt, even of the same instance, would mix its parts with the first
	if err := a.ClaimBackup(t.Context(), name, mine); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want %v", err, fs.ErrExist)
	}
}
