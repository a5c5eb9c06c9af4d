package wal

import "encoding/binary"

// Offsets in the header of a page of a relation, PageHeaderData of src/include/storage/bufpage.h.
const (
	dataPageChecksum = 8  // pd_checksum
	dataPageFlags    = 10 // pd_flags
	dataPageLower    = 12 // pd_lower
	dataPageUpper    = 14 // pd_upper
	dataPageSpecial  = 16 // pd_special
	dataPageVersion  = 18 // pd_pagesize_version
	dataPageHeader   = 24

	dataPageAllVisible = 0x0004 // PD_ALL_VISIBLE
	dataPageFlagBits   = 0x0007 // PD_VALID_FLAG_BITS
	dataPageLayout     = 4      // PG_PAGE_LAYOUT_VERSION
)

// PageLSN is the position after the last WAL record that changed a page of a relation (pd_lsn). On a new page it means
// nothing. Page has at least 24 bytes.
func PageLSN(page []byte) LSN {
	return LSN(binary.LittleEndian.Uint32(page))<<32 | LSN(binary.LittleEndian.Uint32(page[4:]))
}

// PageIsNew tells whether a page of a relation was allocated and never initialised (PageIsNew, bufpage.h). It has no
// checksum.
func PageIsNew(page []byte) bool { return page[dataPageUpper] == 0 && page[dataPageUpper+1] == 0 }

// PageIsSane tells whether the header of a page that is not new makes sense (PageIsVerified,
// src/backend/storage/page/bufpage.c).
func PageIsSane(page []byte) bool {
	at := func(offset int) int { return int(binary.LittleEndian.Uint16(page[offset:])) }
	lower, upper, special := at(dataPageLower), at(dataPageUpper), at(dataPageSpecial)
	return at(dataPageFlags)&^dataPageFlagBits == 0 && at(dataPageVersion) == len(page)|dataPageLayout &&
		dataPageHeader <= lower && lower <= upper && upper <= special && special <= len(page) && special%8 == 0
}

// PageAllVisible tells whether a page of a table is marked as visible to everybody (PageIsAllVisible, bufpage.h). The
// mark is set without a change of the page's LSN, unless there are page checksums or wal_log_hints is on.
func PageAllVisible(page []byte) bool {
	return binary.LittleEndian.Uint16(page[dataPageFlags:])&dataPageAllVisible != 0
}

// StoredChecksum is the checksum in a page's header, to be compared with PageChecksum.
func StoredChecksum(page []byte) uint16 { return binary.LittleEndian.Uint16(page[dataPageChecksum:]) }

const (
	checksumLanes = 32
	checksumPrime = 16777619
)

// checksumBases is where each of the parallel sums begins (checksumBaseOffsets, src/include/storage/checksum_impl.h).
func checksumBases() [checksumLanes]uint32 {
	return [checksumLanes]uint32{
		0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
		0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
		0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
		0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
	}
}

// PageChecksum is the checksum that a page of a relation has on a cluster with data checksums (pg_checksum_page,
// src/include/storage/checksum_impl.h), never 0. The block number counts from the start of the relation's fork, across
// its files. The page is BLCKSZ bytes, a multiple of 128. New pages have none, see PageIsNew.
func PageChecksum(page []byte, block uint32) uint16 {
	// 32 sums run down the page side by side, each over every 32nd word. Eight at a time fit into registers.
	bases := checksumBases()
	var sum uint32
	for lane := 0; lane < checksumLanes; lane += 8 {
		sum ^= checksumEight(page, lane, bases[lane:lane+8])
	}
	return uint16((sum^block)%65535 + 1)
}

func checksumEight(page []byte, lane int, b []uint32) uint32 {
	s0, s1, s2, s3, s4, s5, s6, s7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
	for at := lane * 4; at+32 <= len(page); at += checksumLanes * 4 {
		row := page[at : at+32 : at+32]
		w2 := binary.LittleEndian.Uint32(row[8:])
		if at == 0 {
			w2 &^= 0xFFFF // the checksum itself counts as 0
		}
		s0 = checksumStep(s0, binary.LittleEndian.Uint32(row))
		s1 = checksumStep(s1, binary.LittleEndian.Uint32(row[4:]))
		s2 = checksumStep(s2, w2)
		s3 = checksumStep(s3, binary.LittleEndian.Uint32(row[12:]))
		s4 = checksumStep(s4, binary.LittleEndian.Uint32(row[16:]))
		s5 = checksumStep(s5, binary.LittleEndian.Uint32(row[20:]))
		s6 = checksumStep(s6, binary.LittleEndian.Uint32(row[24:]))
		s7 = checksumStep(s7, binary.LittleEndian.Uint32(row[28:]))
	}
	return checksumEnd(s0) ^ checksumEnd(s1) ^ checksumEnd(s2) ^ checksumEnd(s3) ^
		checksumEnd(s4) ^ checksumEnd(s5) ^ checksumEnd(s6) ^ checksumEnd(s7)
}

// checksumStep is FNV-1a with the high bits folded back in.
func checksumStep(sum, value uint32) uint32 {
	x := sum ^ value
	return x*checksumPrime ^ x>>17
}

// checksumEnd is two rounds of zeroes, which mix in the last words.
func checksumEnd(sum uint32) uint32 { return checksumStep(checksumStep(sum, 0), 0) }
