package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// PageSize is the size of a WAL page, XLOG_BLCKSZ. Servers built with another one are not supported.
const PageSize = 8192

// Sizes of the two page headers, SizeOfXLogShortPHD and SizeOfXLogLongPHD of src/include/access/xlog_internal.h. The
// first page of each segment has the long one.
const (
	shortHeaderSize = 24
	longHeaderSize  = 40
)

// Flags in xlp_info.
const (
	flagContRecord          = 0x01 // XLP_FIRST_IS_CONTRECORD: begins inside a record
	flagLongHeader          = 0x02 // XLP_LONG_HEADER
	flagRemovable           = 0x04 // XLP_BKP_REMOVABLE
	flagOverwriteContRecord = 0x08 // XLP_FIRST_IS_OVERWRITE_CONTRECORD: the record before was given up
	allFlags                = 0x0F
)

// ErrPage is matched by errors about the content of a WAL page: it is not the page that belongs there, because it was
// never written, was recycled from an older segment, or is damaged.
var ErrPage = errors.New("not the expected WAL page")

// ErrZeroPage is matched, like ErrPage, for a page of nothing but zeros. A segment that was switched early
// (pg_switch_wal, a backup) has only such pages from the one after the switch on; so have segments that were never
// written. Below the flush position they are therefore right if the segment's first page is not zero and everything
// that follows in the segment is.
var ErrZeroPage = fmt.Errorf("%w: all zeros", ErrPage)

// PageHeader is the header of a WAL page (XLogPageHeaderData and XLogLongPageHeaderData).
type PageHeader struct {
	Magic     uint16   // differs between majors, see Major
	Timeline  Timeline // of the first record that begins on the page
	Address   LSN      // of the page itself
	Remaining uint32   // bytes of the record that the page begins inside of, still to come
	info      uint16

	// Of a long header only, otherwise 0.
	SystemIdentifier uint64
	SegmentSize      SegmentSize
	blockSize        uint32
}

// Long tells whether the header is that of a segment's first page.
func (h PageHeader) Long() bool { return h.info&flagLongHeader != 0 }

// Size is the number of bytes of the header.
func (h PageHeader) Size() int {
	if h.Long() {
		return longHeaderSize
	}
	return shortHeaderSize
}

func (h PageHeader) continues() bool  { return h.info&flagContRecord != 0 }
func (h PageHeader) overwrites() bool { return h.info&flagOverwriteContRecord != 0 }

// Major is the PostgreSQL major that writes this magic number (XLOG_PAGE_MAGIC, xlog_internal.h), 0 for an unknown one.
func (h PageHeader) Major() int { return majorOfMagic(h.Magic) }

func majorOfMagic(magic uint16) int {
	switch magic {
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// ParsePageHeader decodes the header without judging it, except that the bytes must suffice: 24, or 40 for a long one.
func ParsePageHeader(page []byte) (PageHeader, error) {
	if len(page) < shortHeaderSize {
		return PageHeader{}, fmt.Errorf("%w: %d bytes are too few for a header", ErrPage, len(page))
	}
	h := PageHeader{
		Magic:     binary.LittleEndian.Uint16(page),
		info:      binary.LittleEndian.Uint16(page[2:]),
		Timeline:  Timeline(binary.LittleEndian.Uint32(page[4:])),
		Address:   LSN(binary.LittleEndian.Uint64(page[8:])),
		Remaining: binary.LittleEndian.Uint32(page[16:]),
	}
	if h.Long() {
		if len(page) < longHeaderSize {
			return PageHeader{}, fmt.Errorf("%w: %d bytes are too few for a long header", ErrPage, len(page))
		}
		h.SystemIdentifier = binary.LittleEndian.Uint64(page[24:])
		h.SegmentSize = SegmentSize(binary.LittleEndian.Uint32(page[32:]))
		h.blockSize = binary.LittleEndian.Uint32(page[36:])
	}
	return h, nil
}

// PageRules are what a WAL page must agree with.
type PageRules struct {
	SegmentSize SegmentSize
	// MaxTimeline is the newest timeline that may have written the page. Older ones may too: the first segment of a
	// timeline begins with a copy of its parent's.
	MaxTimeline Timeline
	// SystemIdentifier is compared on the first page of each segment, unless it is 0.
	SystemIdentifier uint64
	// Major is the only one whose pages are accepted; 0 accepts 14 to 18.
	Major int
}

// Check tells whether page is what a server wrote at the page border at: a known magic number, the page's own address,
// a possible timeline, and on the first page of a segment the right size and system. It needs no more of the page than
// its header, 40 bytes at most, to tell a good one, does not allocate unless it fails, and its errors match ErrPage. Content behind the
// header is for the checksums of records to vouch for. Zeros are an error of their own, ErrZeroPage, which some callers
// expect.
func (r PageRules) Check(page []byte, at LSN) error {
	_, err := r.parse(page, at)
	return err
}

func (r PageRules) parse(page []byte, at LSN) (PageHeader, error) {
	h, err := ParsePageHeader(page)
	if err != nil {
		return h, fmt.Errorf("page at %s: %w", at, err)
	}
	if h == (PageHeader{}) && isZero(page) {
		return h, fmt.Errorf("page at %s: %w", at, ErrZeroPage)
	}
	return h, r.checkHeader(h, at)
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (r PageRules) checkHeader(h PageHeader, at LSN) error {
	first := r.SegmentSize.Offset(at) == 0
	major := h.Major()
	switch {
	case major == 0 || r.Major != 0 && major != r.Major:
		return fmt.Errorf("page at %s: %w: magic number %04X", at, ErrPage, h.Magic)
	case h.Address != at:
		return fmt.Errorf("page at %s: %w: it says it is the one at %s", at, ErrPage, h.Address)
	case h.Timeline == 0 || h.Timeline > r.MaxTimeline:
		return fmt.Errorf("page at %s: %w: timeline %d, expected at most %d", at, ErrPage, h.Timeline, r.MaxTimeline)
	case h.info&^allFlags != 0:
		return fmt.Errorf("page at %s: %w: flags %04X", at, ErrPage, h.info)
	case h.continues() != (h.Remaining != 0):
		return fmt.Errorf("page at %s: %w: %d bytes of a record remain, flags %04X", at, ErrPage, h.Remaining, h.info)
	case h.Long() != first:
		return fmt.Errorf("page at %s: %w: the header of another place in a segment", at, ErrPage)
	case first && h.SegmentSize != r.SegmentSize:
		return fmt.Errorf("page at %s: %w: segments of %d bytes, expected %d", at, ErrPage, h.SegmentSize, r.SegmentSize)
	case first && h.blockSize != PageSize:
		return fmt.Errorf("page at %s: %w: pages of %d bytes, expected %d", at, ErrPage, h.blockSize, PageSize)
	case first && r.SystemIdentifier != 0 && h.SystemIdentifier != r.SystemIdentifier:
		return fmt.Errorf("page at %s: %w: written by system %d, expected %d", at, ErrPage,
			h.SystemIdentifier, r.SystemIdentifier)
	}
	return nil
}

// CheckPage is PageRules.Check for who knows no more than the size and the timeline. LSN at must be a page border.
func CheckPage(page []byte, at LSN, z SegmentSize, maxTimeline Timeline) error {
	return PageRules{SegmentSize: z, MaxTimeline: maxTimeline}.Check(page, at)
}
