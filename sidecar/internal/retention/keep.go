package retention

import (
	"cmp"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// stretch is a range of WAL, [from, to).
type stretch struct{ from, to wal.LSN }

// keeper collects what stays.
type keeper struct {
	State
	rules  Rules
	cutoff time.Time
	kept   map[string]string
	needed map[wal.Timeline][]stretch
}

func (k *keeper) keep(b archive.Backup, why string) {
	if _, ok := k.kept[b.Name]; !ok {
		k.kept[b.Name] = why
	}
}

// timelines are those that anything in the archive speaks of, snapshots without WAL included.
func (k *keeper) timelines() []wal.Timeline {
	all := k.Inventory.Timelines()
	for _, b := range k.Backups {
		if !slices.Contains(all, b.Timeline()) {
			all = append(all, b.Timeline())
		}
	}
	slices.Sort(all)
	return all
}

// taken is when a snapshot was complete, by the clock of whoever took it or by the store's, whichever is later; the zero
// time if it does not say. A writer whose clock was behind would have its new snapshot take the place of the last one
// before the window. The store's time of a copy is too late, which only keeps more.
func taken(b archive.Backup) time.Time {
	at := b.Sentinel.FinishTime
	if b.Manifest != nil && !b.Manifest.StopTime.IsZero() {
		at = b.Manifest.StopTime
	}
	if at.IsZero() {
		return at
	}
	return later(at, b.ModTime)
}

func later(x, y time.Time) time.Time {
	if y.After(x) {
		return y
	}
	return x
}

// inWindow is also true of a snapshot that does not say when it was taken.
func (k *keeper) inWindow(b archive.Backup) bool {
	at := taken(b)
	return at.IsZero() || at.After(k.cutoff)
}

// sound tells whether a snapshot is known to be complete and free of damaged pages. Of one by WAL-G, which has no
// manifest, nothing is known.
func sound(b archive.Backup) bool {
	return b.Manifest != nil && len(b.Manifest.Checksums.Bad) == 0
}

// lives tells whether something was written on the branch's last timeline in the window, or could have been: whether a
// moment in the window may lie on it.
func (k *keeper) lives(b archive.Branch) bool {
	for _, x := range k.Backups {
		if x.Timeline() == b.Timeline && !taken(x).IsZero() && k.inWindow(x) {
			return true
		}
	}
	end, ended := k.ended(b.Timeline)
	return !ended || end.After(k.cutoff)
}

// ended is when timeline t lost its last writer: when the epoch after the last one that owned it was claimed, or when
// that owner went on to another timeline itself. ok is false if it has not, or if it cannot be told. As in taken, a claim is
// as old as the younger of its two times: one that was dated back would give up what was left a moment ago.
func (k *keeper) ended(t wal.Timeline) (at time.Time, ok bool) {
	last := k.lastOwner(t)
	if last == 0 && !k.predates(t) {
		return time.Time{}, false
	}
	earliest := func(x time.Time) {
		if !ok || x.Before(at) {
			at, ok = x, true
		}
	}
	for _, e := range k.Inventory.Epochs {
		if e.Number > last {
			earliest(later(e.ClaimedAt, e.ModTime))
		}
	}
	for _, c := range k.Inventory.Claims {
		if c.Parent == t && c.Epoch == last {
			earliest(later(c.ClaimedAt, c.ModTime))
		}
	}
	return at, ok
}

// lastOwner is the highest epoch that wrote on timeline t; 0 if only WAL-G did.
func (k *keeper) lastOwner(t wal.Timeline) uint64 {
	last := k.Inventory.Claims[t].Epoch
	for _, e := range k.Inventory.Epochs {
		if e.Timeline == t {
			last = max(last, e.Number)
		}
	}
	for s, chunks := range k.Inventory.Chunks {
		for _, c := range chunks {
			if s.Timeline == t {
				last = max(last, c.Epoch)
			}
		}
	}
	return last
}

// predates tells whether timeline t is older than all that have ever had an epoch.
func (k *keeper) predates(t wal.Timeline) bool {
	for _, e := range k.Inventory.Epochs {
		if e.Timeline != 0 && e.Timeline <= t {
			return false
		}
	}
	for _, c := range k.Inventory.Claims {
		if c.Timeline <= t {
			return false
		}
	}
	return true
}

// keepBranch keeps the snapshots of a branch that its part of the window needs, and all WAL from the oldest of them on.
func (k *keeper) keepBranch(b archive.Branch, newest bool) {
	var on, before []archive.Backup // before: usable and not younger than the window's begin
	for _, x := range k.Backups {
		if k.Inventory.On(b, x) {
			on = append(on, x)
		}
	}
	if len(on) == 0 {
		k.need(b, 0, archive.MaxLSN)
		return
	}
	usable := k.usable(b)
	chosen := map[string]string{}
	for _, x := range on {
		if k.inWindow(x) {
			chosen[x.Name] = KeptInWindow
		} else if usable[x.Name] {
			before = append(before, x)
		}
	}
	slices.SortStableFunc(before, func(x, y archive.Backup) int { return k.order(x, y) })
	if n := len(before); n > 0 {
		chosen[before[n-1].Name] = KeptAnchor
		if i := k.lastSound(before); i >= 0 && i < n-1 {
			chosen[before[i].Name] = KeptSound
		}
	}
	if newest {
		k.keepMinimum(on, usable, chosen)
	}
	if len(chosen) == 0 {
		// Nothing is in the window and nothing before it can be restored: it cannot be told what would help.
		for _, x := range on {
			chosen[x.Name] = KeptTooFew
		}
	}
	from := archive.MaxLSN
	for _, x := range on {
		why, ok := chosen[x.Name]
		if !ok {
			continue
		}
		k.keep(x, why)
		start, _ := k.Inventory.Extent(x)
		from = min(from, start)
	}
	k.need(b, from, archive.MaxLSN)
}

// usable are the snapshots from which a restore along the branch can begin.
func (k *keeper) usable(b archive.Branch) map[string]bool {
	names := map[string]bool{}
	for _, w := range k.Inventory.Windows(b, k.Backups) {
		for _, x := range w.Snapshots {
			names[x.Name] = true
		}
	}
	return names
}

// order is by position; on one branch positions only grow.
func (k *keeper) order(x, y archive.Backup) int {
	xf, _ := k.Inventory.Extent(x)
	yf, _ := k.Inventory.Extent(y)
	return cmp.Compare(xf, yf)
}

func (k *keeper) lastSound(all []archive.Backup) int {
	for i := len(all) - 1; i >= 0; i-- {
		if k.soundChain(all[i]) {
			return i
		}
	}
	return -1
}

// keepMinimum keeps the newest sound snapshots, and all there are if they are too few.
func (k *keeper) keepMinimum(on []archive.Backup, usable map[string]bool, chosen map[string]string) {
	good := slices.DeleteFunc(slices.Clone(on), func(x archive.Backup) bool { return !usable[x.Name] || !k.soundChain(x) })
	slices.SortStableFunc(good, func(x, y archive.Backup) int { return k.order(y, x) })
	why := KeptMinimum
	if len(good) < k.rules.MinBackups {
		good, why = on, KeptTooFew
	} else {
		good = good[:k.rules.MinBackups]
	}
	for _, x := range good {
		if _, ok := chosen[x.Name]; !ok {
			chosen[x.Name] = why
		}
	}
}

// soundChain tells whether a snapshot and all that it is built on are sound.
func (k *keeper) soundChain(b archive.Backup) bool {
	parents, whole := archive.Parents(b, k.Backups)
	return whole && sound(b) && !slices.ContainsFunc(parents, func(p archive.Backup) bool { return !sound(p) })
}

// keepPermanent keeps what was marked as permanent, with the WAL that makes it consistent and no more, as WAL-G does.
func (k *keeper) keepPermanent() {
	for _, x := range k.Backups {
		if !k.Permanent[x.Name] {
			continue
		}
		k.keep(x, KeptPermanent)
		from, to := k.Inventory.Extent(x)
		k.needed[x.Timeline()] = append(k.needed[x.Timeline()], stretch{k.Inventory.Size.Floor(from), to})
	}
}

func (k *keeper) keepParents() {
	for _, x := range k.Backups {
		if _, ok := k.kept[x.Name]; !ok {
			continue
		}
		parents, _ := archive.Parents(x, k.Backups)
		for _, p := range parents {
			k.keep(p, KeptParent)
		}
	}
}

// need keeps the WAL of a branch from one position to another. Whole segments follow from that: a segment is needed if
// any byte of it is, and the first one of a timeline because its bytes from the switch on are.
func (k *keeper) need(b archive.Branch, from, to wal.LSN) {
	for _, g := range b.Legs {
		lo, hi := max(from, g.From), min(to, g.To)
		if lo < hi {
			k.needed[g.Timeline] = append(k.needed[g.Timeline], stretch{lo, hi})
		}
	}
}
