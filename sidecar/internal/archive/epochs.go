package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"outrider.dev/sidecar/internal/wal"
)

// Epochs reads all claims, lowest first.
func (a *Archive) Epochs(ctx context.Context) ([]Epoch, error) {
	keys, err := a.numbered(ctx, epochsDir)
	if err != nil {
		return nil, err
	}
	return readEach(ctx, keys, func(ctx context.Context, key string) (e Epoch, err error) {
		info, err := a.readJSON(ctx, key, &e)
		e.ModTime = info.LastModified
		if n, _ := parseNumberedKey(epochsDir, key); err == nil && e.Number != n {
			err = fmt.Errorf("reading %s: %w: it says epoch %d", key, ErrCorrupt, e.Number)
		}
		return e, err
	})
}

// Epoch reads one claim; fs.ErrNotExist if nobody made it.
func (a *Archive) Epoch(ctx context.Context, n uint64) (Epoch, error) {
	var e Epoch
	info, err := a.readJSON(ctx, numberedKey(epochsDir, n), &e)
	e.ModTime = info.LastModified
	return e, err
}

// EpochAfter tells whether any epoch above n was claimed, in one cheap request.
func (a *Archive) EpochAfter(ctx context.Context, n uint64) (bool, error) {
	for o, err := range a.bucket.List(ctx, epochsDir, numberedKey(epochsDir, n)) {
		if err != nil {
			return false, fmt.Errorf("looking for an epoch above %d: %w", n, err)
		}
		if m, ok := parseNumberedKey(epochsDir, o.Key); ok && m > n {
			return true, nil
		}
	}
	return false, nil
}

// ClaimEpoch creates the claim e; fs.ErrExist if somebody else has that number.
func (a *Archive) ClaimEpoch(ctx context.Context, e Epoch) error {
	e.Format, e.ClaimedAt = Format, utc(e.ClaimedAt)
	return a.createJSON(ctx, numberedKey(epochsDir, e.Number), e)
}

// Timelines reads all claims of timelines, lowest first.
func (a *Archive) Timelines(ctx context.Context) ([]TimelineClaim, error) {
	keys, err := a.numbered(ctx, timelinesDir)
	if err != nil {
		return nil, err
	}
	return readEach(ctx, keys, func(ctx context.Context, key string) (c TimelineClaim, err error) {
		info, err := a.readJSON(ctx, key, &c)
		c.ModTime = info.LastModified
		if n, _ := parseNumberedKey(timelinesDir, key); err == nil && uint64(c.Timeline) != n {
			err = fmt.Errorf("reading %s: %w: it says timeline %d", key, ErrCorrupt, c.Timeline)
		}
		return c, err
	})
}

// ClaimTimeline creates the claim c. A claim of the same epoch with the same parent and switch is success;
// anybody else's is ErrConflict.
func (a *Archive) ClaimTimeline(ctx context.Context, c TimelineClaim) error {
	c.Format, c.ClaimedAt = Format, utc(c.ClaimedAt)
	key := numberedKey(timelinesDir, uint64(c.Timeline))
	err := a.createJSON(ctx, key, c)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	var there TimelineClaim
	if _, err := a.readJSON(ctx, key, &there); err != nil {
		return err
	}
	if there.Epoch != c.Epoch || there.Parent != c.Parent || there.Switch != c.Switch || there.Instance != c.Instance {
		return fmt.Errorf("claiming timeline %d at %s for epoch %d: epoch %d has claimed it at %s: %w",
			c.Timeline, c.Switch, c.Epoch, there.Epoch, there.Switch, ErrConflict)
	}
	return nil
}

// PutReceipt writes how epoch r.Epoch ended, replacing what its owner said before.
func (a *Archive) PutReceipt(ctx context.Context, r Receipt) error {
	r.Format, r.FinishedAt = Format, utc(r.FinishedAt)
	return a.replaceJSON(ctx, numberedKey(receiptsDir, r.Epoch), r)
}

// Receipt reads how epoch n ended; fs.ErrNotExist if nothing was said.
func (a *Archive) Receipt(ctx context.Context, n uint64) (Receipt, error) {
	var r Receipt
	_, err := a.readJSON(ctx, numberedKey(receiptsDir, n), &r)
	return r, err
}

// Beat writes a heartbeat.
func (a *Archive) Beat(ctx context.Context, h Heartbeat) error {
	h.Format = Format
	return a.replaceJSON(ctx, numberedKey(heartbeatsDir, h.Epoch), h)
}

// Heartbeat reads the last one of epoch n with the object's times, both by the store's clock.
func (a *Archive) Heartbeat(ctx context.Context, n uint64) (Heartbeat, ObjectInfo, error) {
	var h Heartbeat
	info, err := a.readJSON(ctx, numberedKey(heartbeatsDir, n), &h)
	return h, info, err
}

// sortByNumber orders segments by timeline, then number.
func sortSegments(s []wal.Segment) {
	slices.SortFunc(s, func(x, y wal.Segment) int {
		if x.Timeline != y.Timeline {
			return int(int64(x.Timeline) - int64(y.Timeline))
		}
		switch {
		case x.Number < y.Number:
			return -1
		case x.Number > y.Number:
			return 1
		}
		return 0
	})
}
