package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// Attic is what is asked to remove the remains of attempts that failed.
type Attic interface {
	BackupDirs(ctx context.Context) (dirs []archive.BackupDir, seen time.Time, err error)
	RemoveBackup(ctx context.Context, name string) error
}

// Debris removes what is left of attempts that a later snapshot has overtaken, and returns their names. It touches only
// what this writer or an earlier one has claimed: an upload of WAL-G's carries no claim and may be under way. It must
// not run while a snapshot is taken. Where deleting is not permitted that is logged, and the retention, which has other
// credentials, will do it.
func (t *Taker) Debris(ctx context.Context, attic Attic) ([]string, error) {
	dirs, _, err := attic.BackupDirs(ctx)
	if err != nil {
		return nil, fmt.Errorf("looking for the remains of failed snapshots: %w", err)
	}
	newest := ""
	for _, d := range dirs {
		if d.Sentinel {
			newest = max(newest, startSegment(d.Name))
		}
	}
	var removed []string
	for _, d := range dirs {
		if d.Sentinel || d.Claim == nil || d.Claim.Epoch > t.cfg.Epoch || startSegment(d.Name) >= newest {
			continue
		}
		err := attic.RemoveBackup(ctx, d.Name)
		if errors.Is(err, fs.ErrPermission) {
			t.cfg.Log.Info("the remains of a failed snapshot are left to the retention: deleting is not permitted",
				"snapshot", d.Name, "bytes", d.Bytes)
			return removed, nil
		}
		if err != nil {
			return removed, fmt.Errorf("removing the remains of a failed snapshot: %w", err)
		}
		t.cfg.Log.Info("removed the remains of a failed snapshot", "snapshot", d.Name, "bytes", d.Bytes)
		removed = append(removed, d.Name)
	}
	return removed, nil
}

// startSegment orders snapshots by timeline and position: it is the first 24 digits of the name.
func startSegment(name string) string {
	digits, _, _ := strings.Cut(strings.TrimPrefix(name, "base_"), "_")
	return digits
}
