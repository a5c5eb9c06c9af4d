package archive

import "outrider.dev/sidecar/internal/wal"

// owned is a stretch of a timeline that one epoch owns.
type owned struct {
	epoch    uint64
	from, to wal.LSN
}

// owners tells, for timeline t, which epoch owns which stretch: the epoch that claimed the timeline first, later ones
// from where they said they continue it.
func (inv *Inventory) owners(t wal.Timeline) []owned {
	var all []owned
	if c, ok := inv.Claims[t]; ok {
		all = append(all, owned{epoch: c.Epoch, to: MaxLSN}) // from 0: the fork segment begins before the switch
	}
	for _, e := range inv.Epochs {
		if e.Timeline != t || (len(all) > 0 && e.Number <= all[len(all)-1].epoch) {
			continue
		}
		from := e.Since
		if len(all) == 0 {
			from = 0
		}
		for i := range all {
			all[i].to = min(all[i].to, from)
		}
		all = append(all, owned{epoch: e.Number, from: from, to: MaxLSN})
	}
	return all
}

// Overtaken tells whether a snapshot ends where another writer than its own had begun to own the timeline: then what it
// holds is not what the archive's WAL leads to. It is false where that cannot be told.
func (inv *Inventory) Overtaken(k Backup) bool {
	if k.Manifest == nil {
		return false
	}
	for _, o := range inv.owners(k.Timeline()) {
		if o.epoch == k.Manifest.Epoch {
			return k.Stop() > o.to
		}
	}
	return false
}

func ownerOf(owners []owned, epoch uint64) *owned {
	for i := range owners {
		if owners[i].epoch == epoch {
			return &owners[i]
		}
	}
	return nil
}

// WroteAfter tells whether an epoch has stored WAL of a timeline past a position, as far as that was its to write.
func (inv *Inventory) WroteAfter(epoch uint64, t wal.Timeline, at wal.LSN) bool {
	o := ownerOf(inv.owners(t), epoch)
	return o != nil && at < o.to && len(inv.Follow(t, at, at+1)) > 0
}

// LostPast is where an epoch's WAL of a timeline stopped counting because another had taken over; MaxLSN if none has.
func (inv *Inventory) LostPast(epoch uint64, t wal.Timeline) wal.LSN {
	if o := ownerOf(inv.owners(t), epoch); o != nil {
		return o.to
	}
	return MaxLSN
}
