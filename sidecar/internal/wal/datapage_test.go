package wal_test

import (
	"encoding/binary"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

// plainChecksum is the algorithm as PostgreSQL's documentation of it puts it: 32 FNV-1a sums side by side, word by
// word. The bases are those of the code under test, which real pages vouch for (TestServer).
func plainChecksum(page []byte, block uint32) uint16 {
	sums := wal.ChecksumBases()
	step := func(i int, v uint32) {
		x := sums[i] ^ v
		sums[i] = x*16777619 ^ x>>17
	}
	for at := 0; at < len(page); at += 4 {
		v := binary.LittleEndian.Uint32(page[at:])
		if at == 8 {
			v &= 0xFFFF0000
		}
		step(at/4%32, v)
	}
	result := block
	for i := range sums {
		step(i, 0)
		step(i, 0)
		result ^= sums[i]
	}
	return uint16(result%65535 + 1)
}

func samplePage(size int) []byte {
	page := make([]byte, size)
	x := uint32(1)
	for i := range page {
		x = x*1664525 + 1013904223
		page[i] = byte(x >> 24)
	}
	return page
}

func TestPageChecksum(t *testing.T) {
	for _, size := range []int{1024, 8192, 32768} {
		page := samplePage(size)
		for _, block := range []uint32{0, 1, 131072, 1<<32 - 1} {
			want := plainChecksum(page, block)
			if got := wal.PageChecksum(page, block); got != want {
				t.Errorf("%d bytes, block %d: %d, want %d", size, block, got, want)
			}
			binary.LittleEndian.PutUint16(page[8:], want)
			if got := wal.PageChecksum(page, block); got != want || wal.StoredChecksum(page) != want {
				t.Errorf("%d bytes, block %d: the stored checksum counts: %d, want %d", size, block, got, want)
			}
		}
		for _, at := range []int{0, 7, 10, 11, 12, 500, size - 1} {
			before := wal.PageChecksum(page, 7)
			page[at] ^= 1
			if wal.PageChecksum(page, 7) == before {
				t.Errorf("byte %d of %d does not count", at, size)
			}
		}
	}
}

func TestDataPageHeader(t *testing.T) {
	page := make([]byte, 8192)
	if !wal.PageIsNew(page) {
		t.Error("zeros are no new page")
	}
	binary.LittleEndian.PutUint32(page, 0x16)
	binary.LittleEndian.PutUint32(page[4:], 0xB374D848)
	binary.LittleEndian.PutUint16(page[14:], 0x2000)
	if l := wal.PageLSN(page); l != 0x16B374D848 || wal.PageIsNew(page) {
		t.Errorf("LSN %s, new: %v", l, wal.PageIsNew(page))
	}
}

func BenchmarkPageChecksum(b *testing.B) {
	page := samplePage(8192)
	b.SetBytes(8192)
	for b.Loop() {
		wal.PageChecksum(page, 1)
	}
}
