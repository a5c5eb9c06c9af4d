package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// TestDamageEndsTheWalk changes one byte at a time: no record that has it may be believed, all before must be.
func TestDamageEndsTheWalk(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 0))
	from := wal.LSN(6<<20 - wal.PageSize)
	b := newBuilder(from)
	for b.at() < from+3*wal.PageSize/2 {
		b.add(10, 0, make([]byte, rnd.IntN(300)))
	}
	b.add(10, 0, make([]byte, 3*wal.PageSize/2))
	b.add(10, 0, nil)
	opt := b.options()
	opt.Major = 15 // or a bit makes the magic number that of another
	for i := 0; i < len(b.b); i++ {
		if i%wal.PageSize > 64 {
			i = min(i+rnd.IntN(8), len(b.b)-1) // every byte takes too long; all of them come in some run
		}
		at := from + wal.LSN(i)
		old := b.b[i]
		b.b[i] ^= 1 << rnd.IntN(8)
		starts, _, end := walk(t, b, from, opt)
		intact := len(starts) == len(b.starts)
		switch {
		case !slices.Equal(starts, b.starts[:len(starts)]):
			t.Fatalf("seed %d: %02X at %s makes up records", seed, b.b[i], at)
		case intact != harmless(b, at, old):
			t.Fatalf("seed %d: %02X at %s: all records believed: %v (%v)", seed, b.b[i], at, intact, end)
		case !intact && end.At > at:
			t.Fatalf("seed %d: %02X at %s is noticed only at %s", seed, b.b[i], at, end.At)
		case !intact && len(starts) < len(b.starts) && b.ends[len(starts)] <= at:
			t.Fatalf("seed %d: %02X at %s: the record before it is not believed: %v", seed, b.b[i], at, end)
		}
		b.b[i] = old
	}
}

// harmless tells whether no record depends on the byte at a position: padding, and parts of a page's header that mean
// nothing where they are.
func harmless(b *builder, at wal.LSN, old byte) bool {
	size := wal.LSN(24)
	if mb.Offset(at) < wal.PageSize {
		size = 40
	}
	if in := at % wal.PageSize; in < size {
		changed := old ^ b.b[at-b.from]
		return in >= 20 && in < 24 || in == 2 && (changed == 0x04 || // XLP_BKP_REMOVABLE
			changed == 0x08 && old&0x01 == 0) // XLP_FIRST_IS_OVERWRITE_CONTRECORD with nothing to overwrite
	}
	for i := range b.starts {
		if lastByte(b, i) <= at && at < b.ends[i] {
			return true
		}
	}
	return false
}

// TestOldWALIsNotBelieved has the bytes after the end be what recycled segments hold.
func TestOldWALIsNotBelieved(t *testing.T) {
	from := wal.LSN(5 << 20)
	end := from + 2*wal.PageSize
	build := func(from wal.LSN, timeline wal.Timeline, body byte) *builder {
		b := newBuilder(from)
		b.timeline = timeline
		for b.at() < from+8*wal.PageSize {
			b.add(10, 0, bytes.Repeat([]byte{body}, 1000))
		}
		return b
	}
	now := build(from, 2, 'n')
	for name, old := range map[string]*builder{
		"another segment":    build(from-1<<20, 2, 'o'),
		"an older timeline":  build(from, 1, 'o'),
		"a later timeline":   build(from, 3, 'o'),
		"the same place":     build(from, 2, 'o'),
		"zeros":              {memory: memory{b: make([]byte, len(now.b))}},
		"a neighbour's page": {memory: memory{b: now.b[wal.PageSize:]}},
	} {
		mixed := slices.Clone(now.b)
		copy(mixed[end-from:], old.b[min(int(end-from), len(old.b)):])
		got, last, err := wal.EndOfValid(memory{from, mixed}, from, now.options())
		want := end
		for i, e := range now.ends {
			if e <= end {
				want = e
			}
			if e == want && now.starts[i] == last.Start && e != last.End {
				t.Errorf("%s: the last record is %+v", name, last)
			}
		}
		if err != nil || got != want {
			t.Errorf("%s: valid WAL ends at %s (%v), want %s", name, got, err, want)
		}
	}
}

