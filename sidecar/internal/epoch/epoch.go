// Package epoch decides who may write. Each start of a writer claims the next epoch by creating its document once;
// whoever sees a higher epoch than its own has been superseded and stops for good. Heartbeats only make a restore
// wait politely for a live predecessor: no safety rests on them.
package epoch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// ErrSuperseded says that another writer has claimed a higher epoch.
var ErrSuperseded = errors.New("another writer has taken over this archive")

// ErrForeign says that the archive is written from another Kubernetes cluster.
var ErrForeign = errors.New("the archive belongs to a database of another Kubernetes cluster")

// Store is the part of the archive where claims are kept.
type Store interface {
	Epochs(ctx context.Context) ([]archive.Epoch, error)
	EpochAfter(ctx context.Context, n uint64) (bool, error)
	ClaimEpoch(ctx context.Context, e archive.Epoch) error
	Beat(ctx context.Context, h archive.Heartbeat) error
}

// Request is what a writer asks for. Timeline and Since are zero for a restore, which owns what it promotes to.
type Request struct {
	Writer   archive.Identity
	Timeline wal.Timeline
	Since    wal.LSN
	TakeOver string // id of the Kubernetes cluster whose epoch may be continued here
}

// maxRaces bounds how often a claim that lost against another is tried again. Each loss means that somebody else
// claimed in between, so it only ever grows with the number of racing writers.
const maxRaces = 10

// Claim makes the writer the owner of the newest epoch. A writer that has the newest one already continues it (a
// restarted sidecar of the same pod). A writer that had one and lost it gets ErrSuperseded, not a new one: otherwise
// two pods would fence each other for ever.
func Claim(ctx context.Context, store Store, r Request) (e archive.Epoch, continued bool, err error) {
	if r.Writer.Instance == "" {
		return e, false, errors.New("claiming an epoch: the writer has no instance id")
	}
	for range maxRaces {
		all, err := store.Epochs(ctx)
		if err != nil {
			return e, false, fmt.Errorf("claiming an epoch: %w", err)
		}
		own, newest, err := judge(all, r)
		if err != nil || own {
			return newest, own, err
		}
		e = archive.Epoch{
			Number: newest.Number + 1, Writer: r.Writer, ClaimedAt: time.Now(), Timeline: r.Timeline, Since: r.Since,
			Replaces: r.Timeline != 0,
		}
		if foreign(newest, r) {
			e.TakeOver = newest.Writer.Kubernetes
		}
		err = store.ClaimEpoch(ctx, e)
		if err == nil {
			return e, false, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return e, false, fmt.Errorf("claiming epoch %d: %w", e.Number, err)
		}
	}
	return e, false, fmt.Errorf("claiming an epoch: lost %d races in a row: several writers of the same database are starting, stop all but one", maxRaces)
}

// Judge tells, without changing anything, which epoch the writer has or would get next after all of these, or why it
// may not have one: ErrSuperseded, ErrForeign.
func Judge(all []archive.Epoch, r Request) (uint64, error) {
	own, newest, err := judge(all, r)
	if own || err != nil {
		return newest.Number, err
	}
	return newest.Number + 1, nil
}

func judge(all []archive.Epoch, r Request) (own bool, newest archive.Epoch, err error) {
	if len(all) == 0 {
		return false, newest, nil
	}
	newest = all[len(all)-1]
	if newest.Writer.Instance == r.Writer.Instance {
		return true, newest, nil
	}
	for _, e := range all {
		if e.Writer.Instance == r.Writer.Instance {
			return false, newest, fmt.Errorf("%w: epoch %d was ours, epoch %d belongs to %s", ErrSuperseded, e.Number, newest.Number, Describe(newest.Writer))
		}
	}
	if foreign(newest, r) && r.TakeOver != newest.Writer.Kubernetes {
		return false, newest, fmt.Errorf("%w: epoch %d was claimed by %s of cluster %q, this is cluster %q: to move the database here for good set take-over to %q, to make a copy set restore-from and another cluster name",
			ErrForeign, newest.Number, Describe(newest.Writer), newest.Writer.Kubernetes, r.Writer.Kubernetes, newest.Writer.Kubernetes)
	}
	return false, newest, nil
}

func foreign(newest archive.Epoch, r Request) bool {
	was, is := newest.Writer.Kubernetes, r.Writer.Kubernetes
	return newest.Number > 0 && was != "" && was != is
}

// Describe names a writer for people.
func Describe(w archive.Identity) string {
	switch {
	case w.Pod != "":
		return fmt.Sprintf("pod %s/%s (%s) on node %s", w.Namespace, w.Pod, w.Instance, w.Node)
	case w.Host != "":
		return fmt.Sprintf("host %s (%s)", w.Host, w.Instance)
	}
	return w.Instance
}
