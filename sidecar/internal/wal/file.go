package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// ErrRecycled is matched when a file of pg_wal no longer has the name under which it was opened: the server has
// renamed it to become another segment, or removed it. What was read from it since is worth nothing.
var ErrRecycled = errors.New("WAL file was recycled or removed while it was read")

// SegmentFile reads one file of a running server's pg_wal. Every page of which it returns a byte has had its header
// checked (see PageRules.Check), and a file with too few bytes is io.ErrUnexpectedEOF, because both are what a file
// looks like that is not the segment its name says.
//
// An open descriptor silently becomes another segment when the server recycles it. So what has been read counts only
// once StillNamed, called afterwards, has said so. It is safe for concurrent use.
type SegmentFile struct {
	file    *os.File
	path    string
	segment Segment
	start   LSN
	size    int64
	rules   PageRules
	opened  fs.FileInfo

	mu   sync.Mutex
	page []byte // one page, for requests that begin or end inside of it; made on first use
}

// OpenSegment opens the file of s in the pg_wal directory dir. sysid 0 accepts any system. A missing file is
// fs.ErrNotExist. Pages of timelines older than that of s are accepted: the first segment of a timeline begins with a
// copy of its parent's.
func OpenSegment(dir string, s Segment, z SegmentSize, sysid uint64) (*SegmentFile, error) {
	if !z.Valid() {
		return nil, fmt.Errorf("opening a WAL segment in %s: %d bytes is not a segment size", dir, z)
	}
	path := filepath.Join(dir, s.Name(z))
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening a WAL segment: %w", err)
	}
	opened, err := f.Stat()
	if err == nil && !opened.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err == nil && opened.Size() < int64(z) {
		// The server gives a file its name only once it has its full size.
		err = fmt.Errorf("%s has %d bytes instead of the %d of a segment: %w", path, opened.Size(), z, io.ErrUnexpectedEOF)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening a WAL segment: %w", err), f.Close())
	}
	return &SegmentFile{
		file: f, path: path, segment: s, start: s.Start(z), size: int64(z), opened: opened,
		rules: PageRules{SegmentSize: z, MaxTimeline: s.Timeline, SystemIdentifier: sysid},
	}, nil
}

// Segment is the segment whose file this is.
func (f *SegmentFile) Segment() Segment { return f.segment }

// ReadAt is io.ReaderAt over the bytes of the segment. It checks each page that begins before off+len(p), no other:
// what lies beyond the flush position is not for it to judge. Pages of zeros are what a switch leaves behind it: they
// pass where the segment's first page does and no other page follows in p. On an error, which matches ErrPage if a page
// is not the one that belongs there, the content of p is undefined and n is 0. The end of the segment is io.EOF.
func (f *SegmentFile) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("reading %s: the offset %d is negative", f.path, off)
	}
	if off >= f.size {
		return 0, io.EOF
	}
	whole := int64(len(p)) <= f.size-off
	p = p[:min(int64(len(p)), f.size-off)]
	if err := f.read(p, off); err != nil {
		return 0, fmt.Errorf("reading %s: %w", f.path, err)
	}
	if !whole {
		return len(p), io.EOF
	}
	return len(p), nil
}

// read fills p. What covers its pages from their first byte on goes straight into p and is checked there; a page that
// p begins inside of, or holds less than a header of, makes a detour.
func (f *SegmentFile) read(p []byte, off int64) error {
	zeros := false
	if inside := off % PageSize; inside != 0 && len(p) > 0 {
		n := min(int64(len(p)), PageSize-inside)
		if err := f.readInside(p[:n], off-inside, inside, &zeros); err != nil {
			return err
		}
		p, off = p[n:], off+n
	}
	if len(p) == 0 {
		return nil
	}
	rest := len(p) % PageSize
	if rest >= longHeaderSize {
		rest = 0
	}
	direct := p[:len(p)-rest]
	if err := f.fill(direct, off); err != nil {
		return err
	}
	for at := 0; at < len(direct); at += PageSize {
		if err := f.check(direct[at:], off+int64(at), &zeros); err != nil {
			return err
		}
	}
	if rest == 0 {
		return nil
	}
	return f.readInside(p[len(direct):], off+int64(len(direct)), 0, &zeros)
}

// readInside copies a part of the page at offset page that begins inside bytes into it.
func (f *SegmentFile) readInside(p []byte, page, inside int64, zeros *bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.page == nil {
		f.page = make([]byte, PageSize)
	}
	// One read for header and content, so that both are of the same page even if the file is recycled meanwhile.
	if err := f.fill(f.page, page); err != nil {
		return err
	}
	if err := f.check(f.page, page, zeros); err != nil {
		return err
	}
	copy(p, f.page[inside:])
	return nil
}

func (f *SegmentFile) fill(p []byte, off int64) error {
	n, err := f.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it ends after %d of %d bytes: %w", off+int64(n), f.size, io.ErrUnexpectedEOF)
	}
	return err
}

// check checks a page; zeros is whether one of zeros came before it.
func (f *SegmentFile) check(page []byte, off int64, zeros *bool) error {
	err := f.rules.Check(page[:min(len(page), PageSize)], f.start+LSN(off))
	switch {
	case err == nil && *zeros:
		return fmt.Errorf("page at %s: %w: it follows one of zeros", f.start+LSN(off), ErrPage)
	case !errors.Is(err, ErrZeroPage):
		return err
	case *zeros:
		return nil
	}
	*zeros = true
	var first [longHeaderSize]byte
	if err := f.fill(first[:], 0); err != nil {
		return err
	}
	return f.rules.Check(first[:], f.start)
}

// StillNamed tells, after reading, whether the file is still the one with the segment's name: nil, ErrRecycled, or
// another error when that could not be found out.
func (f *SegmentFile) StillNamed() error {
	now, err := os.Stat(f.path)
	switch {
	case err == nil && os.SameFile(now, f.opened):
		return nil
	case err == nil || errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", f.path, ErrRecycled)
	}
	return fmt.Errorf("asking whether %s still is the file that was read: %w", f.path, err)
}

// Sync makes the content of the file durable: a dead server may have written bytes that only the page cache has.
func (f *SegmentFile) Sync() error {
	if err := f.file.Sync(); err != nil {
		return fmt.Errorf("syncing %s: %w", f.path, err)
	}
	return nil
}

// Close closes the file.
func (f *SegmentFile) Close() error { return f.file.Close() }
