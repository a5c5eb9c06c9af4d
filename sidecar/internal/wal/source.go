package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Source gives WAL by position. ReadWAL fills p with the bytes from at on; like io.ReaderAt it returns fewer only with
// an error, which matches io.EOF, io.ErrUnexpectedEOF or fs.ErrNotExist if there provably is no more. Content is not
// trusted: it may be zeros or older WAL.
type Source interface {
	ReadWAL(p []byte, at LSN) (int, error)
}

// endsHere tells a proven end of a Source from an error that proves nothing.
func endsHere(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)
}

// DirSource reads segments from a directory such as pg_wal along one branch of history: of each segment the file of
// the newest timeline of the branch that reaches into it, which the server begins with a copy of its parent's. It is
// for one goroutine at a time.
type DirSource struct {
	dir      string
	size     SegmentSize
	timeline Timeline
	history  History

	file *os.File
	name string
	info fs.FileInfo
}

// NewDirSource reads the branch that ends with timeline t, whose history is h (nil for timeline 1). Close it.
func NewDirSource(dir string, z SegmentSize, t Timeline, h History) *DirSource {
	return &DirSource{dir: dir, size: z, timeline: t, history: h}
}

// Segment is the segment that the byte at l is read from.
func (d *DirSource) Segment(l LSN) Segment {
	last := d.size.Floor(l) + LSN(d.size-1)
	return d.size.SegmentAt(d.history.TimelineAt(d.timeline, last), l)
}

// ReadWAL implements Source. A segment without a file is fs.ErrNotExist, a file that is too short io.ErrUnexpectedEOF.
func (d *DirSource) ReadWAL(p []byte, at LSN) (int, error) {
	done := 0
	for done < len(p) {
		l := at + LSN(done)
		part := p[done:min(len(p), done+int(int64(d.size)-d.size.Offset(l)))]
		n, err := d.readSegment(part, l)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

func (d *DirSource) readSegment(p []byte, at LSN) (int, error) {
	name := d.Segment(at).Name(d.size)
	for {
		if err := d.open(name); err != nil {
			return 0, fmt.Errorf("reading WAL at %s: %w", at, err)
		}
		n, err := d.file.ReadAt(p, d.size.Offset(at))
		// The server recycles segments by renaming them: an open file can turn into another segment.
		same, serr := d.current()
		switch {
		case serr != nil:
			d.forget()
			return 0, fmt.Errorf("reading WAL at %s: %w", at, serr)
		case !same:
			d.forget()
			continue
		case errors.Is(err, io.EOF):
			return n, fmt.Errorf("reading WAL at %s: %s ends early: %w", at, name, io.ErrUnexpectedEOF)
		case err != nil:
			return n, fmt.Errorf("reading WAL at %s: %w", at, err)
		}
		return n, nil
	}
}

// open makes name the open file.
func (d *DirSource) open(name string) error {
	if d.file != nil && d.name == name {
		return nil
	}
	d.forget()
	f, err := os.Open(filepath.Join(d.dir, name))
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	d.file, d.name, d.info = f, name, info
	return nil
}

// current tells whether the open file still has its name.
func (d *DirSource) current() (bool, error) {
	now, err := os.Stat(filepath.Join(d.dir, d.name))
	if err != nil {
		return false, err
	}
	return os.SameFile(now, d.info), nil
}

func (d *DirSource) forget() {
	if d.file != nil {
		_ = d.file.Close() // read only: nothing can be lost
		d.file = nil
	}
}

// Close closes the open file. The source may be used again.
func (d *DirSource) Close() error {
	if d.file == nil {
		return nil
	}
	err := d.file.Close()
	d.file = nil
	return err
}
