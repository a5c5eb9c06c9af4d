package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// expireDir holds the marks of retention runs that are under way or were cut short.
const expireDir = "outrider/expire/"

// Expiry is outrider/expire/<time>.json: what a retention run is about to delete. It is written before anything is
// deleted and deleted after everything is, so one that is found tells of a run that was cut short.
type Expiry struct {
	Format   int          `json:"format"`
	Time     time.Time    `json:"time"`   // of the decision, by the store's clock
	Cutoff   time.Time    `json:"cutoff"` // begin of the recovery window that was applied
	Backups  []string     `json:"backups,omitempty"`
	Debris   []string     `json:"debris,omitempty"` // directories of snapshots that never came to exist
	Segments []ExpiredWAL `json:"wal,omitempty"`
	Chunks   int          `json:"chunks,omitempty"`
	// Key is where the mark is; it is not part of the document.
	Key string `json:"-"`
}

// ExpiredWAL is the range of segments of one timeline among which those that are deleted lie.
type ExpiredWAL struct {
	Timeline wal.Timeline `json:"timeline"`
	First    string       `json:"first"`
	Last     string       `json:"last"`
	Count    int          `json:"count"`
}

// BackupDir is what lies below basebackups_005/ under one name.
type BackupDir struct {
	Name     string
	Sentinel bool // whether the snapshot exists
	Objects  int
	Bytes    int64
	Newest   time.Time    // when the youngest object was written
	Claim    *BackupClaim // who claimed the name; nil if nobody did. Read only where there is no sentinel
}

// BackupDirs looks at every name below basebackups_005/ that has the form of a snapshot's. seen is the store's time of
// the listing; zero if nothing was listed.
func (a *Archive) BackupDirs(ctx context.Context) (dirs []BackupDir, seen time.Time, err error) {
	byName := map[string]*BackupDir{}
	for o, err := range a.bucket.List(ctx, backupsDir, "") {
		if err != nil {
			return nil, seen, fmt.Errorf("listing what lies below %s: %w", backupsDir, err)
		}
		seen = o.SeenAt
		rest := strings.TrimPrefix(o.Key, backupsDir)
		name, _, inside := strings.Cut(rest, "/")
		if !inside {
			var ok bool
			if name, ok = strings.CutSuffix(rest, sentinelSuffix); !ok {
				continue
			}
		}
		if !backupName.MatchString(name) {
			continue
		}
		d := byName[name]
		if d == nil {
			d = &BackupDir{Name: name}
			byName[name] = d
		}
		d.Sentinel = d.Sentinel || !inside
		d.Objects++
		d.Bytes += o.Size
		if o.LastModified.After(d.Newest) {
			d.Newest = o.LastModified
		}
	}
	for _, d := range byName {
		if d.Claim, err = a.claimOf(ctx, *d); err != nil {
			return nil, seen, err
		}
		dirs = append(dirs, *d)
	}
	slices.SortFunc(dirs, func(x, y BackupDir) int { return strings.Compare(x.Name, y.Name) })
	return dirs, seen, nil
}

func (a *Archive) claimOf(ctx context.Context, d BackupDir) (*BackupClaim, error) {
	if d.Sentinel {
		return nil, nil
	}
	var c BackupClaim
	_, err := a.readJSON(ctx, backupsDir+d.Name+claimName, &c)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return &c, err
}

const claimName = "/outrider-claim.json"

// BackupNames lists the snapshots that exist, that is, have a sentinel, without reading anything of them.
func (a *Archive) BackupNames(ctx context.Context) ([]string, error) {
	var names []string
	for o, err := range a.bucket.List(ctx, backupsDir, "") {
		if err != nil {
			return nil, fmt.Errorf("listing the snapshots: %w", err)
		}
		name, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, backupsDir), sentinelSuffix)
		if ok && backupName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// Permanent tells whether a snapshot is to be kept whatever its age. WAL-G's backup-mark says so in metadata.json alone
// and leaves the sentinel as it was.
func (a *Archive) Permanent(ctx context.Context, b Backup) (bool, error) {
	var m Metadata
	_, err := a.readJSON(ctx, backupsDir+b.Name+"/metadata.json", &m)
	if errors.Is(err, fs.ErrNotExist) {
		return b.Sentinel.IsPermanent, nil
	}
	return m.IsPermanent || b.Sentinel.IsPermanent, err
}

// MarkExpiry writes down what is about to be deleted and returns the mark's key. Runs that decide at the same time have
// marks of their own.
func (a *Archive) MarkExpiry(ctx context.Context, e Expiry) (string, error) {
	e.Format, e.Time, e.Cutoff = Format, utc(e.Time), utc(e.Cutoff)
	for {
		key := expireDir + e.Time.Format(journalTime) + ".json"
		err := a.createJSON(ctx, key, e)
		if !errors.Is(err, fs.ErrExist) {
			return key, err
		}
		e.Time = e.Time.Add(time.Microsecond)
	}
}

// Expiries reads the marks of runs that are not finished, oldest first.
func (a *Archive) Expiries(ctx context.Context) ([]Expiry, error) {
	var all []Expiry
	for o, err := range a.bucket.List(ctx, expireDir, "") {
		if err != nil {
			return nil, fmt.Errorf("listing the marks of earlier retention runs: %w", err)
		}
		if !strings.HasSuffix(o.Key, ".json") {
			continue
		}
		e := Expiry{}
		if _, err := a.readJSON(ctx, o.Key, &e); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // finished since it was listed
			}
			return nil, err
		}
		e.Key = o.Key
		all = append(all, e)
	}
	return all, nil
}

// UnmarkExpiry deletes marks whose runs are finished.
func (a *Archive) UnmarkExpiry(ctx context.Context, keys ...string) error {
	if len(keys) == 0 {
		return nil
	}
	return wrap("deleting the mark", keys[0], a.bucket.Remove(ctx, keys...))
}

// removeBatch is how many objects are deleted in one call.
const removeBatch = 500

// RemoveBackup deletes a snapshot: its sentinel first, so that it no longer exists, then what it consists of, and last
// the claim on its name, which until then tells whose remains these are.
func (a *Archive) RemoveBackup(ctx context.Context, name string) error {
	if !backupName.MatchString(name) {
		return fmt.Errorf("deleting a snapshot: %q is not the name of one", name)
	}
	sentinel := backupsDir + name + sentinelSuffix
	if err := a.bucket.Remove(ctx, sentinel); err != nil {
		return wrap("deleting", sentinel, err)
	}
	claim := backupsDir + name + claimName
	var keys []string
	for o, err := range a.bucket.List(ctx, backupsDir+name+"/", "") {
		if err != nil {
			return fmt.Errorf("listing what %s consists of, to delete it: %w", name, err)
		}
		if o.Key != claim {
			keys = append(keys, o.Key)
		}
	}
	return a.removeAll(ctx, "deleting what belonged to "+name, append(keys, claim))
}

// RemoveSegments deletes sealed segments in the order given.
func (w *WAL) RemoveSegments(ctx context.Context, segments []SegmentInfo) error {
	keys := make([]string, len(segments))
	for i, s := range segments {
		keys[i] = s.Key
	}
	return w.removeAll(ctx, "deleting expired WAL", keys)
}

func (a *Archive) removeAll(ctx context.Context, doing string, keys []string) error {
	for batch := range slices.Chunk(keys, removeBatch) {
		if err := a.bucket.Remove(ctx, batch...); err != nil {
			return fmt.Errorf("%s, %s to %s: %w", doing, batch[0], batch[len(batch)-1], err)
		}
	}
	return nil
}