// TestForgeriesAreRefused has records whose checksum is right and that do not belong where they are.
func TestForgeriesAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		forge func(*builder)
		ok    bool
		magic uint16
	}{
		"nothing":                     {func(*builder) {}, true, 0xD110},
		"a page of another major":     {func(b *builder) { b.magic = 0xD113; b.fill(0) }, false, 0xD110},
		"a link to an earlier record": {func(b *builder) { b.prev = b.starts[0] }, false, 0xD110},
		"a link to nothing":           {func(b *builder) { b.prev = 0 }, false, 0xD110},
		"a link to itself":            {func(b *builder) { b.prev = b.at() }, false, 0xD110},
		"timelines that go back":      {func(b *builder) { b.timeline = 1; b.fill(0) }, false, 0xD110},
		"timelines that go on":        {func(b *builder) { b.timeline = 3; b.fill(0) }, true, 0xD110},
		"an unknown manager":          {func(b *builder) { b.add(22, 0, nil) }, false, 0xD110},
		"an extension's manager":      {func(b *builder) { b.add(128, 0, nil) }, true, 0xD110},
		"an extension's, in 14":       {func(b *builder) { b.add(128, 0, nil) }, false, 0xD10D},
		"14":                          {func(b *builder) { b.add(21, 0, nil) }, true, 0xD10D},
		"a length of nothing":         {func(b *builder) { b.raw(make([]byte, 24)) }, false, 0xD110},
		"a length of everything":      {func(b *builder) { b.raw(bytes.Repeat([]byte{0xFF}, 64)) }, false, 0xD110},
	} {
		b := newBuilder(5 << 20)
		b.timeline, b.magic = 2, tt.magic
		b.add(10, 0, nil)
		b.fill(0)
		tt.forge(b)
		b.add(10, 0, nil)
		opt := b.options()
		opt.MaxTimeline = 3
		starts, _, end := walk(t, b, b.from, opt)
		if ok := end.At == b.at(); ok != tt.ok || !ok && errors.Is(end, io.EOF) {
			t.Errorf("%s: %d of %d records are believed: %v", name, len(starts), len(b.starts), end)
		}
	}
	// The first record of a walk has nothing to be linked to, but must not be linked to what follows it.
	b := newBuilder(5 << 20)
	b.prev = 6 << 20
	b.add(10, 0, nil)
	if starts, _, _ := walk(t, b, b.from, b.options()); len(starts) != 0 {
		t.Error("a record that follows a later one is believed")
	}
}

// TestWALInsideOfWALIsNotRead has a record contain what looks like one, as when WAL files are stored in a table.
func TestWALInsideOfWALIsNotRead(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, nil)
	inner := b.encode(10, 0, []byte("inner"))
	start, _ := b.add(10, 0, append(make([]byte, 2*wal.PageSize), inner...))
	at := b.from + wal.LSN(bytes.LastIndex(b.b, inner))
	if at%8 != 0 || at/wal.PageSize == start/wal.PageSize {
		t.Fatalf("the inner record is at %s", at)
	}
	if starts, _, _ := walk(t, b, at, b.options()); len(starts) != 0 {
		t.Error("the inner record is believed")
	}
}

func TestOverwrittenRecord(t *testing.T) {
	for _, tt := range []struct {
		name string
		lost int64 // how far the overwrite record's claim is off
		want int
	}{{"accounted for", 0, 3}, {"for another record", 8, 1}} {
		b := newBuilder(6<<20 - wal.PageSize)
		b.fill(56)
		lost := b.at()
		b.b = append(b.b, b.encode(10, 0, make([]byte, 1000))[:56]...)
		b.page(0, 0x08)
		body := make([]byte, 2+16)
		body[0], body[1] = 0xFF, 16
		binary.LittleEndian.PutUint64(body[2:], uint64(int64(lost)+tt.lost))
		b.add(wal.ManagerXLOG, 0xD0, body)
		b.add(10, 0, nil)
		starts, _, end := walk(t, b, b.from, b.options())
		if !slices.Equal(starts, b.starts[:tt.want]) {
			t.Errorf("%s: records at %s, want %s; %v", tt.name, starts, b.starts, end)
		}
		if tt.want == 1 && end.At != lost {
			t.Errorf("%s: the walk ends at %s, want %s", tt.name, end.At, lost)
		}
	}
}
