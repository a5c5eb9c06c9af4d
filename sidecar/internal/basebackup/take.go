package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// attempt is one snapshot being taken.
type attempt struct {
	t       *Taker
	facts   Facts
	session *guarded
	start   wal.Position
	name    string
	began   time.Time
	settled time.Time // see archive.FileList
	base    *base     // nil for a full snapshot

	reading     reading
	tablespaces []archive.Tablespace
	dataBytes   int64

	mu    sync.Mutex
	parts []archive.Part

	fileList, filesMetadata *archive.Object
}

// Take takes a snapshot and returns when it exists. It fails as a whole, and what it has stored by then is no snapshot.
// Damaged pages are no failure: they are named in the manifest and logged. Cancelling ctx ends backup mode.
func (t *Taker) Take(ctx context.Context) (archive.Manifest, error) {
	t.cfg.Metrics.running.Inc()
	defer t.cfg.Metrics.running.Dec()
	began := time.Now()
	m, err := t.take(ctx)
	if err != nil {
		t.cfg.Metrics.failures.Inc()
		return archive.Manifest{}, fmt.Errorf("taking a snapshot: %w", err)
	}
	t.cfg.Metrics.succeeded(m, time.Since(began))
	return m, nil
}

func (t *Taker) take(ctx context.Context) (archive.Manifest, error) {
	facts, err := t.cfg.Server.Facts(ctx)
	if err != nil {
		return archive.Manifest{}, err
	}
	if err := t.sameServer(facts); err != nil {
		return archive.Manifest{}, err
	}
	b, err := t.base(ctx, facts)
	if err != nil {
		return archive.Manifest{}, err
	}
	m, err := t.takeOn(ctx, facts, b)
	if b != nil && errors.Is(err, errNeedsFull) && ctx.Err() == nil {
		t.cfg.Log.Warn("the snapshot is taken again, as a full one", "error", err)
		return t.takeOn(ctx, facts, nil)
	}
	return m, err
}

// takeOn takes a delta, or with no base a full snapshot.
func (t *Taker) takeOn(ctx context.Context, facts Facts, b *base) (archive.Manifest, error) {
	a, err := t.begin(ctx, facts, b)
	if err != nil {
		return archive.Manifest{}, err
	}
	defer a.session.Abort()
	if err := a.settle(); err != nil {
		return archive.Manifest{}, err
	}
	if err := a.copy(ctx); err != nil {
		return archive.Manifest{}, err
	}
	return a.finish(ctx)
}

// sameServer makes sure that the directory is that of the server that is asked.
func (t *Taker) sameServer(f Facts) error {
	c, err := wal.ReadControl(t.cfg.PGDATA)
	if err != nil {
		return readable(err)
	}
	if c.SystemIdentifier != f.SystemIdentifier {
		return fmt.Errorf("the data directory %s has system identifier %d, the server %d: set PGDATA and PGHOST to the same server",
			t.cfg.PGDATA, c.SystemIdentifier, f.SystemIdentifier)
	}
	return nil
}

// begin enters backup mode and claims a name. Entering it begins a new segment, so when the name is taken, by an
// attempt that died or by another one, the next try has another name.
func (t *Taker) begin(ctx context.Context, facts Facts, b *base) (*attempt, error) {
	for try := 1; ; try++ {
		began := time.Now()
		session, err := t.cfg.Server.Begin(ctx, "outrider "+began.UTC().Format(time.RFC3339))
		if err != nil {
			return nil, err
		}
		start := session.Start()
		name := archive.BackupName(facts.SegmentSize.SegmentAt(start.Timeline, start.LSN), facts.SegmentSize)
		if b != nil {
			name = b.name(name)
			if start.Timeline < b.parent().Timeline() || start.LSN <= b.parent().Stop() {
				session.Abort()
				return nil, fmt.Errorf("%w: it begins at %s, which is not after %s", errNeedsFull, start, b.parent().Name)
			}
		}
		err = t.cfg.Archive.ClaimBackup(ctx, name, archive.BackupClaim{
			Epoch: t.cfg.Epoch, Instance: t.cfg.Instance, ClaimedAt: began,
		})
		if err == nil {
			t.cfg.Log.Info("snapshot begun", "snapshot", name, "start", start.String())
			return &attempt{
				t: t, facts: facts, session: &guarded{Session: session}, start: start, name: name, began: began, base: b,
				reading: reading{
					limiter: t.limiter, progress: &progress{}, metrics: t.cfg.Metrics, base: b, register: newRegister(b != nil),
				},
			}, nil
		}
		session.Abort()
		if !errors.Is(err, fs.ErrExist) || try == claimAttempts {
			return nil, fmt.Errorf("claiming the name %s: %w", name, err)
		}
		t.cfg.Log.Info("another attempt has the name of the snapshot, trying again", "snapshot", name)
	}
}

