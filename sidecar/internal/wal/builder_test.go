package wal_test

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"outrider.dev/sidecar/internal/wal"
)

const builderSystem = 7711239092525670219

// memory is WAL in memory, from a position on.
type memory struct {
	from wal.LSN
	b    []byte
}

func (m memory) ReadWAL(p []byte, at wal.LSN) (int, error) {
	if at < m.from || at > m.from+wal.LSN(len(m.b)) {
		return 0, fmt.Errorf("reading at %s: %w", at, io.EOF)
	}
	n := copy(p, m.b[at-m.from:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// builder writes WAL as a server does, for cases that servers are hard to bring to.
type builder struct {
	memory
	timeline wal.Timeline
	magic    uint16
	prev     wal.LSN
	starts   []wal.LSN
	ends     []wal.LSN
}

// newBuilder begins at a page border.
func newBuilder(from wal.LSN) *builder {
	return &builder{memory: memory{from: from}, timeline: 1, magic: 0xD110}
}

func (b *builder) at() wal.LSN { return b.from + wal.LSN(len(b.b)) }

func (b *builder) options() wal.WalkOptions {
	return wal.WalkOptions{PageRules: wal.PageRules{
		SegmentSize: mb, MaxTimeline: b.timeline, SystemIdentifier: builderSystem,
	}}
}

// page begins a page, inside of a record of which bytes remain.
func (b *builder) page(remaining int, flags uint16) {
	at, size := b.at(), 24
	if mb.Offset(at) == 0 {
		size, flags = 40, flags|0x02
	}
	if remaining > 0 {
		flags |= 0x01
	}
	h := make([]byte, size)
	binary.LittleEndian.PutUint16(h, b.magic)
	binary.LittleEndian.PutUint16(h[2:], flags)
	binary.LittleEndian.PutUint32(h[4:], uint32(b.timeline))
	binary.LittleEndian.PutUint64(h[8:], uint64(at))
	binary.LittleEndian.PutUint32(h[16:], uint32(remaining))
	if size == 40 {
		binary.LittleEndian.PutUint64(h[24:], builderSystem)
		binary.LittleEndian.PutUint32(h[32:], uint32(mb))
		binary.LittleEndian.PutUint32(h[36:], wal.PageSize)
	}
	b.b = append(b.b, h...)
}

// encode is a record with its checksum.
func (b *builder) encode(manager wal.ResourceManager, info uint8, body []byte) []byte {
	r := make([]byte, 24, 24+len(body))
	binary.LittleEndian.PutUint32(r, uint32(24+len(body)))
	binary.LittleEndian.PutUint32(r[4:], 700)
	binary.LittleEndian.PutUint64(r[8:], uint64(b.prev))
	r[16], r[17] = info, byte(manager)
	table := crc32.MakeTable(crc32.Castagnoli)
	binary.LittleEndian.PutUint32(r[20:], crc32.Update(crc32.Checksum(body, table), table, r[:20]))
	return append(r, body...)
}

// add writes a record and tells where it is.
func (b *builder) add(manager wal.ResourceManager, info uint8, body []byte) (start, end wal.LSN) {
	start, end = b.raw(b.encode(manager, info, body))
	if manager == wal.ManagerXLOG && info == 0x40 {
		end = mb.Ceil(end)
		b.b = append(b.b, make([]byte, end-b.at())...)
	}
	b.prev = start
	b.starts, b.ends = append(b.starts, start), append(b.ends, end)
	return start, end
}

// raw writes the bytes of a record, over as many pages as it takes.
func (b *builder) raw(r []byte) (start, end wal.LSN) {
	if b.at()%wal.PageSize == 0 {
		b.page(0, 0)
	}
	start = b.at()
	for {
		n := min(len(r), int(wal.PageSize-b.at()%wal.PageSize))
		b.b = append(b.b, r[:n]...)
		if r = r[n:]; len(r) == 0 {
			break
		}
		b.page(len(r), 0)
	}
	for len(b.b)%8 != 0 {
		b.b = append(b.b, 0)
	}
	return start, b.at()
}

// fill writes a record that leaves a number of bytes on the page, at least one record's header below its size.
func (b *builder) fill(left int) {
	if b.at()%wal.PageSize == 0 {
		b.page(0, 0)
	}
	room := int(wal.PageSize - b.at()%wal.PageSize)
	b.add(10, 0, make([]byte, room-left-24))
}
