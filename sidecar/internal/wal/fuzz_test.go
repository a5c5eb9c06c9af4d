package wal_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

// FuzzWalker walks arbitrary bytes. With repair, what the fuzzer cannot guess is put right first: page headers, so that
// it gets at the records.
func FuzzWalker(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte, page uint8, limit uint16, repair bool) {
		from := wal.LSN(5<<20) + wal.LSN(page)*wal.PageSize // also over a segment border
		if repair {
			repairPages(b, from)
		}
		opt := wal.WalkOptions{PageRules: wal.PageRules{SegmentSize: mb, MaxTimeline: 3}}
		if limit > 0 {
			opt.Limit = from + wal.LSN(limit)
		}
		src := limited{t, memory{from, b}, opt.Limit}
		first, err := wal.FirstRecord(src, from, opt)
		if err != nil {
			if !errors.As(err, new(*wal.EndError)) {
				t.Errorf("the bytes can be read, but: %v", err)
			}
			return
		}
		end := first
		for r, err := range wal.NewWalker(src, first, opt).Records(from + 1<<30) {
			if err != nil {
				if last := (*wal.EndError)(nil); !errors.As(err, &last) || last.At != end {
					t.Errorf("the walk does not end at %s: %v", end, err)
				}
				break
			}
			checkWalked(t, r, end)
			end = r.End
		}
		if all := from + wal.LSN(len(b)); end > all+7 && mb.Offset(end) != 0 { // a switch is good for what follows it
			t.Errorf("valid WAL ends at %s, all there is at %s", end, all)
		}
		got, last, err := wal.EndOfValid(src, first, opt)
		if err != nil || got != end || last.End != end {
			t.Errorf("valid WAL ends at %s (%v) after %+v, walked to %s", got, err, last, end)
		}
	})
}

func checkWalked(t *testing.T, r wal.Record, end wal.LSN) {
	t.Helper()
	if r.Start < end || r.Start > end+wal.PageSize+40 || r.End < r.Start+24 || r.Prev >= r.Start || r.End%8 != 0 || r.Length < 24 {
		t.Errorf("after %s: %+v", end, r)
	}
	if len(r.Data) > int(r.Length)-24 || len(r.Data) > 128 {
		t.Errorf("%d bytes of data: %+v", len(r.Data), r)
	}
	_, commit := r.CommitTime()
	_, abort := r.AbortTime()
	if commit && abort || (commit || abort) && r.IsBookkeeping() {
		t.Errorf("contradictions: %+v", r)
	}
}

// limited fails the test when it is read past a limit.
type limited struct {
	t *testing.T
	memory
	limit wal.LSN
}

func (s limited) ReadWAL(p []byte, at wal.LSN) (int, error) {
	if s.limit != 0 && at+wal.LSN(len(p)) > s.limit {
		s.t.Errorf("%d bytes read at %s, the limit is %s", len(p), at, s.limit)
	}
	return s.memory.ReadWAL(p, at)
}

func repairPages(b []byte, from wal.LSN) {
	for off := 0; off+40 <= len(b); off += wal.PageSize {
		at := from + wal.LSN(off)
		binary.LittleEndian.PutUint16(b[off:], 0xD110)
		flags := binary.LittleEndian.Uint16(b[off+2:]) & 0x0C
		if binary.LittleEndian.Uint32(b[off+16:]) != 0 {
			flags |= 0x01
		}
		binary.LittleEndian.PutUint32(b[off+4:], 1)
		binary.LittleEndian.PutUint64(b[off+8:], uint64(at))
		if mb.Offset(at) == 0 {
			flags |= 0x02
			binary.LittleEndian.PutUint32(b[off+32:], uint32(mb))
			binary.LittleEndian.PutUint32(b[off+36:], wal.PageSize)
		}
		binary.LittleEndian.PutUint16(b[off+2:], flags)
	}
}
