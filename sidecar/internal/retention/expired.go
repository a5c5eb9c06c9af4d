package retention

import (
	"cmp"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// expiredBackups are all that nothing keeps, youngest first.
func (k *keeper) expiredBackups() []archive.Backup {
	var gone []archive.Backup
	for _, x := range k.Backups {
		if _, ok := k.kept[x.Name]; !ok {
			gone = append(gone, x)
		}
	}
	slices.SortStableFunc(gone, func(x, y archive.Backup) int { return compareNames(y.Name, x.Name) })
	return gone
}

// compareNames orders snapshots by timeline and segment, which is what their names begin with, whatever the size of
// segments.
func compareNames(x, y string) int { return cmp.Compare(x, y) }

// expiredWAL splits the archive's WAL into what is needed and what is not.
func (k *keeper) expiredWAL() (segments []archive.SegmentInfo, chunks, sealed []archive.Chunk) {
	for _, s := range k.Inventory.Segments() {
		if !k.isNeeded(s) {
			segments = append(segments, k.Inventory.Sealed[s])
		}
	}
	for s, all := range k.Inventory.Chunks {
		switch {
		case !k.isNeeded(s):
			chunks = append(chunks, all...)
		case k.Inventory.Whole(s):
			sealed = append(sealed, all...)
		}
	}
	slices.SortFunc(chunks, compareChunks)
	slices.SortFunc(sealed, compareChunks)
	return segments, chunks, sealed
}

func compareChunks(x, y archive.Chunk) int {
	return cmp.Or(cmp.Compare(x.Segment.Timeline, y.Segment.Timeline), cmp.Compare(x.From, y.From),
		cmp.Compare(x.To, y.To), cmp.Compare(x.Epoch, y.Epoch))
}

func (k *keeper) isNeeded(s wal.Segment) bool {
	from, to := s.Start(k.Inventory.Size), s.End(k.Inventory.Size)
	return slices.ContainsFunc(k.needed[s.Timeline], func(n stretch) bool { return n.from < to && from < n.to })
}

// quiet is how long nothing must have been written to a nameless attempt before it counts as dead. An attempt of ours
// carries a claim, which tells more; WAL-G's do not.
const quiet = 24 * time.Hour

// debris are directories of snapshots that never came to exist: attempts that a later one has overtaken.
func (k *keeper) debris() []archive.BackupDir {
	var dead []archive.BackupDir
	var current uint64
	if n := len(k.Inventory.Epochs); n > 0 {
		current = k.Inventory.Epochs[n-1].Number
	}
	for _, d := range k.Dirs {
		if !d.Sentinel && (k.marked(d.Name) || k.overtaken(d, current)) {
			dead = append(dead, d)
		}
	}
	return dead
}

// marked tells whether an earlier run had begun to delete the snapshot.
func (k *keeper) marked(name string) bool {
	return slices.ContainsFunc(k.Marks, func(m archive.Expiry) bool {
		return slices.Contains(m.Backups, name) || slices.Contains(m.Debris, name)
	})
}

// overtaken tells whether an attempt is over. One writer takes one snapshot at a time, so an attempt is dead once its
// own epoch has completed a later one; an attempt of an earlier epoch is dead once anybody has.
func (k *keeper) overtaken(d archive.BackupDir, current uint64) bool {
	later := func(b archive.Backup) bool { return compareNames(b.Name, d.Name) > 0 }
	switch {
	case d.Claim == nil:
		return k.Now.Sub(d.Newest) > quiet && slices.ContainsFunc(k.Backups, later)
	case d.Claim.Epoch == current:
		return slices.ContainsFunc(k.Backups, func(b archive.Backup) bool {
			return later(b) && b.Manifest != nil && b.Manifest.Epoch == current
		})
	default:
		return d.Claim.Epoch < current && slices.ContainsFunc(k.Backups, later)
	}
}
