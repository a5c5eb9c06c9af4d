package basebackup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/wal"
)

// The layout of a member that holds pages of a file: magic, size of the file, number of pages, their numbers in
// ascending order, the pages; little endian (incremental_page_file_reader.go of WAL-G).
const (
	incrementMagic = "wi1\x55"
	incrementHead  = 16
	incrementPage  = 8192
	// maxIncrement is the largest file of which pages are stored: the segment of a relation.
	maxIncrement = 1 << 30
)

// increment is the pages of a file that a delta stores.
type increment struct {
	blocks []uint32
	next   int // of blocks
	size   int64
}

func (i *increment) length() int64 {
	return incrementHead + int64(len(i.blocks))*(4+incrementPage)
}

func (i *increment) head() []byte {
	b := append([]byte(nil), incrementMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(i.size))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(i.blocks)))
	for _, n := range i.blocks {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

// run is the next pages that follow one another, as many as fit into limit bytes.
func (i *increment) run(limit int) (first uint32, n int) {
	first = i.blocks[i.next]
	for n = 1; i.next+n < len(i.blocks) && (n+1)*incrementPage <= limit && i.blocks[i.next+n] == first+uint32(n); {
		n++
	}
	return first, n
}

// comparison decides which pages of one file may differ from those in the parent.
type comparison struct {
	since   wal.LSN
	blocks  uint32 // that the file had in the parent
	visible []byte // the parent's marks; nil with page checksums
}

func compareWith(old archive.FileState, since wal.LSN) comparison {
	return comparison{since: since, blocks: uint32(old.Size / incrementPage), visible: old.Visible}
}

// changed tells whether a page has to be stored; sane is false for one that makes no sense, whose LSN proves nothing.
//
// A page whose LSN is older than the parent is what the parent holds, but for hints that may be lost, with these
// exceptions: one that the parent's copy of the file did not have; one without a real LSN, such as those of new GiST
// indexes (GistBuildLSN) and pages that were initialised and never used; and, without page checksums, one that was
// marked as visible to everybody since: the mark is in the visibility map as well, and that is stored.
func (c comparison) changed(page []byte, block uint32) (changed, sane bool) {
	if wal.PageIsNew(page) {
		return true, allZero(page)
	}
	if !wal.PageIsSane(page) {
		return true, false
	}
	// WAL begins with the second segment, so no record ends before the smallest possible size of one.
	lsn := wal.PageLSN(page)
	return block >= c.blocks || lsn >= c.since || lsn < wal.MinSegmentSize ||
		c.visible != nil && wal.PageAllVisible(page) && !marked(c.visible, block), true
}

// compare reads a file once and finds the pages to be stored; nil if the whole file has to be. Pages that change after
// they were looked at are in the WAL since the start of this snapshot.
func (s *stream) compare(f *os.File, c comparison, size int64) (*increment, error) {
	inc := &increment{size: size}
	most := int(size / incrementPage / 2) // more than this is not worth the loss of the compression's context
	for at := int64(0); at < size; {
		n := int(min(size-at, int64(len(s.chunk))))
		if err := s.wait(n); err != nil {
			return nil, err
		}
		chunk := s.chunk[:n]
		if _, err := f.ReadAt(chunk, at); errors.Is(err, io.EOF) {
			return nil, nil // shortened in this moment: the WAL says so too
		} else if err != nil {
			return nil, fmt.Errorf("reading %s at byte %d: %w", s.entry.name(), at, err)
		}
		bad, err := s.check(s.entry, f, chunk, at)
		if err != nil {
			return nil, fmt.Errorf("verifying %s: %w", s.entry.name(), err)
		}
		s.look(chunk, at)
		at += int64(n)
		s.count(at)
		s.reading.metrics.read.Add(float64(n))
		s.checked = at
		if bad > 0 || !inc.add(c, chunk, at-int64(n)) || len(inc.blocks) > most {
			return nil, nil
		}
	}
	return inc, nil
}

// add adds the pages of a chunk that have to be stored, and tells whether all make sense.
func (i *increment) add(c comparison, chunk []byte, at int64) bool {
	for o := 0; o < len(chunk); o += incrementPage {
		block := uint32((at + int64(o)) / incrementPage)
		changed, sane := c.changed(chunk[o:o+incrementPage], block)
		if !sane {
			return false
		}
		if changed {
			i.blocks = append(i.blocks, block)
		}
	}
	return true
}

// pages makes the next pages of an increment ready, or ends the file. Those that are gone meanwhile are zeros.
func (s *stream) pages() error {
	i := s.inc
	if i.next == len(i.blocks) {
		return s.end(0)
	}
	first, n := i.run(len(s.chunk))
	i.next += n
	chunk := s.chunk[:n*incrementPage]
	if err := s.wait(len(chunk)); err != nil {
		return err
	}
	got, err := s.file.ReadAt(chunk, int64(first)*incrementPage)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("reading %s at block %d: %w", s.entry.name(), first, err)
	}
	clear(chunk[got:])
	s.reading.metrics.read.Add(float64(got))
	s.ready = chunk
	return nil
}

// look notes which pages are marked as visible to everybody.
func (s *stream) look(chunk []byte, at int64) {
	if s.state.Visible == nil {
		return
	}
	for o := 0; o+incrementPage <= len(chunk); o += incrementPage {
		block := uint32((at + int64(o)) / incrementPage)
		bit := byte(1) << (block % 8)
		s.state.Visible[block/8] &^= bit
		if wal.PageAllVisible(chunk[o:]) {
			s.state.Visible[block/8] |= bit
		}
	}
}

// marks is room for a bit per page of a file.
func marks(size int64) []byte { return make([]byte, size/incrementPage/8+1) }

func marked(bits []byte, block uint32) bool {
	return int(block/8) < len(bits) && bits[block/8]&(1<<(block%8)) != 0
}
