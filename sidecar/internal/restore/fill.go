package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// FillOptions say how the spool is filled. Dir is required.
type FillOptions struct {
	// Dir is the data directory, which says what to lay. It is only read.
	Dir string
	// Parallel is how many segments are fetched at once, 3 if it is 0.
	Parallel int
	// Ahead bounds the disk: no segment is laid that begins more than that many bytes after the one that the server
	// asked for last, and those go that a restart of the server would not need again. 0 lays everything.
	Ahead int64
	// Enough ends Fill when that many bytes of WAL lie there, so that the server can be started; another Fill goes on
	// then. 0 stays until everything is laid.
	Enough int64
	// Patience is that of Options.
	Patience time.Duration
	Progress func(Progress)
	Log      *slog.Logger
}

// FillResult says what a Fill has done.
type FillResult struct {
	Segments int           // laid by this call
	Complete bool          // all WAL of the restore is there
	Promoted bool          // the server has finished recovery and needs no more
	Took     time.Duration // of this call
}

const (
	defaultFetchers = 3
	pollInterval    = 100 * time.Millisecond
	aliveInterval   = 2 * time.Second
)

// Fill lays the WAL of the restore that was begun in a data directory into its spool, from where recovery stands: the
// beginning after Restore, or what pg_control says when the server was stopped in the middle. It goes on while the
// server replays, and tries again for as long as the archive cannot be reached; the server waits meanwhile. WAL that is
// missing or damaged is ErrHole or archive.ErrCorrupt: the server is told to stop, too. After any other end another
// Fill goes on.
func Fill(ctx context.Context, src *archive.Archive, opt FillOptions) (FillResult, error) {
	begun := time.Now()
	if opt.Parallel <= 0 {
		opt.Parallel = defaultFetchers
	}
	if opt.Patience <= 0 {
		opt.Patience = defaultPatience
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	m, err := ReadMarker(opt.Dir)
	if err == nil && m.Phase != PhaseRecovering {
		err = errors.New("its snapshot is not unpacked yet: restore it first")
	}
	if err != nil {
		return FillResult{}, fmt.Errorf("fetching WAL for %s: %w", opt.Dir, err)
	}
	f := &filler{
		opt: opt, plan: m.Plan, w: src.WAL(m.Plan.SegmentSize), fork: m.Fork,
		spool: spool{dir: spoolPath(opt.Dir, m.SpoolDir), id: m.Plan.ID},
	}
	res, err := f.run(ctx)
	res.Took = time.Since(begun)
	if err != nil {
		return res, fmt.Errorf("fetching WAL for %s: %w", opt.Dir, err)
	}
	return res, nil
}

type filler struct {
	opt   FillOptions
	plan  Plan
	fork  bool
	w     *archive.WAL
	spool spool
	meter *meter
	from  wal.LSN

	mu  sync.Mutex
	res FillResult
}

func (f *filler) run(ctx context.Context) (FillResult, error) {
	if done, err := f.promoted(); done || err != nil {
		return FillResult{Promoted: done}, err
	}
	if err := os.MkdirAll(f.spool.dir, 0o755); err != nil {
		return FillResult{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var alive sync.WaitGroup
	alive.Go(func() { f.beat(ctx) })
	defer alive.Wait()
	defer cancel()
	var all []job
	err := f.retry(ctx, "reading the inventory", func() (err error) {
		all, err = f.prepare(ctx)
		return err
	})
	if err == nil {
		err = f.lay(ctx, all)
	}
	if err != nil && final(err) {
		err = errors.Join(err, f.spool.fail(err))
	}
	return f.res, err
}

// final tells whether trying again cannot help.
func final(err error) bool {
	return errors.Is(err, ErrHole) || errors.Is(err, archive.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) ||
		errors.Is(err, archive.ErrConflict)
}

// prepare reads the archive anew, because segments may have been sealed and timelines claimed since the plan was made.
func (f *filler) prepare(ctx context.Context) ([]job, error) {
	c, err := f.w.Cluster(ctx)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && c.SystemIdentifier != f.plan.SystemIdentifier {
		return nil, fmt.Errorf("%w: the archive is of system identifier %d, the restore was begun from one of %d",
			archive.ErrConflict, c.SystemIdentifier, f.plan.SystemIdentifier)
	}
	inv, err := f.w.Inventory(ctx)
	if err != nil {
		return nil, err
	}
	hist, err := f.histories(inv)
	if err != nil {
		return nil, err
	}
	if err := f.spool.prepare(hist, f.opt.Patience); err != nil {
		return nil, err
	}
	if err := os.Remove(f.spool.path(failedFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if f.fork {
		return nil, nil
	}
	if f.from, err = restoreFrom(f.opt.Dir, f.plan); err != nil {
		return nil, err
	}
	return jobs(inv, f.plan.Legs, f.plan.End, f.from)
}

func (f *filler) histories(inv *archive.Inventory) (map[string][]byte, error) {
	if f.fork {
		return forkHistories(f.opt.Dir, inv, f.plan.Timeline)
	}
	return histories(inv, f.plan.Timeline)
}

// lay fetches all segments in their order, several at a time, and then says that there are no others.
func (f *filler) lay(ctx context.Context, all []job) error {
	z := f.plan.SegmentSize
	var total int64
	for _, j := range all {
		if j.segment.End(z) > f.from {
			total += int64(z)
		}
	}
	f.meter = newMeter("wal", total, f.opt.Progress)
	defer f.meter.done()
	stopped := false
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(f.opt.Parallel)
	for _, j := range all {
		if j.segment.End(z) <= f.from {
			continue
		}
		if f.opt.Enough > 0 && int64(j.segment.Start(z)) >= int64(f.from)+f.opt.Enough {
			stopped = true
			break
		}
		if err := f.awaitTurn(gctx, j); err != nil || f.res.Promoted {
			stopped = true
			if err != nil && gctx.Err() == nil {
				return errors.Join(err, g.Wait())
			}
			break
		}
		if f.spool.has(j.segment.Name(z), z) {
			f.meter.add(int64(z), 1)
			continue
		}
		g.Go(func() error { return f.fetch(gctx, j) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil || stopped {
		return err
	}
	if err := f.spool.writeList(endFile, names(all, z)); err != nil {
		return err
	}
	f.res.Complete = true
	return nil
}

// awaitTurn blocks while a segment lies too far ahead of the server.
func (f *filler) awaitTurn(ctx context.Context, j job) error {
	if f.opt.Ahead <= 0 {
		return ctx.Err()
	}
	z := f.plan.SegmentSize
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		at := max(f.from, f.spool.asked(z))
		// Whatever the bound is, the segment that is asked for and the next must come.
		if int64(j.segment.Start(z)) <= int64(at)+max(f.opt.Ahead, int64(z)) {
			return ctx.Err()
		}
		done, err := f.promoted()
		if done || err != nil {
			f.res.Promoted = done
			return err
		}
		if err := f.dropReplayed(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// dropReplayed removes what lies before the server's last restartpoint: a server that is started again begins there.
func (f *filler) dropReplayed() error {
	keep, err := restoreFrom(f.opt.Dir, f.plan)
	if err != nil {
		return nil //nolint:nilerr // then nothing is known to be superfluous
	}
	return f.spool.drop(f.plan.SegmentSize, keep)
}

// promoted tells whether the server has finished recovery: it removes recovery.signal then.
func (f *filler) promoted() (bool, error) {
	there, err := exists(filepath.Join(f.opt.Dir, "recovery.signal"))
	return !there && err == nil, err
}

// fetch lays one segment, for as long as it takes.
func (f *filler) fetch(ctx context.Context, j job) error {
	name := j.segment.Name(f.plan.SegmentSize)
	err := f.retry(ctx, "fetching a segment", func() error { return f.segment(ctx, j) })
	if err != nil {
		return fmt.Errorf("segment %s: %w", name, err)
	}
	f.mu.Lock()
	f.res.Segments++
	f.mu.Unlock()
	f.meter.add(int64(f.plan.SegmentSize), 1)
	return nil
}

const (
	firstWait = 200 * time.Millisecond
	maxWait   = 10 * time.Second
	sayAgain  = 30 * time.Second
)

// retry repeats do until it succeeds, ctx ends, or the error is final.
func (f *filler) retry(ctx context.Context, doing string, do func() error) error {
	wait := firstWait
	var said time.Time
	for {
		err := do()
		if err == nil || final(err) {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err(), err)
		}
		if time.Since(said) >= sayAgain {
			said = time.Now()
			f.opt.Log.Warn("cannot lay down WAL, the server waits meanwhile", "doing", doing, "error", err)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
		wait = min(wait*2, maxWait)
	}
}

// beat shows the server that somebody fills the spool.
func (f *filler) beat(ctx context.Context) {
	tick := time.NewTicker(min(aliveInterval, f.opt.Patience/4))
	defer tick.Stop()
	for n := uint64(0); ; n++ {
		line := strconv.Itoa(os.Getpid()) + " " + strconv.FormatUint(n, 10) + "\n"
		if err := f.spool.write(aliveFile, []byte(line), 0o644); err != nil {
			f.opt.Log.Warn("cannot show the server that its WAL is being fetched", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
