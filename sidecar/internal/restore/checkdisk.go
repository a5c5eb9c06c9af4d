package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// Disk is what a data directory is to an archive.
type Disk int

// The verdicts. Only the first two may be started without asking anybody.
const (
	// DiskOurs holds all that the archive holds, and perhaps more: it is the one that was archived.
	DiskOurs Disk = iota
	// DiskUnprotected is one of which the archive has nothing yet.
	DiskUnprotected
	// DiskAhead is so far ahead of the archive that they have no WAL in common any more: nothing proves that it is the
	// one that was archived. It is, if nobody else has claimed an epoch since: see Verdict.Since.
	DiskAhead
	// DiskStale lacks what the archive holds: it is a copy from the past.
	DiskStale
	// DiskDiverged has gone on differently than the archive.
	DiskDiverged
	// DiskForeign is another database.
	DiskForeign
)

// String is the verdict in a word.
func (d Disk) String() string {
	words := [...]string{"ours", "unprotected", "ahead", "stale", "diverged", "foreign"}
	if int(d) < len(words) && d >= 0 {
		return words[d]
	}
	return fmt.Sprintf("verdict %d", int(d))
}

// Verdict is the answer of CheckDisk.
type Verdict struct {
	Disk    Disk
	Reason  string       // in words
	Archive wal.Position // where the newest branch ends in the archive; zero if it holds no WAL
	Local   wal.Position // up to where the disk's WAL was found valid, or begins; as far as it was looked for
	// Epochs are all that were claimed, and Since those of them, of a DiskAhead, that were claimed after that of the last
	// writer: somebody has begun to restore what the archive holds, which is less than the disk does.
	Epochs, Since []archive.Epoch
}

// compared is how much WAL at the end of the archive has to be the same on the disk. The LSNs alone prove nothing: a
// copy from the past that was started elsewhere has written other bytes up to the same position. A page of them does:
// records carry checksums and times. It is more than a page because a chunk can be as short as a page header.
const compared = 64 << 10

// CheckDisk compares a data directory, whose server does not run, with the archive. An error means that it could not
// be told, and the server must not be started then.
func CheckDisk(ctx context.Context, src *archive.Archive, dir string) (Verdict, error) {
	v, err := (&checker{src: src, dir: dir}).run(ctx)
	if err != nil {
		return Verdict{}, fmt.Errorf("comparing %s with its archive: %w", dir, err)
	}
	return v, nil
}

type checker struct {
	src     *archive.Archive
	dir     string
	control wal.Control
	own     wal.Timeline
	history wal.History
	w       *archive.WAL
	inv     *archive.Inventory
	branch  archive.Branch
	end     wal.Position // of the archive
}

