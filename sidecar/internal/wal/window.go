package wal

import (
	"fmt"
	"io"
)

// How much is read at once.
const windowSize = 16 * PageSize

// window is the part of the WAL that a Walker has in memory, and the check of its pages.
type window struct {
	src Source
	opt WalkOptions

	buf   []byte
	start LSN   // of buf, a page border
	n     int   // valid bytes in buf
	err   error // why there are not more

	// The newest page so far, which timelines must not go back from, and which major wrote it.
	lastPage     LSN
	lastTimeline Timeline
	magic        uint16
}

// page is the header and the content of the page at a page border, the content being cut where the source or the limit
// ends. It is valid until the next call.
func (w *window) page(at LSN) (PageHeader, []byte, error) {
	if at < w.start || at >= w.start+LSN(w.n) {
		w.fill(at)
	}
	page := w.buf[min(at-w.start, LSN(w.n)):w.n]
	page = page[:min(len(page), PageSize)]
	if len(page) < shortHeaderSize || len(page) < longHeaderSize && w.opt.SegmentSize.Offset(at) == 0 {
		return PageHeader{}, nil, w.short(at)
	}
	h, err := w.opt.parse(page, at)
	if err != nil {
		return h, nil, err
	}
	if w.magic != 0 && h.Magic != w.magic {
		return h, nil, fmt.Errorf("page at %s: %w: magic number %04X after %04X", at, ErrPage, h.Magic, w.magic)
	}
	w.magic = h.Magic
	if at > w.lastPage {
		if h.Timeline < w.lastTimeline {
			return h, nil, fmt.Errorf("page at %s: %w: timeline %d after %d", at, ErrPage, h.Timeline, w.lastTimeline)
		}
		w.lastPage, w.lastTimeline = at, h.Timeline
	}
	return h, page[h.Size():], nil
}

// fill reads what is there from at on, up to the window's size, the end of the segment and the limit.
func (w *window) fill(at LSN) {
	if w.buf == nil {
		w.buf = make([]byte, windowSize)
	}
	w.start, w.n, w.err = at, 0, nil
	room := min(windowSize, int64(w.opt.SegmentSize)-w.opt.SegmentSize.Offset(at))
	if w.opt.Limit != 0 {
		if at >= w.opt.Limit {
			room = 0
		}
		room = int64(min(uint64(room), uint64(w.opt.Limit-at)))
	}
	if room == 0 {
		return
	}
	w.n, w.err = w.src.ReadWAL(w.buf[:room], at)
}

// short is why the bytes at a position are not there.
func (w *window) short(at LSN) error {
	if w.err != nil {
		return w.err
	}
	return fmt.Errorf("nothing is to be read at %s: %w", at, io.EOF)
}

// drop forgets what was read, which may be different by the time of the next look.
func (w *window) drop() { w.start, w.n = 0, 0 }
