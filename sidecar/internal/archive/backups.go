package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// backupName is the form that WAL-G gives to backups: a full one, or a delta with its direct parent.
var backupName = regexp.MustCompile(`^base_[0-9A-F]{24}(_D_[0-9A-F]{24})?$`)

// BackupName is WAL-G's name of a full backup that starts in segment s.
func BackupName(s wal.Segment, z wal.SegmentSize) string { return "base_" + s.Name(z) }

// Backup is one snapshot that exists, that is, has a sentinel.
type Backup struct {
	Name         string
	StartSegment string    // the 24 digits in its name
	ModTime      time.Time // of the sentinel, by the store's clock
	Sentinel     Sentinel
	Manifest     *Manifest // nil for a backup of WAL-G's
	// Damage is why the documents of the backup cannot be read; nothing but Name and StartSegment is known then. Only
	// AllBackups lists such a backup.
	Damage error
}

// Delta tells whether the backup holds only what changed since another one.
func (b Backup) Delta() bool { return b.Sentinel.DeltaFrom != nil }

// Start and Stop are the positions between which the files were read; 0 if the sentinel does not say.
func (b Backup) Start() wal.LSN { return lsnOf(b.Sentinel.LSN) }

// Stop is the position up to which WAL must be replayed before the backup is consistent.
func (b Backup) Stop() wal.LSN { return lsnOf(b.Sentinel.FinishLSN) }

// Timeline is the timeline on which the backup began.
func (b Backup) Timeline() wal.Timeline {
	s, err := wal.ParseSegment(b.StartSegment, wal.DefaultSegmentSize)
	if err != nil {
		// Only the low half depends on the segment size; the timeline never does.
		s, _ = wal.ParseSegment(b.StartSegment[:16]+"00000000", wal.DefaultSegmentSize)
	}
	return s.Timeline
}

func lsnOf(n *uint64) wal.LSN {
	if n == nil {
		return 0
	}
	return wal.LSN(*n)
}

// Backups reads all backups that have a sentinel, by timeline and start, never by the time of the object. A damaged
// document is an error.
func (a *Archive) Backups(ctx context.Context) ([]Backup, error) {
	all, err := a.AllBackups(ctx)
	for _, b := range all {
		if err == nil {
			err = b.Damage
		}
	}
	if err != nil {
		return nil, err
	}
	return all, nil
}

// AllBackups is Backups for those who have to go on: one damaged document must keep neither WAL from being shipped nor
// other backups from being restored. Damaged ones are listed with their Damage.
func (a *Archive) AllBackups(ctx context.Context) ([]Backup, error) {
	names, err := a.BackupNames(ctx)
	if err != nil {
		return nil, err
	}
	all, err := readEach(ctx, names, func(ctx context.Context, name string) (Backup, error) {
		b, err := a.Backup(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return Backup{}, nil // expired since it was listed
		}
		if errors.Is(err, ErrCorrupt) {
			return Backup{Name: name, StartSegment: name[5:29], Damage: err}, nil
		}
		return b, err
	})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b Backup) bool { return b.Name == "" })
	slices.SortFunc(all, func(x, y Backup) int {
		if c := strings.Compare(x.StartSegment, y.StartSegment); c != 0 {
			return c
		}
		return compare(x.Start(), y.Start())
	})
	return all, nil
}

// Backup reads one backup by name; fs.ErrNotExist if it has no sentinel.
func (a *Archive) Backup(ctx context.Context, name string) (Backup, error) {
	if !backupName.MatchString(name) {
		return Backup{}, fmt.Errorf("%q is not the name of a snapshot: expected base_ and 24 upper-case hexadecimal digits", name)
	}
	b := Backup{Name: name, StartSegment: name[5:29]}
	info, err := a.readJSON(ctx, backupsDir+name+sentinelSuffix, &b.Sentinel)
	if err != nil {
		return b, err
	}
	b.ModTime = info.LastModified
	var m Manifest
	_, err = a.readJSON(ctx, backupsDir+name+"/outrider.json", &m)
	switch {
	case err == nil:
		b.Manifest = &m
	case !errors.Is(err, fs.ErrNotExist):
		return b, err
	}
	return b, nil
}

