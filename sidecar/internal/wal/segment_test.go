package wal_test

import (
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

func TestSegmentNames(t *testing.T) {
	const gb = wal.SegmentSize(1 << 30)
	for _, tt := range []struct {
		name  string
		size  wal.SegmentSize
		tli   wal.Timeline
		start wal.LSN
	}{
		{"000000010000000000000001", wal.DefaultSegmentSize, 1, 0x1000000},
		{"0000000A00000016000000B3", wal.DefaultSegmentSize, 10, 0x16B3000000},
		{"00000001000000FF000000FF", wal.DefaultSegmentSize, 1, 0xFFFF000000},
		{"000000010000000000000FFF", mb, 1, 0xFFF00000},
		{"000000010000000100000000", mb, 1, 1 << 32},
		{"FFFFFFFF0000000100000003", gb, 1<<32 - 1, 0x1C0000000},
	} {
		s, err := wal.ParseSegment(tt.name, tt.size)
		if err != nil || s.Timeline != tt.tli || s.Start(tt.size) != tt.start || s.Name(tt.size) != tt.name {
			t.Errorf("%s: %+v at %s, %v", tt.name, s, s.Start(tt.size), err)
		}
		if got := tt.size.SegmentAt(tt.tli, tt.start+1); got != s {
			t.Errorf("%s: the segment of its second byte is %+v", tt.name, got)
		}
		if got := tt.size.SegmentBefore(tt.tli, s.End(tt.size)); got != s {
			t.Errorf("%s: the segment before its end is %+v", tt.name, got)
		}
		if got := s.Next(); got.Start(tt.size) != s.End(tt.size) {
			t.Errorf("%s: the next begins at %s", tt.name, got.Start(tt.size))
		}
	}
	for _, tt := range []struct {
		name string
		size wal.SegmentSize
	}{
		{"", mb},
		{"00000001000000000000000", mb},
		{"0000000100000000000000011", mb},
		{"00000001000000000000000g", mb},
		{"00000001000000000000000a", mb},
		{"000000010000000000000001.partial", mb},
		{"00000002.history", mb},
		{"000000010000000000000100", wal.DefaultSegmentSize},
		{"000000010000000000001000", mb},
		{"000000010000000000000004", gb},
		{"000000000000000000000001", mb},
		{"000000010000000000000001", 0},
		{"000000010000000000000001", 3 << 20},
	} {
		if s, err := wal.ParseSegment(tt.name, tt.size); err == nil {
			t.Errorf("%q with segments of %d bytes is taken for %+v", tt.name, tt.size, s)
		}
	}
}

func TestSegmentBorders(t *testing.T) {
	for _, tt := range []struct{ at, floor, ceil wal.LSN }{
		{0, 0, 0}, {1, 0, 1 << 20}, {1<<20 - 1, 0, 1 << 20}, {1 << 20, 1 << 20, 1 << 20}, {1<<20 + 1, 1 << 20, 2 << 20},
	} {
		if f, c := mb.Floor(tt.at), mb.Ceil(tt.at); f != tt.floor || c != tt.ceil {
			t.Errorf("%s lies between %s and %s, want %s and %s", tt.at, f, c, tt.floor, tt.ceil)
		}
	}
	for size, want := range map[wal.SegmentSize]bool{
		0: false, -1 << 20: false, 1 << 19: false, 1 << 20: true, 3 << 20: false, 16 << 20: true, 1 << 30: true, 1 << 31: false,
	} {
		if size.Valid() != want {
			t.Errorf("%d bytes are a segment size: %v", size, size.Valid())
		}
	}
}

func FuzzParseSegment(f *testing.F) {
	f.Fuzz(func(t *testing.T, name string, shift uint8) {
		z := wal.SegmentSize(1) << (20 + shift%11)
		s, err := wal.ParseSegment(name, z)
		if err != nil {
			return
		}
		if got := s.Name(z); got != name {
			t.Errorf("%q is %+v, whose name is %q", name, s, got)
		}
		if got := z.SegmentAt(s.Timeline, s.Start(z)); got != s {
			t.Errorf("%q is %+v, which begins in %+v", name, s, got)
		}
	})
}
