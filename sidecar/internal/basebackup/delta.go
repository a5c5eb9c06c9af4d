package basebackup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Limits of a chain of deltas, all of them for the sake of the restore, which has to read it whole.
const (
	// maxDeltas makes one in 24 snapshots a full one: with a snapshot each hour one a day.
	maxDeltas = 23
	// A delta that stored more than this share of the full snapshot is the last one of its chain.
	maxDeltaShare = 0.4
	// maxListed bounds the files of a snapshot that a delta is built on: their list is held in memory.
	maxListed = 250_000
)

// errNeedsFull says that a delta cannot be completed and a full snapshot can.
var errNeedsFull = errors.New("this cannot be a delta")

// foundation chooses what the next snapshot is built on: the newest of the known ones and, after it, all that it is
// built on itself. It returns none, and why, if the next one has to be full. It is a pure function.
//
// A parent must be one of ours, whose manifest proves it whole and whose list of files tells what has changed, without
// damaged pages, and of the same server with the same page checksums: turning them on changes pages and not their LSNs.
func foundation(known []archive.Backup, f Facts) (chain []archive.Backup, why string) {
	if len(known) == 0 {
		return nil, "there is no snapshot to build on"
	}
	parent := slices.MaxFunc(known, func(x, y archive.Backup) int {
		return cmp.Or(cmp.Compare(x.Timeline(), y.Timeline()), cmp.Compare(x.Start(), y.Start()))
	})
	above, whole := archive.Parents(parent, known)
	if !whole {
		return nil, "a snapshot that the last one is built on is not there"
	}
	chain = append([]archive.Backup{parent}, above...)
	for _, b := range chain {
		if why := unfit(b, f); why != "" {
			return nil, fmt.Sprintf("%s %s", b.Name, why)
		}
	}
	m, full := parent.Manifest, chain[len(chain)-1].Manifest
	_, stored := m.Restored()
	switch {
	case m.FileList == nil:
		return nil, "the last snapshot has no list of its files"
	case m.Files > maxListed || m.Delta != nil && listed(*m) > maxListed:
		return nil, fmt.Sprintf("there are more than %d files", maxListed)
	case len(above) >= maxDeltas:
		return nil, fmt.Sprintf("there are %d deltas on %s", len(above), full.Name)
	case m.Delta != nil && float64(m.StoredSize) > maxDeltaShare*float64(full.StoredSize):
		return nil, fmt.Sprintf("the last delta stored %d bytes and its full snapshot %d: too much has changed", m.StoredSize, full.StoredSize)
	case stored > 2*full.StoredSize:
		return nil, fmt.Sprintf("all deltas together stored more than their full snapshot, %d bytes", full.StoredSize)
	}
	return chain, ""
}

func listed(m archive.Manifest) int {
	return m.Delta.WholeFiles + m.Delta.PatchedFiles + m.Delta.UnchangedFiles
}

// unfit tells why a snapshot must not be in a chain; "" if nothing speaks against it.
func unfit(b archive.Backup, f Facts) string {
	m := b.Manifest
	switch {
	case m == nil:
		return "was not taken by us"
	case m.SystemIdentifier != f.SystemIdentifier:
		return "is of another database"
	case m.CatalogVersion != f.CatalogVersion || m.ServerVersion/10000 != f.VersionNum/10000:
		return "is of another major version of the server"
	case m.Checksums.Enabled != f.DataChecksums:
		return "was taken when page checksums were turned on or off"
	case len(m.Checksums.Bad) > 0:
		return "has damaged pages"
	case b.Delta() != (m.Delta != nil) || m.Delta != nil && *b.Sentinel.DeltaFrom != m.Delta.Parent:
		return "has a manifest that does not fit its sentinel"
	}
	return ""
}

// base is what a delta is built on.
type base struct {
	chain []archive.Backup // the parent, what it is built on, and so on to the full snapshot
	list  archive.FileList // of the parent
	facts Facts            // of now
}

func (b *base) parent() archive.Backup { return b.chain[0] }
func (b *base) full() archive.Backup   { return b.chain[len(b.chain)-1] }

// since is the position from which on a change of a page is not in the parent.
func (b *base) since() wal.LSN { return b.parent().Manifest.Start }

