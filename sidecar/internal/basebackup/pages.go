package basebackup

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

const (
	// maxBadPages is how many bad pages a manifest names (archive.ChecksumVerdict).
	maxBadPages = 100
	// rereadPause lets the server finish a write that was seen half done. Only the first bad pages are waited for.
	rereadPause = time.Millisecond
)

// verifier checks the pages of relations while they are copied. It is safe for concurrent use.
type verifier struct {
	pageSize int
	relSeg   int64
	start    wal.LSN
	ask      func(context.Context) (wal.LSN, error) // how far the WAL reaches now
	log      *slog.Logger

	pages atomic.Int64

	mu     sync.Mutex
	insert wal.LSN // the WAL reaches at least up to here
	bad    []string
	nbad   int
}

// check looks at the whole pages of chunk, which begins at offset of e's file, and counts the bad ones. A page that seems
// bad is read again, and replaced in chunk by what is there then: the server may have been writing it. It fails only if
// it cannot tell.
func (v *verifier) check(ctx context.Context, e entry, file io.ReaderAt, chunk []byte, offset int64) (bad int, err error) {
	for at := 0; at+v.pageSize <= len(chunk); at += v.pageSize {
		page := chunk[at : at+v.pageSize]
		block := int64(e.segment)*v.relSeg + (offset+int64(at))/int64(v.pageSize)
		good, err := v.good(ctx, page, uint32(block))
		if err != nil {
			return bad, err
		}
		if !good {
			if good, err = v.again(ctx, file, page, offset+int64(at), uint32(block)); err != nil {
				return bad, fmt.Errorf("reading block %d of %s again: %w", block, e.name(), err)
			}
		}
		if !good {
			v.report(e.name(), block)
			bad++
		}
		v.pages.Add(1)
	}
	return bad, nil
}

func (v *verifier) again(ctx context.Context, file io.ReaderAt, page []byte, offset int64, block uint32) (bool, error) {
	if v.few() {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-time.After(rereadPause):
		}
	}
	fresh := make([]byte, len(page))
	n, err := file.ReadAt(fresh, offset)
	if n < len(fresh) {
		if err == io.EOF {
			return true, nil // truncated since it was read, so nobody needs the page
		}
		return false, err
	}
	copy(page, fresh)
	return v.good(ctx, page, block)
}

// good tells whether a page is what the server would accept, as far as that can be told of a file in use. What is newer
// than the start of the snapshot is in the WAL as a whole and is not judged by its checksum, but nothing can be newer
// than the WAL.
func (v *verifier) good(ctx context.Context, page []byte, block uint32) (bool, error) {
	if wal.PageIsNew(page) {
		return allZero(page), nil
	}
	lsn := wal.PageLSN(page)
	if lsn <= v.start {
		return wal.StoredChecksum(page) == wal.PageChecksum(page, block), nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if lsn <= v.insert {
		return true, nil
	}
	now, err := v.ask(ctx)
	if err != nil {
		return false, err
	}
	v.insert = now
	return lsn <= now, nil
}

func (v *verifier) few() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.nbad < maxBadPages
}

func (v *verifier) report(name string, block int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.nbad++
	if v.nbad > maxBadPages {
		return
	}
	v.bad = append(v.bad, fmt.Sprintf("%s:%d", name, block))
	v.log.Error("a page of the database is damaged: see pg_amcheck, and keep the last snapshot that was verified",
		"file", name, "block", block)
}

func (v *verifier) verdict() archive.ChecksumVerdict {
	v.mu.Lock()
	defer v.mu.Unlock()
	return archive.ChecksumVerdict{Enabled: true, Pages: v.pages.Load(), Bad: v.bad}
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