// BackupClaim is basebackups_005/<backup>/outrider-claim.json: two snapshots that begin in the same segment would
// have the same name and mix their parts, so the name is claimed before the first part.
type BackupClaim struct {
	Format    int       `json:"format"`
	Epoch     uint64    `json:"epoch"`
	Instance  string    `json:"instance"`
	ClaimedAt time.Time `json:"claimed_at"`
}

// ClaimBackup takes the name of a backup; fs.ErrExist if it was taken by any attempt, even a dead one.
func (a *Archive) ClaimBackup(ctx context.Context, name string, c BackupClaim) error {
	c.Format, c.ClaimedAt = Format, c.ClaimedAt.UTC()
	return a.createJSON(ctx, backupsDir+name+"/outrider-claim.json", c)
}

// UploadPart compresses the tar stream raw into one part and stores it. name has no extension.
func (a *Archive) UploadPart(ctx context.Context, backup, name string, raw io.Reader) (Part, error) {
	p := Part{Name: name + ".tar" + Extension}
	counted := &counter{r: raw}
	stream := a.codec.compressing(counted)
	o, err := a.bucket.Upload(ctx, backupsDir+backup+partsDir+p.Name, stream, PutOptions{})
	err = errors.Join(err, stream.Close())
	p.Size, p.CRC64, p.RawSize = o.Size, o.CRC64, counted.n
	return p, wrap("storing part "+p.Name+" of", backup, err)
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// Parts lists the parts that lie in the store: all there is to go by for a backup of WAL-G's.
func (a *Archive) Parts(ctx context.Context, backup string) ([]Part, error) {
	var all []Part
	dir := backupsDir + backup + partsDir
	for o, err := range a.bucket.List(ctx, dir, "") {
		if err != nil {
			return nil, fmt.Errorf("listing the parts of %s: %w", backup, err)
		}
		if name := strings.TrimPrefix(o.Key, dir); !strings.Contains(name, "/") {
			all = append(all, Part{Name: name, Size: o.Size})
		}
	}
	return all, nil
}

// OpenPart reads a part as the tar stream that it is. A part that is shorter or has another CRC64 than the manifest
// says is ErrCorrupt at once; p.CRC64 0 means not known.
func (a *Archive) OpenPart(ctx context.Context, backup string, p Part) (io.ReadCloser, error) {
	key := backupsDir + backup + partsDir + p.Name
	body, o, err := a.bucket.Open(ctx, key, Range{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading %s: %w: the part is missing: use another snapshot: %w", key, ErrCorrupt, err)
	}
	if err != nil {
		return nil, wrap("reading", key, err)
	}
	if p.CRC64 != 0 && (o.CRC64 != p.CRC64 || o.Size != p.Size) {
		return nil, errors.Join(fmt.Errorf("reading %s: %w: %d bytes with CRC64 %d, the manifest says %d with %d: use another snapshot",
			key, ErrCorrupt, o.Size, o.CRC64, p.Size, p.CRC64), body.Close())
	}
	return a.codec.decompressing(key, body)
}

// CommitBackup makes a snapshot exist: manifest, WAL-G's metadata, and last of all the sentinel.
func (a *Archive) CommitBackup(ctx context.Context, m Manifest, meta Metadata, s Sentinel) error {
	m.Format = Format
	if err := a.createJSON(ctx, backupsDir+m.Name+"/outrider.json", m); err != nil {
		return err
	}
	if err := a.createJSON(ctx, backupsDir+m.Name+"/metadata.json", meta); err != nil {
		return err
	}
	return a.createJSON(ctx, backupsDir+m.Name+sentinelSuffix, s)
}
