package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	VerifiedAt time.Time `json:"verified_at"` // when the verdict stood; also of StartedAt the store's clock
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

// RecordDrill stores the result of a drill and returns its key, which is made of VerifiedAt. Another result under that
// key is fs.ErrExist.
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

// expectation is outrider/drills-expected.json: from when it was made, drills are expected of this root. Created once.
type expectation struct {
	Format int      `json:"format"`
	By     Identity `json:"by"`
}

// DrillsExpected is since when drills are expected of this root, by the store's clock; if they were not, they are from
// now on. The archive remembers it because processes, pods and machines come and go in between.
func (a *Archive) DrillsExpected(ctx context.Context, by Identity) (time.Time, error) {
	there, err := a.bucket.Stat(ctx, drillsExpected)
	if errors.Is(err, fs.ErrNotExist) {
		err = a.createJSON(ctx, drillsExpected, expectation{Format: Format, By: by})
		if err == nil || errors.Is(err, fs.ErrExist) { // another one was faster
			there, err = a.bucket.Stat(ctx, drillsExpected)
		}
	}
	return there.LastModified, wrap("looking since when restore drills are expected:", drillsExpected, err)
}

// Now is the time by the store's clock, to the second; the zero time if it has no snapshot that it could tell of.
func (a *Archive) Now(ctx context.Context) (time.Time, error) {
	for o, err := range a.bucket.List(ctx, backupsDir, "") {
		return o.SeenAt, wrap("asking the store for the time, listing", backupsDir, err)
	}
	return time.Time{}, nil
}
