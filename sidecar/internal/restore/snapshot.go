package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Snapshot is what a restore starts from: a full snapshot, or a chain of deltas on one.
type Snapshot struct {
	Name     string       `json:"name"`
	Timeline wal.Timeline `json:"timeline"`
	Start    wal.LSN      `json:"start"`          // where replay begins; the start of a segment if StartKnown is false
	Stop     wal.LSN      `json:"stop,omitempty"` // from where on it is consistent; 0 if the sentinel does not say
	StopTime time.Time    `json:"stop_time,omitzero"`
	// StartKnown is false if only the name tells where the snapshot begins.
	StartKnown bool `json:"start_known"`
	// Links are the snapshots to unpack, the full one first. The last one has the snapshot's name.
	Links []Link `json:"links"`
	// RawSize and StoredSize are bytes of all tar parts; RawSize is 0 if it is not known.
	RawSize    int64 `json:"raw_size,omitempty"`
	StoredSize int64 `json:"stored_size"`
	// Versions says what the server must find on its new machine.
	Versions Versions `json:"versions"`
}

// Link is one snapshot of a chain and its parts.
type Link struct {
	Name       string         `json:"name"`
	Parts      []archive.Part `json:"parts"`
	Manifest   bool           `json:"manifest"` // sizes and checksums of the parts are known
	NoMetadata bool           `json:"no_files_metadata,omitempty"`
	// FilesMetadata is what the manifest says of the list of files; nil if it does not.
	FilesMetadata *archive.Object      `json:"files_metadata,omitempty"`
	Tablespaces   []archive.Tablespace `json:"tablespaces,omitempty"`
	// TablespacesKnown says that Tablespaces are all there are.
	TablespacesKnown bool `json:"tablespaces_known"`
}

// Versions are what a snapshot was taken with, as far as it was recorded.
type Versions struct {
	Server     int               `json:"server_version_num,omitempty"`
	Catalog    uint32            `json:"catalog_version,omitempty"`
	Extensions map[string]string `json:"extensions,omitempty"`
	Preload    string            `json:"shared_preload_libraries,omitempty"`
	Collations map[string]string `json:"collation_versions,omitempty"`
}

// leg finds the leg of the branch on which the snapshot was taken.
func (p *planner) leg(b archive.Backup) (int, bool) {
	start := p.start(b)
	for i, g := range p.legs {
		if g.Timeline != b.Timeline() {
			continue
		}
		if b.Start() == 0 {
			start = max(start, g.From) // the segment's number is all we know
		}
		return i, start >= g.From && max(b.Stop(), start) <= g.To
	}
	return 0, false
}

// start is where the WAL of a snapshot begins, as far as it is known.
func (p *planner) start(b archive.Backup) wal.LSN {
	if b.Start() != 0 {
		return b.Start()
	}
	seg, err := wal.ParseSegment(b.StartSegment, p.inv.Size)
	if err != nil {
		return archive.MaxLSN
	}
	return seg.Start(p.inv.Size)
}

func stopTime(b archive.Backup) time.Time {
	if b.Manifest != nil {
		return b.Manifest.StopTime
	}
	return b.Sentinel.FinishTime
}

// choose picks the newest usable snapshot of the branch that is consistent at the target. Those that it passes over
// are in the plan's warnings.
func (p *planner) choose(ctx context.Context) error {
	onBranch := p.onBranch()
	var early []archive.Backup
	for _, b := range onBranch {
		if ok, err := p.beforeTarget(ctx, b); err != nil {
			return err
		} else if !ok {
			early = append(early, b)
			continue
		}
		why, err := p.use(ctx, b)
		if err != nil {
			return err
		}
		if why == nil {
			return nil
		}
		if p.req.Backup != "" {
			return fmt.Errorf("snapshot %s: %w", b.Name, why)
		}
		p.warn("snapshot %s is passed over: %v", b.Name, why)
	}
	if n := len(early); n > 0 && n == len(onBranch) {
		first := early[len(early)-1]
		return fmt.Errorf("%w: %s is before the end of snapshot %s: the earliest possible is LSN %s or the time %s",
			ErrTargetTooEarly, p.target, first.Name, first.Stop(), stopTime(first).Format(time.RFC3339Nano))
	}
	return p.noSnapshot(onBranch)
}

