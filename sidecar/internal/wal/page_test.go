package wal_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

func TestCheckPage(t *testing.T) {
	b := newBuilder(5 << 20)
	b.timeline = 3
	b.add(10, 0, make([]byte, 3*wal.PageSize))
	first, second := b.b[:wal.PageSize], b.b[wal.PageSize:2*wal.PageSize]
	at := b.from + wal.PageSize
	for name, tt := range map[string]struct {
		page []byte
		at   wal.LSN
		ok   bool
	}{
		"first":                 {first, b.from, true},
		"second":                {second, at, true},
		"only a header":         {second[:24], at, true},
		"only a long header":    {first[:40], b.from, true},
		"too short":             {second[:23], at, false},
		"too short, long":       {first[:39], b.from, false},
		"nothing":               {nil, at, false},
		"of another place":      {second, at + wal.PageSize, false},
		"in a first's place":    {changed(second, 8, byte(b.from), byte(b.from>>8), byte(b.from>>16)), b.from, false},
		"no border":             {second, at + 8, false},
		"unknown magic":         {changed(second, 0, 0x0C), at, false},
		"of 18":                 {changed(second, 0, 0x18), at, true},
		"timeline 0":            {changed(second, 4, 0), at, false},
		"an older timeline":     {changed(second, 4, 2), at, true},
		"a later timeline":      {changed(second, 4, 4), at, false},
		"unknown flags":         {changed(second, 2, 0x11), at, false},
		"continues nothing":     {changed(second, 16, 0, 0, 0, 0), at, false},
		"remains and is not":    {changed(second, 2, 0), at, false},
		"another segment size":  {changed(first, 34, 0x20), b.from, false},
		"another page size":     {changed(first, 37, 0x40), b.from, false},
		"a long header, second": {changed(second, 2, 0x03), at, false},
	} {
		err := wal.CheckPage(tt.page, tt.at, mb, 3)
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, wal.ErrPage) {
			t.Errorf("%s: %v", name, err)
		}
		if errors.Is(err, wal.ErrZeroPage) {
			t.Errorf("%s: taken for zeros", name)
		}
	}
	rules := wal.PageRules{SegmentSize: mb, MaxTimeline: 3, SystemIdentifier: builderSystem, Major: 15}
	if err := rules.Check(first, b.from); err != nil {
		t.Error(err)
	}
	rules.SystemIdentifier++
	if err := rules.Check(first, b.from); !errors.Is(err, wal.ErrPage) {
		t.Errorf("another system: %v", err)
	}
	if err := rules.Check(changed(second, 0, 0x18), at); !errors.Is(err, wal.ErrPage) {
		t.Errorf("another major: %v", err)
	}
	if err := rules.Check(make([]byte, wal.PageSize), at); !errors.Is(err, wal.ErrZeroPage) || !errors.Is(err, wal.ErrPage) {
		t.Errorf("zeros: %v", err)
	}
	if err := rules.Check(changed(make([]byte, wal.PageSize), 8000, 1), at); err == nil || errors.Is(err, wal.ErrZeroPage) {
		t.Errorf("zeros but for one byte: %v", err)
	}
}

// changed is a copy of a page with other bytes at an offset.
func changed(page []byte, at int, b ...byte) []byte {
	page = append([]byte(nil), page...)
	copy(page[at:], b)
	return page
}

func TestMajorOfAPage(t *testing.T) {
	for magic, want := range map[uint16]int{
		0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18, 0xD106: 0, 0: 0, 0xD119: 0,
	} {
		page := make([]byte, 24)
		binary.LittleEndian.PutUint16(page, magic)
		if h, err := wal.ParsePageHeader(page); err != nil || h.Major() != want {
			t.Errorf("%X is of %d (%v), want %d", magic, h.Major(), err, want)
		}
	}
}

func TestCheckPageDoesNotAllocate(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, make([]byte, 10))
	if n := testing.AllocsPerRun(100, func() {
		if err := wal.CheckPage(b.b, b.from, mb, 1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCheckPage(b *testing.B) {
	w := newBuilder(5 << 20)
	w.add(10, 0, make([]byte, 10))
	for b.Loop() {
		if err := wal.CheckPage(w.b, w.from, mb, 1); err != nil {
			b.Fatal(err)
		}
	}
}
