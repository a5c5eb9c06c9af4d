package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// commit is a commit record: its end, and when it happened by the server's clock.
type commit struct {
	end wal.LSN
	at  time.Time
}

// firstCommit looks for a commit that is not older than since, among the records that begin in [from, to). next is
// where to look on: a record that is not whole yet is looked at again, one that is may end past to.
func (b branch) firstCommit(ctx context.Context, from, to wal.LSN, since time.Time) (next wal.LSN, c *commit, err error) {
	files := wal.NewDirSource(b.walDir(), b.size, b.timeline, b.history)
	defer func() { err = errors.Join(err, files.Close()) }()
	src := mortal{ctx, files}
	var end *wal.EndError
	next, err = wal.FirstRecord(src, from, b.rules())
	if errors.As(err, &end) {
		return from, nil, nil
	}
	if err != nil {
		return from, nil, fmt.Errorf("looking for a record from %s on: %w", from, err)
	}
	for r, err := range wal.NewWalker(src, next, b.rules()).Records(to) {
		if errors.As(err, &end) {
			return next, nil, nil
		}
		if err != nil {
			return next, nil, fmt.Errorf("looking for a commit from %s to %s: %w", next, to, err)
		}
		next = r.End
		if t, ok := r.CommitTime(); ok && !t.Before(since) {
			return next, &commit{end: r.End, at: t}, nil
		}
	}
	return next, nil, nil
}

// mortal is a source of WAL that ends with a context: a record can be very long.
type mortal struct {
	ctx context.Context //nolint:containedctx // of the one walk that it is made for
	src wal.Source
}

// ReadWAL implements wal.Source.
func (m mortal) ReadWAL(p []byte, at wal.LSN) (int, error) {
	if err := m.ctx.Err(); err != nil {
		return 0, err
	}
	return m.src.ReadWAL(p, at)
}

// serverStarted is when the server was started by its postmaster.pid, whose third line is that (src/include/miscadmin.h),
// to the second; the zero time if it cannot be told.
func serverStarted(pgdata string) time.Time {
	raw, err := os.ReadFile(filepath.Join(pgdata, "postmaster.pid"))
	if err != nil {
		return time.Time{}
	}
	lines := strings.SplitN(string(raw), "\n", 4)
	if len(lines) < 4 {
		return time.Time{}
	}
	n, err := strconv.ParseInt(strings.TrimSpace(lines[2]), 10, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.Unix(n, 0).UTC()
}