func (c *checker) run(ctx context.Context) (Verdict, error) {
	var err error
	if c.control, err = wal.ReadControl(c.dir); err != nil {
		return Verdict{}, err
	}
	var sysid uint64
	var backups []archive.Backup
	c.w, sysid, backups, err = open(ctx, c.src)
	if errors.Is(err, ErrNothing) {
		return Verdict{Disk: DiskUnprotected, Reason: "the archive is empty"}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	if sysid != c.control.SystemIdentifier {
		return Verdict{Disk: DiskForeign, Reason: fmt.Sprintf("the disk has system identifier %d, the archive is of %d",
			c.control.SystemIdentifier, sysid)}, nil
	}
	if c.w.Size != c.control.SegmentSize {
		return Verdict{Disk: DiskDiverged, Reason: fmt.Sprintf("the disk has WAL segments of %d bytes, the archive of %d",
			c.control.SegmentSize, c.w.Size)}, nil
	}
	if c.inv, err = c.w.Inventory(ctx); err != nil {
		return Verdict{}, err
	}
	c.branch, err = c.inv.Newest()
	if errors.Is(err, archive.ErrNoBranch) {
		return Verdict{Disk: DiskUnprotected, Reason: "the archive holds no WAL yet"}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	if c.end = archiveEnd(c.inv, c.branch, backups); c.end.LSN == 0 {
		return Verdict{Disk: DiskUnprotected, Reason: "the archive holds no WAL yet"}, nil
	}
	v, err := c.judge(ctx)
	v.Archive = c.end
	return v, err
}

func (c *checker) judge(ctx context.Context) (Verdict, error) {
	// After a promotion the checkpoint's timeline is the old one for a while; crash recovery follows the larger
	// (InitWalRecovery, src/backend/access/transam/xlogrecovery.c).
	c.own = max(c.control.CheckPointTimeline, c.control.MinRecoveryPointTimeline)
	if m, err := ReadMarker(c.dir); err == nil && m.Plan.Timeline < c.own && m.Plan.ArchiveEnd == c.end {
		return Verdict{Disk: DiskOurs, Reason: "the disk was restored or forked from this archive, which has not gone on since"}, nil
	}
	if err := c.readHistory(); err != nil {
		return Verdict{}, err
	}
	at, known := c.until()
	if !known {
		return c.otherBranch(ctx)
	}
	if at < c.end.LSN {
		lost, err := c.recordsFrom(ctx, at)
		if lost || err != nil {
			return Verdict{Disk: DiskDiverged, Reason: fmt.Sprintf("the disk left timeline %d at %s; the archive has gone on with it up to %s",
				c.end.Timeline, at, c.end.LSN)}, err
		}
	}
	return c.compare(ctx, at)
}

func (c *checker) readHistory() error {
	if c.own <= 1 {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(c.dir, "pg_wal", wal.HistoryName(c.own)))
	if errors.Is(err, fs.ErrNotExist) {
		var ok bool
		if c.history, ok = c.inv.Histories[c.own]; ok {
			return nil
		}
	}
	if err == nil {
		c.history, err = wal.ParseHistory(c.own, string(raw))
	}
	if err != nil {
		return fmt.Errorf("reading the history of the disk's timeline: %w", err)
	}
	return nil
}

// until is the end of what the disk can have of the archive's newest timeline.
func (c *checker) until() (wal.LSN, bool) {
	if c.own == c.end.Timeline {
		return c.end.LSN, true
	}
	for _, s := range c.history {
		if s.Parent == c.end.Timeline {
			return min(s.LSN, c.end.LSN), true
		}
	}
	return 0, false
}

// otherBranch judges a disk whose history does not contain the archive's newest timeline.
func (c *checker) otherBranch(ctx context.Context) (Verdict, error) {
	local, err := c.localEnd()
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Disk: DiskDiverged, Local: local}
	v.Reason = fmt.Sprintf("the disk is on timeline %d, of which the archive's newest branch, timeline %d, knows nothing", c.own, c.end.Timeline)
	for _, g := range c.branch.Legs {
		if g.Timeline != c.own {
			continue
		}
		v.Reason = fmt.Sprintf("the disk is on timeline %d up to %s; the archive has left that at %s and gone on with timeline %d",
			c.own, local.LSN, g.To, c.end.Timeline)
		if local.LSN <= g.To {
			v.Disk, err = c.pastOrOther(ctx, c.own, local.LSN)
		}
	}
	return v, err
}

// recordsFrom tells whether the archive has a whole record behind a position. Crash recovery and restores end before
// an unfinished one, so that a few bytes more prove nothing.
func (c *checker) recordsFrom(ctx context.Context, at wal.LSN) (found bool, err error) {
	s := scanner{w: c.w, inv: c.inv, sysid: c.control.SystemIdentifier}
	src := s.source(ctx, c.branch.Legs, c.end.LSN)
	defer func() { err = errors.Join(err, src.Close()) }()
	err = records(src, at, c.end.LSN, s.options(c.branch.Legs), func(wal.Record) bool {
		found = true
		return false
	})
	return found, err
}

func (c *checker) local() *wal.DirSource {
	return wal.NewDirSource(filepath.Join(c.dir, "pg_wal"), c.w.Size, c.own, c.history)
}

// localEnd walks the disk's WAL from its last checkpoint on.
func (c *checker) localEnd() (wal.Position, error) {
	src := c.local()
	end, _, err := wal.EndOfValid(src, c.control.Redo, wal.WalkOptions{PageRules: wal.PageRules{
		SegmentSize: c.w.Size, MaxTimeline: c.own, SystemIdentifier: c.control.SystemIdentifier,
	}})
	err = errors.Join(err, src.Close())
	var no *wal.EndError
	if errors.As(err, &no) {
		return wal.Position{Timeline: c.own, LSN: c.control.Redo}, nil
	}
	return wal.Position{Timeline: c.own, LSN: end}, err
}

// compare compares the WAL before a position.
func (c *checker) compare(ctx context.Context, to wal.LSN) (Verdict, error) {
	same, there, err := c.equalBefore(ctx, c.end.Timeline, to)
	if err != nil {
		return Verdict{}, err
	}
	if same {
		return Verdict{Disk: DiskOurs, Reason: fmt.Sprintf("the WAL before %s is the same on the disk and in the archive", to)}, nil
	}
	if !there && c.control.Redo >= to {
		return Verdict{
			Disk: DiskAhead, Local: wal.Position{Timeline: c.own, LSN: c.control.Redo},
			Reason: fmt.Sprintf("the disk has no WAL before %s any more, the archive none after %s", c.control.Redo, c.end),
			Epochs: c.inv.Epochs, Since: c.claimedSince(),
		}, nil
	}
	local, err := c.localEnd()
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Disk: DiskDiverged, Local: local}
	v.Reason = fmt.Sprintf("the WAL before %s is not the same on the disk and in the archive", to)
	if local.LSN < to {
		v.Disk, err = c.pastOrOther(ctx, c.end.Timeline, local.LSN)
		v.Reason = fmt.Sprintf("the WAL of the disk ends at %s, the archive goes on to %s", local, c.end)
	}
	return v, err
}