// copy stores everything but the labels.
func (a *attempt) copy(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopped := a.watch(ctx, cancel)
	err := a.copyFiles(ctx)
	cause := context.Cause(ctx)
	cancel(nil)
	<-stopped
	if err != nil && cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

func (a *attempt) copyFiles(ctx context.Context) error {
	inv, err := scan(ctx, a.t.cfg.PGDATA, a.facts, a.t.cfg.Log)
	defer inv.close()
	if err != nil {
		return err
	}
	a.tablespaces, a.dataBytes = inv.tablespaces, inv.bytes
	if a.base != nil {
		inv.leaveOut(a.unchanged)
	}
	if a.facts.DataChecksums {
		a.reading.verifier = &verifier{
			pageSize: a.facts.BlockSize, relSeg: a.facts.RelSegSize, start: a.start.LSN, insert: a.start.LSN,
			ask: a.session.InsertLSN, log: a.t.cfg.Log,
		}
	}
	a.reading.progress.totalFiles.Store(inv.files)
	a.reading.progress.totalBytes.Store(inv.bytes)
	defer a.reading.progress.tell(a.t.cfg.Progress)()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(a.t.cfg.Workers)
	for _, p := range largestFirst(plan(inv, a.t.cfg.PartSize, a.base != nil)) {
		if gctx.Err() != nil {
			break
		}
		g.Go(func() error { return a.upload(gctx, p) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	// After all else: a restore from parts that lacks it cannot be started by mistake.
	return a.uploadControl(ctx)
}

// settle finds the time of archive.FileList.Settled. It is more than a tick of the file system's clock before the
// snapshot began, and by that clock if it is behind ours: pg_control was written while backup mode began.
func (a *attempt) settle() error {
	info, err := os.Stat(wal.ControlPath(a.t.cfg.PGDATA))
	if err != nil {
		return readable(fmt.Errorf("looking at the control file: %w", err))
	}
	a.settled = a.began
	if at := info.ModTime(); at.Before(a.settled) {
		a.settled = at
	}
	a.settled = a.settled.Add(-a.t.margin)
	return nil
}

// unchanged notes a file that need not be read, and tells so.
func (a *attempt) unchanged(e entry) bool {
	old, ok := a.base.unchanged(stateOf(e.name(), e.info))
	if !ok {
		return false
	}
	pages := int64(0)
	if a.facts.DataChecksums && e.segment != noRelation {
		pages = old.Size / int64(a.facts.BlockSize)
	}
	a.reading.register.skipped(old, pages)
	return true
}

func (a *attempt) upload(ctx context.Context, p part) error {
	s := a.reading.stream(ctx, p)
	defer s.close()
	stored, err := a.t.cfg.Archive.UploadPart(ctx, a.name, p.name, s)
	if err != nil {
		return err
	}
	stored.Files = s.members
	a.add(stored)
	return nil
}

func (a *attempt) add(p archive.Part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.parts = append(a.parts, p)
}

// watch ends the copying when the session is lost. The channel is closed when it no longer uses the session.
func (a *attempt) watch(ctx context.Context, cancel context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(a.t.watch)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Not under ctx: a query cancelled at the end of the copying could take the next one with it.
			qctx, done := context.WithTimeout(context.WithoutCancel(ctx), watchTimeout)
			_, err := a.session.InsertLSN(qctx)
			done()
			if err != nil {
				cancel(fmt.Errorf("backup mode is lost: %w", err))
				return
			}
		}
	}()
	return done
}

// finish leaves backup mode and makes the snapshot exist.
func (a *attempt) finish(ctx context.Context) (archive.Manifest, error) {
	end, err := a.session.Stop(ctx)
	if err != nil {
		return archive.Manifest{}, err
	}
	stopped := time.Now()
	if err := a.uploadLabels(ctx, end); err != nil {
		return archive.Manifest{}, err
	}
	if err := a.uploadLists(ctx); err != nil {
		return archive.Manifest{}, err
	}
	if err := a.t.cfg.WAL.WaitDurable(ctx, wal.Position{Timeline: a.start.Timeline, LSN: end.Stop}); err != nil {
		return archive.Manifest{}, err
	}
	slices.SortFunc(a.parts, func(x, y archive.Part) int { return strings.Compare(x.Name, y.Name) })
	if err := a.sameParts(ctx); err != nil {
		return archive.Manifest{}, err
	}
	if a.base != nil {
		if err := a.base.exists(ctx, a.t.cfg.Lists); err != nil {
			return archive.Manifest{}, err
		}
	}
	m := a.manifest(end, stopped)
	if err := a.t.cfg.Archive.CommitBackup(ctx, m, a.metadata(m), a.sentinel(m)); err != nil {
		return archive.Manifest{}, err
	}
	a.t.cfg.Log.Info("snapshot taken", "snapshot", m.Name, "stop", m.Stop.String(), "files", m.Files,
		"raw_bytes", m.RawSize, "stored_bytes", m.StoredSize, "bad_pages", len(m.Checksums.Bad), "delta", m.Delta != nil,
		"seconds", time.Since(a.began).Seconds())
	return m, nil
}

// sameParts compares what lies in the archive with what was stored: stock tools restore whatever lies there, and an
// attempt that was taken for dead may have lost its parts.
func (a *attempt) sameParts(ctx context.Context) error {
	there, err := a.t.cfg.Archive.Parts(ctx, a.name)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, p := range there {
		sizes[p.Name] = p.Size
	}
	for _, p := range a.parts {
		size, ok := sizes[p.Name]
		if !ok || size != p.Size {
			return fmt.Errorf("checking the parts of %s: %w: %s of %d bytes was stored and is missing or has another size now",
				a.name, archive.ErrCorrupt, p.Name, p.Size)
		}
		delete(sizes, p.Name)
	}
	for name := range sizes {
		return fmt.Errorf("checking the parts of %s: %w: %s lies there too", a.name, archive.ErrConflict, name)
	}
	return nil
}

// guarded lets the copying, which asks how far the WAL reaches, share a session with the watch over it.
type guarded struct {
	Session
	mu sync.Mutex
}

func (g *guarded) InsertLSN(ctx context.Context) (wal.LSN, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.Session.InsertLSN(ctx)
}
