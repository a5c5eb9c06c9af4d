package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

const (
	// stillThereInterval is how often the newest snapshot is looked for: rarely enough to cost nothing, and often enough
	// to find out while older WAL that somebody may still have is worth something.
	stillThereInterval = 24 * time.Hour
	// stillThereRetry is the pause after a look that could not tell.
	stillThereRetry = time.Hour
)

// lookAfterSnapshots sees once in a while whether the snapshot that a restore would begin with is still there, with all
// that it is built on. A lifecycle rule of the bucket or a person may have deleted it; an idle database takes no other,
// and would be called protected for ever.
func (v *voyage) lookAfterSnapshots(ctx context.Context, now time.Time) {
	if v.lookedAfter.IsZero() {
		v.lookedAfter = now // they were all read when the voyage began
	}
	if now.Sub(v.lookedAfter) < stillThereInterval {
		return
	}
	v.lookedAfter = now
	for {
		v.mu.Lock()
		n := len(v.snapshots)
		var newest string
		if n > 0 {
			newest = v.snapshots[n-1].Name
		}
		v.mu.Unlock()
		if n == 0 {
			return
		}
		chain, broken, err := stands(ctx, v.arch, newest)
		if err != nil {
			v.lookedAfter = now.Add(stillThereRetry - stillThereInterval)
			if ctx.Err() == nil {
				v.log.Warn("whether the newest snapshot is still in the archive could not be told", "snapshot", newest, "error", err)
			}
			return
		}
		if broken == nil {
			return
		}
		v.log.Error("a snapshot cannot be restored any more", "snapshot", newest, "error", broken)
		v.note("snapshot_gone", "name", newest, "reason", broken.Error())
		v.forget(func(b archive.Backup) bool { return slices.Contains(chain, b.Name) })
	}
}

// stands follows a snapshot down to the full one that it is built on, with three requests for each: the two documents
// and a listing of the parts. broken says what is missing or damaged, and chain what cannot be restored without that.
func stands(ctx context.Context, a *archive.Archive, name string) (chain []string, broken, err error) {
	for !slices.Contains(chain, name) {
		chain = append(chain, name)
		b, err := a.Backup(ctx, name)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, archive.ErrCorrupt) {
			return chain, err, nil
		}
		if err != nil {
			return chain, nil, err
		}
		if broken, err = partsStand(ctx, a, b); broken != nil || err != nil {
			return chain, broken, err
		}
		if !b.Delta() {
			return chain, nil, nil
		}
		name = *b.Sentinel.DeltaFrom
	}
	return chain, fmt.Errorf("%w: snapshot %s is built on itself", archive.ErrCorrupt, name), nil
}

// partsStand looks for the parts in a listing. Of a snapshot of WAL-G's nothing says which there should be.
func partsStand(ctx context.Context, a *archive.Archive, b archive.Backup) (broken, err error) {
	if b.Manifest == nil {
		return nil, nil
	}
	there, err := a.Parts(ctx, b.Name)
	if err != nil {
		return nil, err
	}
	for _, p := range b.Manifest.Parts {
		if !slices.ContainsFunc(there, func(x archive.Part) bool { return x.Name == p.Name && x.Size == p.Size }) {
			return fmt.Errorf("%w: snapshot %s has no part %s of %d bytes", archive.ErrCorrupt, b.Name, p.Name, p.Size), nil
		}
	}
	return nil, nil
}