// claimedSince are the epochs after that of the last one who wrote.
func (c *checker) claimedSince() []archive.Epoch {
	var wrote uint64
	for _, k := range c.inv.Claims {
		wrote = max(wrote, k.Epoch)
	}
	for _, e := range c.inv.Epochs {
		if e.Timeline != 0 {
			wrote = max(wrote, e.Number)
		}
	}
	return slices.DeleteFunc(slices.Clone(c.inv.Epochs), func(e archive.Epoch) bool { return e.Number <= wrote })
}

// pastOrOther tells, of a disk whose WAL ends before the archive's does, whether it is a copy from the past or has gone
// on differently.
func (c *checker) pastOrOther(ctx context.Context, t wal.Timeline, end wal.LSN) (Disk, error) {
	same, there, err := c.equalBefore(ctx, t, end)
	if errors.Is(err, ErrHole) {
		return DiskStale, nil // the archive begins later
	}
	if there && !same && err == nil {
		return DiskDiverged, nil
	}
	return DiskStale, err
}

// equalBefore compares the last WAL before a position on a timeline of the archive with the disk's.
func (c *checker) equalBefore(ctx context.Context, t wal.Timeline, to wal.LSN) (same, there bool, err error) {
	from := c.w.Size.Floor(to - 1)
	for to-from < compared && from > 0 && len(c.inv.Follow(t, from-1, from)) > 0 {
		from -= wal.LSN(c.w.Size)
	}
	if to-from > compared {
		from = to - compared
	}
	archived := make([]byte, to-from)
	s := scanner{w: c.w, inv: c.inv}
	src := s.source(ctx, []archive.Leg{{Timeline: t, To: archive.MaxLSN}}, to)
	_, err = src.ReadWAL(archived, from)
	if err = errors.Join(err, src.Close()); err != nil {
		return false, false, err
	}
	return c.same(archived, from)
}

// same compares bytes with those on the disk. A parent's WAL may be in its own file, or only in its child's first.
func (c *checker) same(archived []byte, from wal.LSN) (same, there bool, err error) {
	buf := make([]byte, len(archived))
	sources := []*wal.DirSource{c.local()}
	if c.own != c.end.Timeline {
		sources = append(sources, wal.NewDirSource(filepath.Join(c.dir, "pg_wal"), c.w.Size, c.end.Timeline, nil))
	}
	for _, src := range sources {
		_, rerr := src.ReadWAL(buf, from)
		err = errors.Join(err, src.Close())
		switch {
		case rerr == nil:
			return bytes.Equal(buf, archived), true, err
		case errors.Is(rerr, io.ErrUnexpectedEOF):
			there = true
		case !errors.Is(rerr, fs.ErrNotExist):
			err = errors.Join(err, rerr)
		}
	}
	return false, there, err
}
