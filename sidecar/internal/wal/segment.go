package wal

import (
	"fmt"
	"strconv"
)

// Limits of wal_segment_size: a power of two between these (src/include/access/xlog_internal.h, IsValidWalSegSize).
const (
	MinSegmentSize     = 1 << 20
	MaxSegmentSize     = 1 << 30
	DefaultSegmentSize = 16 << 20
)

// SegmentSize is wal_segment_size in bytes, as pg_control records it.
type SegmentSize int64

// Valid tells whether PostgreSQL accepts the size.
func (z SegmentSize) Valid() bool {
	return z >= MinSegmentSize && z <= MaxSegmentSize && z&(z-1) == 0
}

// Segment is one WAL file: the timeline in its name and its number, the LSN divided by the segment size.
type Segment struct {
	Timeline Timeline
	Number   uint64
}

// SegmentAt is the segment of timeline t that holds the byte at l.
func (z SegmentSize) SegmentAt(t Timeline, l LSN) Segment {
	return Segment{Timeline: t, Number: uint64(l) / uint64(z)}
}

// SegmentBefore is the segment that holds the byte before l: the one that a position at a border has completed.
func (z SegmentSize) SegmentBefore(t Timeline, l LSN) Segment { return z.SegmentAt(t, l-1) }

// Offset is the place of l inside its segment.
func (z SegmentSize) Offset(l LSN) int64 { return int64(uint64(l) % uint64(z)) }

// Floor is the first LSN of the segment that holds l.
func (z SegmentSize) Floor(l LSN) LSN { return l - LSN(z.Offset(l)) }

// Ceil is l itself at a segment border, otherwise the end of the segment that holds l.
func (z SegmentSize) Ceil(l LSN) LSN {
	if z.Offset(l) == 0 {
		return l
	}
	return z.Floor(l) + LSN(z)
}

// Start is the first LSN of s.
func (s Segment) Start(z SegmentSize) LSN { return LSN(s.Number * uint64(z)) }

// End is the first LSN after s.
func (s Segment) End(z SegmentSize) LSN { return LSN((s.Number + 1) * uint64(z)) }

// Next is the following segment of the same timeline.
func (s Segment) Next() Segment { return Segment{s.Timeline, s.Number + 1} }

// Name is the file name of s in pg_wal: 24 upper-case hexadecimal digits (XLogFileName, xlog_internal.h).
func (s Segment) Name(z SegmentSize) string {
	per := uint64(1<<32) / uint64(z)
	return fmt.Sprintf("%08X%08X%08X", uint32(s.Timeline), uint32(s.Number/per), uint32(s.Number%per))
}

// IsSegmentName tells whether name has the form of a WAL file name, whatever the segment size.
func IsSegmentName(name string) bool { return len(name) == 24 && isUpperHex(name) }

// ParseSegment is the inverse of Name. A name that cannot exist with this segment size is an error.
func ParseSegment(name string, z SegmentSize) (Segment, error) {
	if !IsSegmentName(name) {
		return Segment{}, fmt.Errorf("%q is not the name of a WAL segment: expected 24 upper-case hexadecimal digits", name)
	}
	tli, _ := strconv.ParseUint(name[:8], 16, 32)
	hi, _ := strconv.ParseUint(name[8:16], 16, 32)
	lo, _ := strconv.ParseUint(name[16:], 16, 32)
	if tli == 0 {
		return Segment{}, fmt.Errorf("%q is not the name of a WAL segment: there is no timeline 0", name)
	}
	if !z.Valid() {
		return Segment{}, fmt.Errorf("a WAL segment cannot have %d bytes", z)
	}
	per := uint64(1<<32) / uint64(z)
	if lo >= per {
		return Segment{}, fmt.Errorf("%q is not a WAL segment of %d bytes: the last part must be below %X", name, z, per)
	}
	return Segment{Timeline: Timeline(tli), Number: hi*per + lo}, nil
}

func isUpperHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}
