package tail

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// fileState is what changes about a file when the server writes to it or puts another one in its place.
type fileState struct {
	there   bool
	size    int64
	changed time.Time
}

// view is what a look at pg_wal shows: WAL cannot be written without one of these changing, give or take the
// resolution of the file system's clock, for which the questions that follow each hint make up.
type view struct {
	segment       wal.Segment // the current one
	dir           fileState
	current, next fileState
}

func (t *Tailer) segment(p wal.Position) wal.Segment { return t.cfg.Size.SegmentAt(p.Timeline, p.LSN) }

func (t *Tailer) look(s wal.Segment) view {
	v := view{segment: s, dir: stat(t.cfg.Dir)}
	if s.Timeline != 0 {
		v.current, v.next = t.stat(s), t.stat(s.Next())
	}
	return v
}

func (t *Tailer) stat(s wal.Segment) fileState {
	return stat(filepath.Join(t.cfg.Dir, s.Name(t.cfg.Size)))
}

// stat does not tell a missing file from one that cannot be looked at: either way only the server can say more.
func stat(path string) fileState {
	info, err := os.Stat(path)
	if err != nil {
		return fileState{there: !errors.Is(err, fs.ErrNotExist)}
	}
	return fileState{there: true, size: info.Size(), changed: info.ModTime()}
}