func (p *planner) noSnapshot(onBranch []archive.Backup) error {
	switch {
	case p.req.Backup != "":
		return p.notOnBranch()
	case len(p.backups) == 0:
		return fmt.Errorf("%w: none was ever completed; the WAL alone restores nothing", ErrNoSnapshot)
	case len(onBranch) == 0:
		return fmt.Errorf("%w: none of %d lies on the branch of timeline %d: choose another with @timeline",
			ErrNoSnapshot, len(p.backups), p.branch.Timeline)
	}
	return fmt.Errorf("%w: all %d on the branch of timeline %d were passed over: %v", ErrNoSnapshot, len(onBranch),
		p.branch.Timeline, p.plan.Warnings)
}

func (p *planner) notOnBranch() error {
	for _, b := range p.backups {
		if b.Name == p.req.Backup && b.Damage != nil {
			return fmt.Errorf("snapshot %s: %w", b.Name, b.Damage)
		}
		if b.Name == p.req.Backup {
			return fmt.Errorf("%w: snapshot %s was taken on timeline %d, which the branch of timeline %d does not contain at that point: ask for the target @%d",
				ErrAmbiguous, b.Name, b.Timeline(), p.branch.Timeline, b.Timeline())
		}
	}
	return fmt.Errorf("%w: snapshot %s does not exist", ErrNoSnapshot, p.req.Backup)
}

// onBranch lists the snapshots on the legs up to the target's, newest first.
func (p *planner) onBranch() []archive.Backup {
	var found []archive.Backup
	for _, b := range p.backups {
		if p.req.Backup != "" && b.Name != p.req.Backup {
			continue
		}
		if b.Damage != nil {
			p.warn("snapshot %s is passed over: %v", b.Name, b.Damage)
			continue
		}
		if id := b.Sentinel.SystemIdentifier; id != nil && p.plan.SystemIdentifier != 0 && *id != p.plan.SystemIdentifier {
			p.warn("snapshot %s is passed over: it is of another database (system identifier %d)", b.Name, *id)
			continue
		}
		if p.inv.Overtaken(b) {
			p.warn("snapshot %s is passed over: another writer had taken over timeline %d when it was completed, and the WAL is that one's", b.Name, b.Timeline())
			continue
		}
		if i, ok := p.leg(b); ok && i <= p.last {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(x, y archive.Backup) int {
		a, _ := p.leg(x)
		b, _ := p.leg(y)
		if a != b {
			return b - a
		}
		if p.start(x) > p.start(y) {
			return -1
		}
		return 1
	})
	return found
}

// beforeTarget tells whether the snapshot is consistent before the target. If it does not say when it was finished,
// the last commit before its end does.
func (p *planner) beforeTarget(ctx context.Context, b archive.Backup) (bool, error) {
	t := p.target
	switch {
	case t.LSN != 0:
		return max(b.Stop(), p.start(b)) <= t.LSN, nil
	case t.Time.IsZero():
		return true, nil
	case !stopTime(b).IsZero():
		return !stopTime(b).After(t.Time), nil
	}
	i, _ := p.leg(b)
	from := p.inv.Size.Floor(p.start(b))
	last, err := p.scan.tail(ctx, p.legs[:i+1], from, max(b.Stop(), p.start(b)), 0)
	if errors.Is(err, ErrHole) {
		return true, nil // then it is not usable for that reason
	}
	return !last.HasCommit || !last.Commit.After(t.Time), err
}

// use makes b the plan's snapshot, or says why it cannot be used.
func (p *planner) use(ctx context.Context, b archive.Backup) (why, err error) {
	i, _ := p.leg(b)
	legs := slices.Clone(p.legs[i : p.last+1])
	legs[0].From = p.inv.Size.Floor(p.start(b))
	end, _ := cover(p.inv, legs, legs[0].From)
	if end.LSN < max(b.Stop(), p.start(b)+1) {
		return fmt.Errorf("%w: it needs WAL from %s to %s, the archive has it up to %s", ErrHole, p.start(b), b.Stop(), end.LSN), nil
	}
	if why, err := p.seams(ctx, legs, end.LSN); why != nil || err != nil {
		return why, err
	}
	s := Snapshot{
		Name: b.Name, Timeline: b.Timeline(), Start: p.start(b), StartKnown: b.Start() != 0, Stop: b.Stop(),
		StopTime: stopTime(b),
	}
	if why, err := p.links(ctx, b, &s); why != nil || err != nil {
		return why, err
	}
	s.Versions = versions(b)
	if b.Stop() == 0 {
		p.warn("snapshot %s does not say where it ends: whether the target is after that will be seen during recovery", b.Name)
	}
	p.plan.Snapshot, p.plan.Legs = s, legs
	return nil, nil
}

func versions(b archive.Backup) Versions {
	if m := b.Manifest; m != nil {
		return Versions{
			Server: m.ServerVersion, Catalog: m.CatalogVersion, Extensions: m.Extensions, Preload: m.Preload,
			Collations: m.Collations,
		}
	}
	return Versions{Server: b.Sentinel.PgVersion}
}

// links follows a chain of deltas to its full snapshot and checks that all parts are there.
func (p *planner) links(ctx context.Context, b archive.Backup, s *Snapshot) (why, err error) {
	raw := int64(0)
	known := true
	for seen := map[string]bool{}; ; {
		if seen[b.Name] {
			return fmt.Errorf("%w: the chain of deltas runs in a circle at %s", archive.ErrCorrupt, b.Name), nil
		}
		seen[b.Name] = true
		link, why, err := p.link(ctx, b)
		if why != nil || err != nil {
			return why, err
		}
		s.Links = append(s.Links, link)
		for _, part := range link.Parts {
			s.StoredSize += part.Size
			raw += part.RawSize
		}
		known = known && link.Manifest
		if !b.Delta() {
			break
		}
		parent, ours := *b.Sentinel.DeltaFrom, b.Manifest != nil
		if b, err = p.src.Backup(ctx, parent); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: its parent %s is gone", archive.ErrCorrupt, parent), nil
		} else if err != nil {
			return nil, err
		}
		if ours && b.Manifest == nil {
			// We build on nothing that has none, and without it nobody can tell whether all of it is there.
			return fmt.Errorf("%w: the manifest of its parent %s is gone", archive.ErrCorrupt, parent), nil
		}
	}
	slices.Reverse(s.Links)
	if s.RawSize = raw; !known {
		s.RawSize = b.Sentinel.UncompressedSize // of the full one; a delta's pages mostly replace others
	}
	return nil, nil
}

