package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/policy"
)

// door leads to the archive. It is opened when the archive can be reached, and stays open: that the store is away when
// the sidecar starts must not keep it from holding the server's WAL.
type door struct {
	open  func(ctx context.Context, sysid uint64) (root, error)
	class string // of storage

	opening sync.Mutex // of whoever enters: it may take as long as a store that is away
	mu      sync.Mutex
	root    root
	census  *census // of root
	last    root    // the one that was tried last, whatever came of it
	proven  *time.Time
}

// errClosed says that the archive has not been reached yet.
var errClosed = errors.New("the archive has not been reached yet")

// enter opens the archive of the database with this system identifier, once.
func (d *door) enter(ctx context.Context, sysid uint64) (*archive.Archive, error) {
	d.opening.Lock()
	defer d.opening.Unlock()
	if arch := d.entered(); arch != nil {
		return arch, nil
	}
	r, err := d.open(ctx, sysid)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = r
	if err != nil {
		return nil, err
	}
	d.proven = new(time.Now().UTC())
	if r.bucket != nil {
		d.census = newCensus(tellingBucket{r.bucket}, d.class)
		r.Archive = archive.New(d.census)
	}
	d.root = r
	return r.Archive, nil
}

// entered is the archive once it was reached, nil before.
func (d *door) entered() *archive.Archive {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.Archive
}

// hidden is where a restore would have to look and may not, "" if there is no such place.
func (d *door) hidden() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.root.hidden
}

// counts are of what lies in the archive; nil as long as it has not been reached.
func (d *door) counts() *census {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.census
}

// Record implements journal.Store: entries wait until the archive was reached.
func (d *door) Record(ctx context.Context, e archive.Entry) error {
	arch := d.entered()
	if arch == nil {
		return errClosed
	}
	return arch.Record(ctx, e)
}

// newDoor leads to the root of the database, after a probe that objects there can be created only once.
func (a *app) newDoor(p policy.Policy) *door {
	return &door{class: p.StorageClass, open: func(ctx context.Context, sysid uint64) (root, error) {
		r, err := a.openGeneration(ctx, p, sysid)
		if err != nil {
			return r, err
		}
		if err := r.bucket.Probe(ctx); err != nil {
			return r, tell(ctx, err)
		}
		return a.foresee(ctx, p, r)
	}}
}

// restoreSource is where a restore on this disk reads from: the own root, or, as long as that is empty or there is none,
// the one that the policy names.
func (a *app) restoreSource(ctx context.Context, p policy.Policy) (*archive.Archive, error) {
	if p.Archive != "" {
		ours, err := a.openGeneration(ctx, p, 0)
		if err != nil || p.RestoreFrom == "" {
			return ours.Archive, err
		}
		empty, err := ours.Empty(ctx)
		if err != nil || !empty {
			return ours.Archive, err
		}
	}
	from, err := a.openNamed(ctx, p, p.RestoreFrom)
	return from.Archive, err
}
