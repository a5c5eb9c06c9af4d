// Package retention decides what of an archive is no longer needed, and deletes it.
//
// Deciding is a pure function, Make: it orders by timeline and position, takes times only from manifests, sentinels and
// claims, and never one that is earlier than the store's time of these objects: a writer's clock may be behind. Where
// something cannot be told it keeps. What it keeps:
//
//   - every snapshot in the recovery window, and the last one before it, so that each moment in the window can be
//     restored; if that one has damaged pages or cannot be checked, also the last sound one;
//   - the newest sound snapshots of the newest branch, up to a minimum number, whatever their age;
//   - the parents of every delta that is kept, and what WAL-G has marked as permanent;
//   - of each branch that lived in the window all WAL from its oldest kept snapshot on, and all of it where there is no
//     snapshot yet;
//   - claims, histories, receipts and the journal, always.
//
// Deleting (Run) marks before it sweeps, and decides again after it has marked: only what both decisions give up goes.
package retention

import (
	"errors"
	"fmt"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// ErrBusy says that a restore is under way: it may need what looks expired, and which branch is the newest is open.
var ErrBusy = errors.New("a restore is under way")

// Rules are what the policy asks for.
type Rules struct {
	Window     time.Duration // every moment that is not older than this can be restored
	MinBackups int           // sound snapshots that are kept whatever their age, at least 1
}

// State is all of an archive that matters for the decision.
type State struct {
	Inventory *archive.Inventory
	Backups   []archive.Backup // all that exist
	Permanent map[string]bool  // by name
	Dirs      []archive.BackupDir
	Marks     []archive.Expiry // of runs that were cut short
	Now       time.Time        // by the store's clock
}

// Plan is what goes, in the order in which it is deleted, and why the rest stays.
type Plan struct {
	Cutoff   time.Time
	Backups  []archive.Backup // youngest first, so that no delta outlives its parent
	Debris   []archive.BackupDir
	Segments []archive.SegmentInfo // lowest first, so that what remains has no gap
	Chunks   []archive.Chunk       // of expired segments
	// Sealed are chunks whose segment has been sealed. Deleting one needs another look at the segment: it must be whole.
	Sealed []archive.Chunk
	Kept   map[string]string // name of each snapshot that stays, and the reason
}

// Empty tells whether nothing goes.
func (p Plan) Empty() bool {
	return len(p.Backups)+len(p.Debris)+len(p.Segments)+len(p.Chunks)+len(p.Sealed) == 0
}

// Reasons why a snapshot stays.
const (
	KeptInWindow  = "within the recovery window"
	KeptAnchor    = "the last one before the recovery window"
	KeptSound     = "the last sound one before the recovery window"
	KeptMinimum   = "one of the newest sound ones that always stay"
	KeptTooFew    = "there are fewer sound ones than always stay"
	KeptPermanent = "marked as permanent"
	KeptParent    = "a snapshot that stays is built on it"
)

// Make decides. An error means that the archive is not in a state in which anything may be deleted; nothing is then.
func Make(s State, r Rules) (Plan, error) {
	if r.Window <= 0 || r.MinBackups < 1 {
		return Plan{}, fmt.Errorf("retention %s with at least %d snapshots: both must be positive", r.Window, r.MinBackups)
	}
	if err := idle(s.Inventory); err != nil {
		return Plan{}, err
	}
	k := keeper{State: s, rules: r, cutoff: s.Now.Add(-r.Window), kept: map[string]string{}, needed: map[wal.Timeline][]stretch{}}
	newest, err := s.Inventory.Newest()
	if err != nil && !errors.Is(err, archive.ErrNoBranch) {
		return Plan{}, fmt.Errorf("deciding what has expired: %w", err)
	}
	for _, t := range k.timelines() {
		b, err := s.Inventory.Branch(t)
		if err != nil {
			return Plan{}, fmt.Errorf("deciding what has expired: %w", err)
		}
		if k.lives(b) {
			k.keepBranch(b, false)
		}
	}
	if newest.Timeline != 0 {
		k.keepBranch(newest, true)
	}
	k.keepPermanent()
	k.keepParents()
	p := Plan{Cutoff: k.cutoff, Kept: k.kept}
	p.Backups = k.expiredBackups()
	p.Debris = k.debris()
	p.Segments, p.Chunks, p.Sealed = k.expiredWAL()
	return p, nil
}

// idle refuses while the newest epoch owns no timeline: its restore has not been promoted yet.
func idle(inv *archive.Inventory) error {
	if len(inv.Epochs) == 0 {
		return nil
	}
	e := inv.Epochs[len(inv.Epochs)-1]
	if e.Timeline != 0 {
		return nil
	}
	for _, c := range inv.Claims {
		if c.Epoch == e.Number {
			return nil
		}
	}
	who := e.Writer.Pod
	if who == "" {
		who = e.Writer.Host
	}
	return fmt.Errorf("%w: epoch %d (%s) was claimed at %s and has not begun to write: try again once it has",
		ErrBusy, e.Number, who, e.ClaimedAt.Format(time.RFC3339))
}