// link compares the parts that lie in the store with those that must be there.
func (p *planner) link(ctx context.Context, b archive.Backup) (l Link, why, err error) {
	l = Link{Name: b.Name, NoMetadata: b.Sentinel.FilesMetadataDisabled}
	there, err := p.src.Parts(ctx, b.Name)
	if err != nil {
		return l, nil, err
	}
	if b.Sentinel.Spec != nil {
		l.Tablespaces, l.TablespacesKnown = b.Sentinel.Spec.Tablespaces, true
	}
	if b.Manifest == nil {
		l.Parts = there
		if len(there) == 0 {
			return l, fmt.Errorf("%w: it has no parts", archive.ErrCorrupt), nil
		}
		return l, nil, nil
	}
	l.Manifest, l.Parts, l.FilesMetadata = true, b.Manifest.Parts, b.Manifest.FilesMetadata
	l.Tablespaces, l.TablespacesKnown = b.Manifest.Tablespaces, true
	sizes := map[string]int64{}
	for _, part := range there {
		sizes[part.Name] = part.Size
	}
	for _, part := range l.Parts {
		size, ok := sizes[part.Name]
		if !ok {
			return l, fmt.Errorf("%w: part %s is missing", archive.ErrCorrupt, part.Name), nil
		}
		if size != part.Size {
			return l, fmt.Errorf("%w: part %s has %d bytes instead of %d", archive.ErrCorrupt, part.Name, size, part.Size), nil
		}
	}
	if len(l.Parts) == 0 {
		return l, fmt.Errorf("%w: its manifest names no parts", archive.ErrCorrupt), nil
	}
	return l, nil, nil
}
