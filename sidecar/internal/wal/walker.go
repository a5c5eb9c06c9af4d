package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"iter"
)

// EndError says that no valid record begins at At. Everything before was complete and valid; what is there now is
// absent, unfinished, older WAL, or damaged, and Err says how one can tell. It is the normal end of a walk. All other
// errors of a walk mean that it could not be told.
type EndError struct {
	At  LSN // where the next record would begin: the End of the last one
	Err error
}

// Error implements error.
func (e *EndError) Error() string { return fmt.Sprintf("valid WAL ends at %s: %v", e.At, e.Err) }

// Unwrap gives the reason.
func (e *EndError) Unwrap() error { return e.Err }

var errRecord = errors.New("not a WAL record")

// WalkOptions say what a walk accepts.
type WalkOptions struct {
	PageRules
	// Limit keeps the walk from reading at or past this position, such as the flush LSN; 0 is no limit.
	Limit LSN
}

// Walker reads one record after the other and believes none of them before page headers, checksum, length, the link to
// the record before and the timelines have agreed (as src/backend/access/transam/xlogreader.c does). Records of any
// length pass through a fixed buffer. It is for one goroutine at a time.
type Walker struct {
	window window
	next   LSN // where the next record begins, possibly at a page border
	prev   LSN // start of the record before, 0 if not known

	// The record being read.
	header  [recordHeaderSize]byte
	data    [maxRecordData]byte
	crc     uint32
	dataLen int
}

// NewWalker walks from a position where a record begins: the End of another, a redo position, or what FirstRecord
// found.
func NewWalker(src Source, from LSN, opt WalkOptions) *Walker {
	return &Walker{window: window{src: src, opt: opt}, next: from}
}

// Next is the next record. It fails with an *EndError when there is none, and may be called again then, to see whether
// more was written in the meantime; other errors come from the source.
func (w *Walker) Next() (Record, error) {
	r, err := w.read(w.next, 0)
	if err != nil {
		w.window.drop()
		if errors.Is(err, errRecord) || errors.Is(err, ErrPage) || endsHere(err) {
			err = &EndError{At: w.next, Err: err}
		}
		return Record{}, err
	}
	w.prev, w.next = r.Start, r.End
	return r, nil
}

// Records are the records that begin before to. An error comes last; without one the walk has reached to.
func (w *Walker) Records(to LSN) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for w.start() < to {
			r, err := w.Next()
			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

// start is where the next record's first byte is.
func (w *Walker) start() LSN {
	switch {
	case w.next%PageSize != 0:
		return w.next
	case w.window.opt.SegmentSize.Offset(w.next) == 0:
		return w.next + longHeaderSize
	default:
		return w.next + shortHeaderSize
	}
}

// read reads the record at the given position. Lost is the start of a record that was given up here, 0 if none.
func (w *Walker) read(at, lost LSN) (Record, error) {
	pageAt := at - at%PageSize
	h, body, err := w.window.page(pageAt)
	if err != nil {
		return Record{}, err
	}
	offset := int(at % PageSize)
	if offset == 0 {
		offset = h.Size()
		at += LSN(offset)
	}
	if offset < h.Size()+int(min(align8(uint64(h.Remaining)), PageSize)) || offset%8 != 0 {
		return Record{}, fmt.Errorf("%w at %s: no record can begin there", errRecord, at)
	}
	body = body[min(offset-h.Size(), len(body)):]
	if len(body) < 4 {
		return Record{}, w.window.short(at)
	}
	r := Record{Start: at, Timeline: h.Timeline, Length: binary.LittleEndian.Uint32(body)}
	if r.Length < recordHeaderSize || r.Length > maxRecordLength {
		return Record{}, fmt.Errorf("%w at %s: length %d", errRecord, at, r.Length)
	}
	w.crc, w.dataLen = 0, 0

	left, err := w.consume(&r, h, body, PageSize-offset, 0)
	for err == nil && left > 0 {
		pageAt += PageSize
		if h, body, err = w.window.page(pageAt); err != nil {
			break
		}
		if h.overwrites() && lost == 0 {
			return w.read(pageAt, at)
		}
		if uint64(h.Remaining) != uint64(left) {
			return Record{}, fmt.Errorf("%w at %s: %d bytes of it should follow at %s, which has %d", errRecord, at,
				left, pageAt, h.Remaining)
		}
		left, err = w.consume(&r, h, body, PageSize-h.Size(), int(r.Length)-left)
	}
	if err != nil {
		return Record{}, err
	}
	err = w.finish(&r, lost)
	return r, err
}

// consume takes the bytes of r that are on one page, of which there are room at most, done having been taken before.
// It tells how many are left, and sets End to the end of those taken.
func (w *Walker) consume(r *Record, h PageHeader, body []byte, room, done int) (left int, err error) {
	n := min(int(r.Length)-done, room)
	if len(body) < n {
		return 0, w.window.short(h.Address + PageSize - LSN(room) + LSN(len(body)))
	}
	body = body[:n]
	r.End = h.Address + PageSize - LSN(room) + LSN(align8(uint64(n)))
	left = int(r.Length) - done - n
	if done < recordHeaderSize {
		k := copy(w.header[done:], body)
		if done+k < recordHeaderSize {
			return left, nil
		}
		body = body[k:]
		if err := w.checkHeader(r, h); err != nil {
			return 0, err
		}
	}
	w.crc = crc32.Update(w.crc, castagnoli, body)
	w.dataLen += copy(w.data[w.dataLen:], body)
	return left, nil
}

// checkHeader decodes XLogRecord and refuses what cannot be one, before the rest is read.
func (w *Walker) checkHeader(r *Record, h PageHeader) error {
	r.XID = binary.LittleEndian.Uint32(w.header[4:])
	r.Prev = LSN(binary.LittleEndian.Uint64(w.header[8:]))
	r.Info = w.header[16]
	r.Manager = ResourceManager(w.header[17])
	if w.prev != 0 && r.Prev != w.prev || r.Prev >= r.Start {
		return fmt.Errorf("%w at %s: it claims to follow one at %s", errRecord, r.Start, r.Prev)
	}
	if r.Manager > lastBuiltinManager && (r.Manager < firstCustomManager || h.Major() < 15) {
		return fmt.Errorf("%w at %s: unknown resource manager %d", errRecord, r.Start, r.Manager)
	}
	return nil
}

// finish checks the checksum, which covers the content first and the header after it.
func (w *Walker) finish(r *Record, lost LSN) error {
	w.crc = crc32.Update(w.crc, castagnoli, w.header[:recordCRCOffset])
	if w.crc != binary.LittleEndian.Uint32(w.header[recordCRCOffset:]) {
		return fmt.Errorf("%w at %s: the checksum does not match", errRecord, r.Start)
	}
	r.Data = w.data[:w.dataLen]
	if r.IsSwitch() {
		r.End = w.window.opt.SegmentSize.Ceil(r.End)
	}
	if lost != 0 {
		// xl_overwrite_contrecord begins with the position of the record that was given up.
		data, ok := mainData(r.Data)
		if !r.isXLOG(infoOverwriteContRecord) || !ok || len(data) < 8 || LSN(binary.LittleEndian.Uint64(data)) != lost {
			return fmt.Errorf("%w at %s: it does not account for the unfinished one at %s", errRecord, r.Start, lost)
		}
	}
	return nil
}
