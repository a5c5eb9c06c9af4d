package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/epoch"
	"outrider.dev/sidecar/internal/evacuation"
	"outrider.dev/sidecar/internal/restore"
	"outrider.dev/sidecar/policy"
)

// takeEpoch claims the next epoch before the archive is read, so that a predecessor that still lives somewhere stops,
// and gives it the time to notice: what it ships until then is restored. It returns the number of the epoch, 0 if nobody
// there knows of epochs.
func (a *app) takeEpoch(ctx context.Context, p policy.Policy, r root, dir string) (uint64, error) {
	all, err := r.Epochs(ctx)
	if err != nil {
		return 0, err
	}
	// Of a replica that document may still be missing.
	if _, err := r.Cluster(ctx); errors.Is(err, fs.ErrNotExist) && len(all) == 0 {
		return 0, nil // an archive of another tool
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	uid, gid, err := a.serverUser(dir)
	if err != nil {
		return 0, err
	}
	if err := makeDataDir(dir, uid, gid); err != nil {
		return 0, err
	}
	writer, err := a.identity(dir)
	if err != nil {
		return 0, err
	}
	if err := a.waitForEnd(ctx, r, all, writer); err != nil {
		return 0, err
	}
	e, continued, err := epoch.Claim(ctx, r.Archive, epoch.Request{Writer: writer, TakeOver: p.TakeOver})
	if err != nil {
		return 0, err
	}
	a.log.Info("took the epoch", "epoch", e.Number, "continued", continued)
	if continued || len(all) == 0 {
		return e.Number, nil
	}
	return e.Number, a.waitForPredecessor(ctx, r, all[len(all)-1])
}

// hesitation is how long a writer that lives, as far as anybody knows, is given to say that it is coming to its end: the
// kubelet of the next pod may be quicker than the one that has to stop the pod before.
const hesitation = 3 * time.Second

// waitForEnd waits for the last writer, if it is another one and is coming to an orderly end: to take the archive from it now
// would lose what it still has to ship. A ReplicaSet makes the next pod while the one before is stopping, and on one node even
// two servers on one disk would meet. One that has been killed meanwhile is not heard of any more, and not waited for.
func (a *app) waitForEnd(ctx context.Context, r root, all []archive.Epoch, writer archive.Identity) error {
	last := another(all, writer)
	if last == nil {
		return nil
	}
	told := false
	for began := time.Now(); ; {
		left, leaving, err := endOf(ctx, r, last.Number, hesitation-time.Since(began))
		if err != nil || left <= 0 {
			return err
		}
		if leaving && !told {
			told = true
			a.reports.Add(evacuation.Report{Kind: evacuation.RestoreWaiting, WaitsFor: evacuation.WaitsForPredecessor, Detail: fmt.Sprintf("epoch %d, %s, to end", last.Number, epoch.Describe(last.Writer))})
			a.log.Info("the last writer is coming to an orderly end: waiting for it", "epoch", last.Number, "writer", epoch.Describe(last.Writer))
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(min(left, time.Second)):
		}
	}
}

// endOf tells for how long the end of an epoch may be waited for, 0 if it is there or nobody lives to bring it about, and
// whether its writer has said that it comes. One that has not, and that may live, is waited for as long as patience says.
func endOf(ctx context.Context, r root, number uint64, patience time.Duration) (left time.Duration, leaving bool, err error) {
	s, err := signOf(ctx, r, number)
	switch {
	case err != nil || s.none() || s.ended() && s.receipt.Clean:
		return 0, false, err
	case s.leaves() > 0:
		return s.leaves(), true, nil
	case s.stale():
		return 0, false, nil
	}
	return patience, false, nil
}

// sign is the last that was heard of an epoch's writer.
type sign struct {
	beat    archive.Heartbeat // with an epoch of 0 if there was none
	age     time.Duration     // of beat, by the store's clock
	receipt archive.Receipt   // with an epoch of 0 if there is none
}

func signOf(ctx context.Context, r root, number uint64) (s sign, err error) {
	beat, seen, err := r.Heartbeat(ctx, number)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	s.beat, s.age = beat, seen.SeenAt.Sub(seen.LastModified)
	if s.receipt, err = r.Receipt(ctx, number); errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return s, err
}

// none tells that no server was ever heard of.
func (s sign) none() bool { return s.beat.Epoch == 0 }

// ended tells whether there is a receipt that nothing has come after.
func (s sign) ended() bool {
	return s.receipt.Epoch != 0 && !s.receipt.Running && s.receipt.StartedAgain == nil && s.receipt.Durable >= s.beat.Durable
}

// stale tells that the next sign of life is long overdue.
func (s sign) stale() bool { return s.age > 2*seconds(s.beat.Interval) }

// leaves is for how long an end that was announced may still be waited for.
func (s sign) leaves() time.Duration { return seconds(s.beat.Leaving) - s.age }

func seconds(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }

// waitForOthersEnd is waitForEnd for a disk with data on it.
func (a *app) waitForOthersEnd(ctx context.Context, r root, dir string) error {
	all, err := r.Epochs(ctx)
	if err != nil {
		return err
	}
	writer, err := a.identity(dir)
	if err != nil {
		return err
	}
	return a.waitForEnd(ctx, r, all, writer)
}

// waitForPredecessor gives a writer that may still live the time to see that it was superseded. No safety rests on it.
func (a *app) waitForPredecessor(ctx context.Context, r root, before archive.Epoch) error {
	s, err := signOf(ctx, r, before.Number)
	if err != nil || s.none() || s.ended() || s.stale() {
		return err
	}
	wait := epoch.CheckInterval + time.Second
	a.reports.Add(evacuation.Report{Kind: evacuation.RestoreWaiting, WaitsFor: evacuation.WaitsForPredecessor, Detail: fmt.Sprintf("epoch %d, %s", before.Number, epoch.Describe(before.Writer))})
	a.log.Info("the last writer may still live: waiting until it has noticed that it was superseded", "epoch", before.Number,
		"writer", epoch.Describe(before.Writer), "heartbeat_age_seconds", s.age.Seconds(), "wait_seconds", wait.Seconds())
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}

// passedBy is the newest epoch if another writer has claimed it since the restore began that lies unfinished in dir, nil if
// nobody has. A restore by hand has claimed none: whoever asked for it knows what is wanted. An error also says that this
// writer may not begin anew.
func (a *app) passedBy(ctx context.Context, p policy.Policy, dir string) (*archive.Epoch, error) {
	m, err := restore.ReadMarker(dir)
	if err != nil || m.Epoch == 0 {
		return nil, err
	}
	r, err := a.openGeneration(ctx, p, 0)
	if err != nil {
		return nil, err
	}
	all, err := r.Epochs(ctx)
	if err != nil {
		return nil, err
	}
	writer, err := a.identity(dir)
	if err != nil {
		return nil, err
	}
	e := passed(all, m, writer)
	if e != nil {
		_, err = epoch.Judge(all, epoch.Request{Writer: writer, TakeOver: p.TakeOver})
	}
	return e, err
}

func passed(all []archive.Epoch, m restore.Marker, writer archive.Identity) *archive.Epoch {
	e := another(all, writer)
	if m.Epoch == 0 || e == nil || e.Number <= m.Epoch {
		return nil
	}
	return e
}

// another is the newest epoch, nil if that is the writer's own or there is none.
func another(all []archive.Epoch, writer archive.Identity) *archive.Epoch {
	if len(all) == 0 || all[len(all)-1].Writer.Instance == writer.Instance {
		return nil
	}
	return &all[len(all)-1]
}
