package restore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Fork puts a data directory whose server does not run on a new timeline: one that has diverged from its archive or is
// older, and is to be gone on with all the same. At its next start the server replays the WAL that it has, takes the
// first timeline number that the archive does not know, and promotes. Nothing that it holds is lost; what the archive
// holds of later times stays there, on its own timeline. Of opt, Dir, SpoolDir, UID, GID, Patience and Log are used. A
// snapshot has to be taken after that: the new timeline does not follow from anything in the archive.
func Fork(ctx context.Context, src *archive.Archive, opt Options) (Plan, error) {
	if err := opt.normalize(); err != nil {
		return Plan{}, err
	}
	p, err := fork(ctx, src, opt)
	if err != nil {
		return p, fmt.Errorf("forking %s onto a new timeline: %w", opt.Dir, err)
	}
	return p, nil
}

func fork(ctx context.Context, src *archive.Archive, opt Options) (Plan, error) {
	state, err := Inspect(opt.Dir)
	if err != nil {
		return Plan{}, err
	}
	if state != Data {
		return Plan{}, fmt.Errorf("it is not a data directory at rest (%s)", state)
	}
	if err := notRunning(opt.Dir); err != nil {
		return Plan{}, err
	}
	c, err := wal.ReadControl(opt.Dir)
	if err != nil {
		return Plan{}, err
	}
	if c.WALLevel == wal.WALLevelMinimal {
		return Plan{}, errors.New("its WAL was written with wal_level=minimal, from which the server cannot recover: start it once with wal_level=replica")
	}
	w, sysid, backups, err := open(ctx, src)
	if err != nil {
		return Plan{}, err
	}
	if sysid != c.SystemIdentifier || w.Size != c.SegmentSize {
		return Plan{}, fmt.Errorf("%w: the archive is of system identifier %d with segments of %d bytes, the disk of %d with %d: give it an archive of its own",
			archive.ErrConflict, sysid, w.Size, c.SystemIdentifier, c.SegmentSize)
	}
	inv, err := w.Inventory(ctx)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{
		ID: rand.Text(), CreatedAt: time.Now().UTC(), SystemIdentifier: c.SystemIdentifier, SegmentSize: c.SegmentSize,
		Timeline: max(c.CheckPointTimeline, c.MinRecoveryPointTimeline),
	}
	newest, err := inv.Newest()
	if err == nil {
		p.ArchiveEnd = archiveEnd(inv, newest, backups)
	} else if !errors.Is(err, archive.ErrNoBranch) {
		return Plan{}, err
	}
	return p, layFork(inv, p, opt)
}

// layFork writes what makes the server recover. The signal comes last: without it all else has no effect.
func layFork(inv *archive.Inventory, p Plan, opt Options) error {
	m := Marker{
		Phase: PhaseRecovering, StartedAt: time.Now().UTC(), Plan: p, Fork: true, SpoolDir: spoolFor(opt.Dir, opt.SpoolDir),
	}
	command, err := restoreCommand(m.SpoolDir)
	if err != nil {
		return err
	}
	hist, err := forkHistories(opt.Dir, inv, p.Timeline)
	if err != nil {
		return err
	}
	own := newOwner(opt.UID, opt.GID)
	if fi, err := os.Stat(wal.ControlPath(opt.Dir)); err == nil {
		own.learn(ownerOf(fi), ownerGroupOf(fi))
	}
	if err := os.Mkdir(filepath.Join(opt.Dir, ownDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	s := spool{dir: spoolPath(opt.Dir, m.SpoolDir), id: p.ID}
	if err := s.prepare(hist, opt.Patience); err != nil {
		return err
	}
	if err := s.writeList(endFile, nil); err != nil {
		return err
	}
	if err := appendSettings(opt.Dir, settings(p, command)); err != nil {
		return err
	}
	if err := m.write(opt.Dir); err != nil {
		return err
	}
	signal := filepath.Join(opt.Dir, "recovery.signal")
	for _, step := range []func() error{
		func() error { return own.giveTree(filepath.Join(opt.Dir, ownDir)) },
		func() error { return own.giveTree(s.dir) },
		func() error { return own.givePath(filepath.Join(opt.Dir, "postgresql.auto.conf")) },
		func() error { return syncAll(s.dir, opt.Dir) },
		func() error { return replaceFile(signal, nil, 0o600) },
		func() error { return own.givePath(signal) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// forkHistories are the histories for a disk's own timeline: those of its ancestry are the disk's own, whatever the
// archive calls by the same numbers; all others keep their numbers from being taken.
func forkHistories(dir string, inv *archive.Inventory, own wal.Timeline) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, k := range inv.Timelines() {
		if k > 1 {
			files[wal.HistoryName(k)] = historyOf(inv, k)
		}
	}
	names, err := filepath.Glob(filepath.Join(dir, "pg_wal", "*.history"))
	if err != nil {
		return nil, err
	}
	for _, path := range names {
		k, ok := wal.ParseHistoryName(filepath.Base(path))
		if !ok {
			continue
		}
		if files[filepath.Base(path)] != nil && k > own {
			continue
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		files[filepath.Base(path)] = raw
	}
	return files, nil
}

// notRunning refuses a data directory in which a server of this machine runs.
func notRunning(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	pid, _, _ := strings.Cut(string(b), "\n")
	cwd, err := os.Stat("/proc/" + strings.TrimSpace(pid) + "/cwd")
	if err != nil {
		return nil //nolint:nilerr // no such process, or none whose directory we may see: the file was left by a crash
	}
	here, err := os.Stat(dir)
	if err == nil && os.SameFile(cwd, here) {
		return fmt.Errorf("its server runs (process %s): stop it first", strings.TrimSpace(pid))
	}
	return err
}
