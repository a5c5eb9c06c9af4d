package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

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
		{5 << 20, b.starts[0]}, {b.starts[0] + 8, b.starts[1]}, {6 << 20, b.starts[1]}, {7<<20 + 3*wal.PageSize, b.starts[1]},
		{b.starts[1], b.starts[1]}, {b.starts[1] + 1, start}, {b.starts[1] + 3*wal.PageSize, start}, {8 << 20, start},
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
	for i := 0; i < len(b.b); i++ {
		if i%wal.PageSize > 64 {
			i = min(i+rnd.IntN(8), len(b.b)-1) // every byte takes too long; all of them come in some run
		}
		at := from + wal.LSN(i)
		old := b.b[i]
		b.b[i] ^= 1 << rnd.IntN(8)
		starts, _, end := walk(t, b, from, b.options())
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
	}{
		"nothing":                     {func(b *builder) {}, true},
		"a link to an earlier record": {func(b *builder) { b.prev = b.starts[0] }, false},
		"a link to nothing":           {func(b *builder) { b.prev = 0 }, false},
		"a link to itself":            {func(b *builder) { b.prev = b.at() }, false},
		"timelines that go back":      {func(b *builder) { b.timeline = 1; b.fill(0) }, false},
		"timelines that go on":        {func(b *builder) { b.timeline = 3; b.fill(0) }, true},
		"an unknown manager":          {func(b *builder) { b.add(22, 0, nil) }, false},
		"an extension's manager":      {func(b *builder) { b.add(128, 0, nil) }, true},
		"an extension's, in 14":       {func(b *builder) { b.magic = 0xD10D; b.fill(0); b.add(128, 0, nil) }, false},
		"14":                          {func(b *builder) { b.magic = 0xD10D; b.fill(0); b.add(21, 0, nil) }, true},
		"a length of nothing":         {func(b *builder) { b.raw(make([]byte, 24)) }, false},
		"a length of everything":      {func(b *builder) { b.raw(bytes.Repeat([]byte{0xFF}, 64)) }, false},
	} {
		b := newBuilder(5 << 20)
		b.timeline = 2
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

type broken struct{}

var errDisk = errors.New("input/output error")

func (broken) ReadWAL([]byte, wal.LSN) (int, error) { return 0, errDisk }

func TestSourceErrorsAreNoEnd(t *testing.T) {
	opt := newBuilder(0).options()
	var end *wal.EndError
	if _, err := wal.NewWalker(broken{}, 5<<20, opt).Next(); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("Next: %v", err)
	}
	if _, err := wal.FirstRecord(broken{}, 5<<20, opt); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("FirstRecord: %v", err)
	}
	if _, _, err := wal.EndOfValid(broken{}, 5<<20, opt); !errors.Is(err, errDisk) || errors.As(err, &end) {
		t.Errorf("EndOfValid: %v", err)
	}
	c := wal.Control{State: wal.StateShutDown, CheckPoint: 5<<20 + 40, SegmentSize: mb, CheckPointTimeline: 1}
	if _, err := wal.ShutdownCheckpoint(c, broken{}); !errors.Is(err, errDisk) || errors.Is(err, wal.ErrNotClean) {
		t.Errorf("ShutdownCheckpoint: %v", err)
	}
	if _, _, err := wal.EndOfValid(memory{from: 5 << 20}, 5<<20, opt); !errors.As(err, &end) {
		t.Errorf("EndOfValid of nothing: %v", err)
	}
}

func TestShutdownCheckpointMustAgree(t *testing.T) {
	b := newBuilder(5 << 20)
	b.add(10, 0, nil)
	body := make([]byte, 2+88)
	body[0], body[1] = 0xFF, 88
	binary.LittleEndian.PutUint64(body[2:], uint64(b.at()))
	binary.LittleEndian.PutUint32(body[10:], 1)
	start, end := b.add(wal.ManagerXLOG, 0x00, body)
	binary.LittleEndian.PutUint64(body[2:], uint64(b.at()))
	online, _ := b.add(wal.ManagerXLOG, 0x10, body)
	good := wal.Control{
		State: wal.StateShutDown, CheckPoint: start, Redo: start, CheckPointTimeline: 1, SegmentSize: mb,
		SystemIdentifier: builderSystem,
	}
	if got, err := wal.ShutdownCheckpoint(good, b); err != nil || got != end {
		t.Fatalf("the checkpoint ends at %s (%v), want %s", got, err, end)
	}
	for name, change := range map[string]func(*wal.Control){
		"running":                 func(c *wal.Control) { c.State = wal.StateInProduction },
		"a standby":               func(c *wal.Control) { c.State = wal.StateShutDownInRecovery },
		"another record":          func(c *wal.Control) { c.CheckPoint, c.Redo = b.starts[0], b.starts[0] },
		"no record":               func(c *wal.Control) { c.CheckPoint, c.Redo = b.at(), b.at() },
		"a checkpoint on the way": func(c *wal.Control) { c.CheckPoint, c.Redo = online, online },
		"inside of a record":      func(c *wal.Control) { c.CheckPoint, c.Redo = start+8, start+8 },
		"inside of a header":      func(c *wal.Control) { c.CheckPoint, c.Redo = 5<<20+8, 5<<20+8 },
		"another redo":            func(c *wal.Control) { c.Redo = b.starts[0] },
		"another timeline":        func(c *wal.Control) { c.CheckPointTimeline = 2 },
		"another system":          nil, // seen on a segment's first page only
		"a missing timeline":      func(c *wal.Control) { c.CheckPointTimeline = 0 },
		"another segmenting":      func(c *wal.Control) { c.SegmentSize = 2 << 20 },
		"a position past all":     func(c *wal.Control) { c.CheckPoint, c.Redo = 9<<20+40, 9<<20+40 },
	} {
		c := good
		if change == nil {
			c.SystemIdentifier++
		} else {
			change(&c)
		}
		if got, err := wal.ShutdownCheckpoint(c, b); !errors.Is(err, wal.ErrNotClean) {
			t.Errorf("%s: clean until %s, %v", name, got, err)
		}
	}
}

