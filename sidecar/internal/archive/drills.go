package archive

import (
	"context"
	"fmt"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// Drill is outrider/drills/<time>.json: how a restore drill went. Created once, never changed.
type Drill struct {
	Format     int       `json:"format"`
	Passed     bool      `json:"passed"`
	Failure    string    `json:"failure,omitempty"` // why it did not pass, with the object that is to blame
	StartedAt  time.Time `json:"started_at"`
	VerifiedAt time.Time `json:"verified_at"` // when the verdict stood
	Seconds    float64   `json:"seconds"`     // from StartedAt to VerifiedAt
	// ReadySeconds is how long it took until the restored server answered; 0 if it never did.
	ReadySeconds float64      `json:"ready_seconds,omitempty"`
	Snapshot     string       `json:"snapshot,omitempty"`
	Timeline     wal.Timeline `json:"timeline,omitempty"` // that was replayed
	LSN          wal.LSN      `json:"lsn,omitempty"`      // up to which was replayed; absent if it did not come so far
	CommittedAt  *time.Time   `json:"committed_at,omitempty"`
	Pages        DrillCheck   `json:"pages"`
	Indexes      DrillCheck   `json:"indexes"`
	Query        DrillCheck   `json:"query"`
	By           Identity     `json:"by"`
}

// DrillCheck is what came of one of a drill's checks.
type DrillCheck struct {
	Verdict DrillVerdict `json:"verdict"`
	Checked int64        `json:"checked,omitempty"` // pages, indexes, or rows of a query's answer
	Bad     []string     `json:"bad,omitempty"`     // what is wrong, at most 100
}

// DrillVerdict is a word for it. Unknown is not good.
type DrillVerdict string

// The verdicts.
const (
	DrillGood    DrillVerdict = "good"
	DrillBad     DrillVerdict = "bad"
	DrillUnknown DrillVerdict = "unknown" // it could not be checked: no page checksums, no amcheck
	DrillNotRun  DrillVerdict = "not_run" // nobody asked for it, or the drill ended before
)

// RecordDrill stores the result of a drill and returns its key.
func (a *Archive) RecordDrill(ctx context.Context, d Drill) (string, error) {
	d.Format, d.StartedAt, d.VerifiedAt = Format, utc(d.StartedAt), utc(d.VerifiedAt)
	key := drillsDir + d.VerifiedAt.Format(journalTime) + ".json"
	return key, a.createJSON(ctx, key, d)
}

// DrillKeys lists the results of drills whose keys come after one, "" for all, oldest first.
func (a *Archive) DrillKeys(ctx context.Context, after string) ([]string, error) {
	var keys []string
	for o, err := range a.bucket.List(ctx, drillsDir, after) {
		if err != nil {
			return nil, fmt.Errorf("listing the restore drills: %w", err)
		}
		if strings.HasSuffix(o.Key, ".json") {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}

// Drill reads the result of a drill.
func (a *Archive) Drill(ctx context.Context, key string) (Drill, error) {
	var d Drill
	_, err := a.readJSON(ctx, key, &d)
	return d, err
}
