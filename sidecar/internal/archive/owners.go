package archive

import (
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// owned is a stretch of a timeline that one epoch owns.
type owned struct {
	epoch    uint64
	from, to wal.LSN
	replaces bool // see Epoch.Replaces
}

// Owners tells which epoch owns which stretch of one timeline, in order of the epochs.
type Owners []owned

// Owners of timeline t are the epoch that claimed it first and later ones, from where they said they continue it.
func (inv *Inventory) Owners(t wal.Timeline) Owners {
	var all Owners
	if c, ok := inv.Claims[t]; ok {
		all = append(all, owned{epoch: c.Epoch, to: MaxLSN}) // from 0: the fork segment begins before the switch
	}
	for _, e := range inv.Epochs {
		if e.Timeline == t {
			all = all.add(e)
		}
	}
	return all
}

// With adds an epoch of the timeline; one that is not higher than all others changes nothing.
func (all Owners) With(e Epoch) Owners { return slices.Clone(all).add(e) }

// add is With in place.
func (all Owners) add(e Epoch) Owners {
	n := len(all)
	if n > 0 && e.Number <= all[n-1].epoch {
		return all
	}
	from := e.Since
	if n == 0 {
		from = 0
	}
	// Each ends where the first of those after it begins, so no end is before that of an earlier epoch.
	for i := n - 1; i >= 0 && all[i].to > from; i-- {
		all[i].to = from
	}
	return append(all, owned{epoch: e.Number, from: from, to: MaxLSN, replaces: e.Replaces})
}

func (all Owners) find(epoch uint64) *owned {
	for i := range all {
		if all[i].epoch == epoch {
			return &all[i]
		}
	}
	return nil
}

// End is the first position of which a sealed object says nothing that counts: past the start of an epoch that has
// superseded its writer, it is that one's to say. A superseded writer seals on until it notices. What has no epoch is
// not of ours, and counts.
func (all Owners) End(s SegmentInfo, z wal.SegmentSize) wal.LSN {
	end := s.End(z)
	if !s.Known || s.Epoch == 0 {
		return end
	}
	for _, o := range all {
		if o.replaces && o.epoch > s.Epoch {
			end = min(end, o.from)
		}
	}
	return max(end, s.Segment.Start(z))
}

// Whole tells whether a segment is sealed and its object counts to its end, so that its chunks say nothing more.
func (inv *Inventory) Whole(s wal.Segment) bool {
	info, ok := inv.Sealed[s]
	return ok && inv.Owners(s.Timeline).End(info, inv.Size) == s.End(inv.Size)
}

// Overtaken tells whether a snapshot ends where another writer than its own had begun to own the timeline: then what it
// holds is not what the archive's WAL leads to. It is false where that cannot be told.
func (inv *Inventory) Overtaken(k Backup) bool {
	if k.Manifest == nil {
		return false
	}
	for _, o := range inv.Owners(k.Timeline()) {
		if o.epoch == k.Manifest.Epoch {
			return k.Stop() > o.to
		}
	}
	return false
}

// WroteAfter tells whether an epoch has stored WAL of a timeline past a position, as far as that was its to write.
func (inv *Inventory) WroteAfter(epoch uint64, t wal.Timeline, at wal.LSN) bool {
	o := inv.Owners(t).find(epoch)
	return o != nil && at < o.to && len(inv.Follow(t, at, at+1)) > 0
}

// LostPast is where an epoch's WAL of a timeline stopped counting because another had taken over; MaxLSN if none has.
func (inv *Inventory) LostPast(epoch uint64, t wal.Timeline) wal.LSN {
	if o := inv.Owners(t).find(epoch); o != nil {
		return o.to
	}
	return MaxLSN
}
