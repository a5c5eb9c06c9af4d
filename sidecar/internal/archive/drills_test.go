package archive_test

import (
	"errors"
	"io/fs"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
)

// What a drill has found is there for good: it is listed in the order of time, read as it was written, and never replaced.
func TestDrillsAreRecordedOnce(t *testing.T) {
	a := archive.New(archivetest.Memory())
	at := time.Date(2026, 11, 23, 3, 0, 0, 123_456_789, time.UTC)
	failed := archive.Drill{Failure: "part_001 is damaged", StartedAt: at.Add(-time.Minute), VerifiedAt: at, Pages: archive.DrillCheck{Verdict: archive.DrillNotRun}}
	passed := archive.Drill{
		Passed: true, StartedAt: at, VerifiedAt: at.Add(time.Hour), Snapshot: "base_000000010000000000000002", Timeline: 1, LSN: 0x3000028,
		CommittedAt: new(at.Truncate(time.Microsecond)), Pages: archive.DrillCheck{Verdict: archive.DrillGood, Checked: 812},
	}
	later, err := a.RecordDrill(t.Context(), passed)
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.RecordDrill(t.Context(), failed)
	if err != nil {
		t.Fatal(err)
	}
	if want := "outrider/drills/20261123t030000.123456z.json"; first != want {
		t.Errorf("the key is %s, want %s", first, want)
	}
	for after, want := range map[string][]string{"": {first, later}, first: {later}, later: nil} {
		got, err := a.DrillKeys(t.Context(), after)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("keys after %q: %v (-want +got):\n%s", after, err, diff)
		}
	}
	got, err := a.Drill(t.Context(), later)
	passed.Format, passed.StartedAt, passed.VerifiedAt = archive.Format, passed.StartedAt.Truncate(time.Microsecond), passed.VerifiedAt.Truncate(time.Microsecond)
	if diff := cmp.Diff(passed, got); diff != "" || err != nil {
		t.Errorf("read back: %v (-want +got):\n%s", err, diff)
	}
	failed.Passed = true
	if _, err := a.RecordDrill(t.Context(), failed); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a verdict was replaced: %v", err)
	}
}