func TestDirSourceFollowsTheBranch(t *testing.T) {
	dir := t.TempDir()
	history := wal.History{{Parent: 1, LSN: 3<<20 + 100}, {Parent: 2, LSN: 5 << 20}}
	for i, name := range []string{
		"000000010000000000000002", "000000010000000000000003", "000000020000000000000003",
		"000000020000000000000004", "000000020000000000000005", "000000030000000000000005",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte{byte(i)}, int(mb)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	src := wal.NewDirSource(dir, mb, 3, history)
	defer src.Close()
	for _, tt := range []struct {
		at   wal.LSN
		file byte
	}{{2 << 20, 0}, {3 << 20, 2}, {3<<20 + 101, 2}, {4<<20 + 1, 3}, {5 << 20, 5}, {6<<20 - 1, 5}} {
		p := make([]byte, 1)
		if n, err := src.ReadWAL(p, tt.at); n != 1 || err != nil || p[0] != tt.file {
			t.Errorf("%s is read from file %d (%d, %v), want %d", tt.at, p[0], n, err, tt.file)
		}
	}
	p := make([]byte, 4)
	if n, err := src.ReadWAL(p, 5<<20-2); n != 4 || err != nil || !bytes.Equal(p, []byte{3, 3, 5, 5}) {
		t.Errorf("across a border: %v (%d, %v)", p, n, err)
	}
	if n, err := src.ReadWAL(p, 6<<20-2); n != 2 || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("past the last file: %d, %v", n, err)
	}
	last := filepath.Join(dir, "000000030000000000000005")
	if err := os.Truncate(last, 1000); err != nil {
		t.Fatal(err)
	}
	if n, err := src.ReadWAL(p, 5<<20+998); n != 2 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("past the end of a short file: %d, %v", n, err)
	}
	// Recycling renames a file that is open here, and another takes its name.
	if err := os.Rename(last, last+"-recycled"); err != nil {
		t.Fatal(err)
	}
	if _, err := src.ReadWAL(p, 5<<20); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was renamed is read: %v", err)
	}
	if _, err := src.ReadWAL(p, 4<<20); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "000000020000000000000004")
	if err := errors.Join(os.Rename(second, second+"-old"), os.WriteFile(second, bytes.Repeat([]byte{9}, int(mb)), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := src.ReadWAL(p, 4<<20); err != nil || p[0] != 9 {
		t.Errorf("the file that has the name now is not read: %d, %v", p[0], err)
	}
}

func TestCommitTimeOfEachForm(t *testing.T) {
	want := time.Date(2024, 2, 29, 12, 0, 0, 123456000, time.UTC)
	micros := make([]byte, 8)
	binary.LittleEndian.PutUint64(micros, uint64(want.Sub(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).Microseconds()))
	short := append([]byte{0xFF, 8}, micros...)
	long := append([]byte{0xFE, 8, 0, 0, 0}, micros...)
	origin := append([]byte{0xFD, 1, 0}, short...)
	topLevel := append([]byte{0xFC, 1, 0, 0, 0}, origin...)
	for i, tt := range []struct {
		manager       wal.ResourceManager
		info          uint8
		data          []byte
		commit, abort bool
	}{
		{wal.ManagerTransaction, 0x00, short, true, false},
		{wal.ManagerTransaction, 0x80, long, true, false},
		{wal.ManagerTransaction, 0x30, origin, true, false},
		{wal.ManagerTransaction, 0x20, topLevel, false, true},
		{wal.ManagerTransaction, 0xC0, short, false, true},
		{wal.ManagerTransaction, 0x10, short, false, false},
		{wal.ManagerXLOG, 0x00, short, false, false},
		{wal.ManagerTransaction, 0x00, short[:9], false, false},
		{wal.ManagerTransaction, 0x00, append([]byte{0, 0}, short...), false, false},
		{wal.ManagerTransaction, 0x00, nil, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFC, 1, 2}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFD}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFE, 8, 0, 0}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFF}, false, false},
		{wal.ManagerTransaction, 0x00, []byte{0xFF, 200, 1, 2, 3}, false, false},
	} {
		r := wal.Record{Manager: tt.manager, Info: tt.info, Data: tt.data}
		c, commit := r.CommitTime()
		a, abort := r.AbortTime()
		if commit != tt.commit || abort != tt.abort || commit && !c.Equal(want) || abort && !a.Equal(want) {
			t.Errorf("record %d: commit %v %v, abort %v %v", i, commit, c, abort, a)
		}
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