// name is that of a delta whose full snapshot would be called name.
func (b *base) name(name string) string { return name + "_D_" + startSegment(b.parent().Name) }

// base finds what the next snapshot is built on; nil if it has to be full. Only cancelling is an error: a full snapshot
// is right whenever anything about a delta is in doubt.
func (t *Taker) base(ctx context.Context, f Facts) (*base, error) {
	if t.cfg.Lists == nil || t.cfg.Full {
		return nil, nil
	}
	b := &base{facts: f}
	why := ""
	if b.chain, why = foundation(t.cfg.Known, f); why != "" {
		t.cfg.Log.Info("the snapshot will be a full one", "reason", why)
		return nil, nil
	}
	err := t.whole(ctx, b.chain)
	if err == nil {
		b.list, err = t.cfg.Lists.FileList(ctx, b.parent().Name, *b.parent().Manifest.FileList)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		t.cfg.Log.Warn("the snapshot will be a full one: the last one cannot be built on", "parent", b.parent().Name, "error", err)
		return nil, nil
	}
	return b, nil
}

// whole makes sure that all parts of a chain lie in the store with the sizes that their manifests tell. A delta on less
// would be lost from the beginning.
func (t *Taker) whole(ctx context.Context, chain []archive.Backup) error {
	for _, b := range chain {
		there, err := t.cfg.Archive.Parts(ctx, b.Name)
		if err != nil {
			return err
		}
		for _, p := range b.Manifest.Parts {
			if !slices.ContainsFunc(there, func(x archive.Part) bool { return x.Name == p.Name && x.Size == p.Size }) {
				return fmt.Errorf("%s: %w: part %s is missing or has another size", b.Name, archive.ErrCorrupt, p.Name)
			}
		}
	}
	return nil
}

// exists makes sure that no snapshot of the chain has been deleted meanwhile.
func (b *base) exists(ctx context.Context, lists Lists) error {
	for _, k := range b.chain {
		if _, err := lists.Backup(ctx, k.Name); err != nil {
			return fmt.Errorf("%w: looking for %s, which it is built on: %w", errNeedsFull, k.Name, err)
		}
	}
	return nil
}

// unchanged tells that a file is as it was when the parent, or one before it, read it: the same inode with the same
// size and times, to the nanosecond, and not changed so shortly before that a second change could have left no trace.
// Nobody can set the time of the inode's last change, so two file systems that agree in all of this hold copies of each
// other.
func (b *base) unchanged(now archive.FileState) (archive.FileState, bool) {
	old, ok := b.list.Files[now.Name]
	return old, ok && old.Size == now.Size && old.MTime == now.MTime && old.CTime == now.CTime && old.Inode == now.Inode &&
		old.Device == now.Device && now.MTime < b.list.Settled.UnixNano()
}

// patchable tells that of a file only pages have to be stored, and what it was when the parent was taken.
func (b *base) patchable(e entry, now archive.FileState) (old archive.FileState, ok bool) {
	if b.facts.BlockSize != incrementPage || !isMainFork(e) || now.Size <= incrementPage || now.Size%incrementPage != 0 || now.Size > maxIncrement {
		return old, false
	}
	old, ok = b.list.Files[now.Name]
	if !ok || !b.facts.DataChecksums && old.Visible == nil {
		return old, false
	}
	return old, old.Inode == now.Inode && old.Born == now.Born || b.sameDatabase(now.Name)
}

// sameDatabase tells that a relation's file which is not the same inode, because the data directory was restored or
// moved, belongs to the same database all the same. A database that was dropped and made again under the same object id
// can hold pages of its template, whose LSNs are older than the parent.
func (b *base) sameDatabase(name string) bool {
	oid, err := strconv.ParseUint(path.Base(path.Dir(name)), 10, 32)
	if err != nil {
		return false
	}
	before, now := b.list.Databases[uint32(oid)], b.facts.Databases[uint32(oid)]
	return before != "" && before == now
}

// isMainFork tells whether an entry is a file of a relation's main fork in a database. The other forks change without a
// trace in the LSNs of their pages, and shared catalogs are never large.
func isMainFork(e entry) bool {
	name := e.name()
	return e.segment != noRelation && isDatabase(path.Dir(name)) && !strings.Contains(path.Base(name), "_")
}
