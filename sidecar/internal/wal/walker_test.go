package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

// walk is the records from a position on, and why there are not more.
func walk(t *testing.T, src wal.Source, from wal.LSN, opt wal.WalkOptions) (starts, ends []wal.LSN, end *wal.EndError) {
	t.Helper()
	w := wal.NewWalker(src, from, opt)
	for {
		r, err := w.Next()
		if errors.As(err, &end) {
			return starts, ends, end
		}
		if err != nil {
			t.Fatal(err)
		}
		starts, ends = append(starts, r.Start), append(ends, r.End)
	}
}

func TestWalkRecordsAtPageBorders(t *testing.T) {
	for left := 0; left <= 48; left += 8 {
		for _, from := range []wal.LSN{5 << 20, 6<<20 - wal.PageSize} {
			b := newBuilder(from)
			b.fill(left)
			b.add(10, 0, []byte("crossing, or beginning on the next page"))
			b.add(10, 0, bytes.Repeat([]byte("over several pages "), 2000))
			b.add(10, 0, nil)
			starts, ends, end := walk(t, b, from, b.options())
			if !slices.Equal(starts, b.starts) || !slices.Equal(ends, b.ends) || end.At != b.at() || !errors.Is(end, io.EOF) {
				t.Errorf("%d bytes left of %s: records at %s, want %s; %v", left, from, starts, b.starts, end)
			}
		}
	}
}

func TestWalkHugeRecordAndSwitch(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, make([]byte, 5<<20/2))
	b.add(wal.ManagerXLOG, 0x40, nil)
	start, _ := b.add(10, 0, nil)
	if start != 8<<20+40 {
		t.Fatalf("the record after the switch is at %s", start)
	}
	starts, ends, end := walk(t, b, 5<<20, b.options())
	if !slices.Equal(starts, b.starts) || !slices.Equal(ends, b.ends) || end.At != b.at() {
		t.Errorf("records at %s to %s, want %s to %s; %v", starts, ends, b.starts, b.ends, end)
	}
	// From inside of the long record the first one is the switch, from behind that one the last.
	for _, tt := range []struct{ at, want wal.LSN }{
		{5 << 20, b.starts[0]},
		{b.starts[0] + 8, b.starts[1]},
		{6 << 20, b.starts[1]},
		{7<<20 + 3*wal.PageSize, b.starts[1]},
		{b.starts[1], b.starts[1]},
		{b.starts[1] + 1, start},
		{b.starts[1] + 3*wal.PageSize, start},
		{8 << 20, start},
	} {
		if got, err := wal.FirstRecord(b, tt.at, b.options()); err != nil || got != tt.want {
			t.Errorf("the first record from %s on is at %s (%v), want %s", tt.at, got, err, tt.want)
		}
	}
}

// TestWalkNeverReadsPastTheLimit has the walk stop at the last record that is complete below each limit.
func TestWalkNeverReadsPastTheLimit(t *testing.T) {
	from := wal.LSN(6<<20 - wal.PageSize)
	b := newBuilder(from)
	for i := range 60 {
		b.add(10, 0, make([]byte, 13*i))
	}
	opt := b.options()
	for opt.Limit = from + 1; opt.Limit <= b.at(); opt.Limit += 7 {
		src := memory{from, b.b[: opt.Limit-from : opt.Limit-from]}
		starts, _, end := walk(t, strict{t, src}, from, opt)
		complete := 0
		for complete < len(b.ends) && lastByte(b, complete) <= opt.Limit {
			complete++
		}
		if len(starts) != complete || !errors.Is(end, io.EOF) {
			t.Fatalf("limit %s: %d records, want %d; %v", opt.Limit, len(starts), complete, end)
		}
	}
}

// lastByte is the end of a record without its padding.
func lastByte(b *builder, i int) wal.LSN {
	length := binary.LittleEndian.Uint32(b.b[b.starts[i]-b.from:])
	return b.ends[i] - wal.LSN((8-length%8)%8)
}

// strict fails the test when it is read past its end.
type strict struct {
	t *testing.T
	memory
}

func (s strict) ReadWAL(p []byte, at wal.LSN) (int, error) {
	if end := s.from + wal.LSN(len(s.b)); at+wal.LSN(len(p)) > end {
		s.t.Errorf("%d bytes read at %s, the end is %s", len(p), at, end)
	}
	return s.memory.ReadWAL(p, at)
}

// TestRecordsUpToAPosition must not look for a record that begins there, also where a page header comes in between.
func TestRecordsUpToAPosition(t *testing.T) {
	for _, from := range []wal.LSN{5<<20 + wal.PageSize, 6<<20 - wal.PageSize} {
		b := newBuilder(from)
		b.add(10, 0, nil)
		b.fill(0)
		header := wal.LSN(24)
		if mb.Offset(b.at()) == 0 {
			header = 40
		}
		for to, want := range map[wal.LSN]int{
			0: 0, from: 0, b.starts[0]: 0, b.starts[0] + 1: 1, b.starts[1]: 1, b.at(): 2, b.at() + header: 2,
		} {
			n := 0
			for _, err := range wal.NewWalker(b, from, b.options()).Records(to) {
				if err != nil {
					t.Errorf("up to %s: %v", to, err)
				}
				n++
			}
			if n != want {
				t.Errorf("%d records begin before %s, want %d", n, to, want)
			}
		}
		for _, err := range wal.NewWalker(b, b.at(), b.options()).Records(b.at() + header + 1) {
			if !errors.As(err, new(*wal.EndError)) {
				t.Errorf("a record that is not there: %v", err)
			}
		}
	}
}

// TestWalkFromPastTheLimit must not read at all.
func TestWalkFromPastTheLimit(t *testing.T) {
	opt := newBuilder(0).options()
	opt.Limit = 5 << 20
	for _, from := range []wal.LSN{5 << 20, 5<<20 + 40, 6 << 20} {
		w := wal.NewWalker(limited{t, memory{}, opt.Limit}, from, opt)
		if _, err := w.Next(); !errors.Is(err, io.EOF) || !errors.As(err, new(*wal.EndError)) {
			t.Errorf("from %s: %v", from, err)
		}
	}
}

// TestWalkGoesOnWhenMoreIsWritten calls Next again after the end.
func TestWalkGoesOnWhenMoreIsWritten(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, make([]byte, 100))
	w := wal.NewWalker(b, b.from, b.options())
	for i := range 300 {
		if r, err := w.Next(); err != nil || r.Start != b.starts[i] {
			t.Fatalf("record %d: %+v, %v", i, r, err)
		}
		if _, err := w.Next(); !errors.As(err, new(*wal.EndError)) {
			t.Fatalf("after record %d: %v", i, err)
		}
		b.add(10, 0, make([]byte, 100))
	}
}

func TestWalkDoesNotAllocatePerRecord(t *testing.T) {
	b := newBuilder(5 << 20)
	for range 2000 {
		b.add(10, 0, make([]byte, 500))
	}
	opt := b.options()
	w := wal.NewWalker(b, b.from, opt)
	if _, err := w.Next(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := w.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per record", n)
	}
}

func BenchmarkWalk(b *testing.B) {
	for _, size := range []int{50, 500, 8000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			w := newBuilder(5 << 20)
			for w.at() < 9<<20 {
				w.add(10, 0, make([]byte, size))
			}
			b.SetBytes(int64(len(w.b)))
			for b.Loop() {
				if end, _, err := wal.EndOfValid(w, w.from, w.options()); err != nil || end != w.at() {
					b.Fatal(end, err)
				}
			}
		})
	}
}
