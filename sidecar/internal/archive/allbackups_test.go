package archive_test

import (
	"errors"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// One damaged document must not hide the other snapshots from those who have to go on, and must not go unnoticed by
// those who look for damage.
func TestADamagedManifestHidesNoOtherSnapshot(t *testing.T) {
	b := archivetest.Memory()
	a := archive.New(b)
	var names []string
	for n := range uint64(3) {
		name := archive.BackupName(wal.Segment{Timeline: 1, Number: n + 1}, wal.DefaultSegmentSize)
		start := (n + 1) * wal.DefaultSegmentSize
		err := a.CommitBackup(t.Context(), archive.Manifest{Name: name}, archive.Metadata{}, archive.Sentinel{LSN: &start, FinishLSN: &start})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	b.SetBytes("basebackups_005/"+names[1]+"/outrider.json", []byte(`{"format":1,"na`))
	if _, err := a.Backups(t.Context()); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("Backups answers %v", err)
	}
	all, err := a.AllBackups(t.Context())
	if err != nil || len(all) != 3 {
		t.Fatalf("AllBackups answers %d snapshots, %v", len(all), err)
	}
	for i, s := range all {
		if s.Name != names[i] || (s.Damage != nil) != (i == 1) || (i == 1) != errors.Is(s.Damage, archive.ErrCorrupt) {
			t.Errorf("snapshot %d is %s with damage %v", i, s.Name, s.Damage)
		}
	}
}
