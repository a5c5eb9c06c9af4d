package wal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/wal"
)

const fileSystem = 7123456789012345678

var fileSegment = wal.Segment{Timeline: 2, Number: 0x1005}

// segmentBytes is a segment with right page headers of PostgreSQL 15 and random bytes between them.
func segmentBytes(t *testing.T, s wal.Segment, z wal.SegmentSize) []byte {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	b := make([]byte, z)
	for i := range b {
		b[i] = byte(rnd.Uint32())
	}
	for off := 0; off < len(b); off += wal.PageSize {
		h := b[off:]
		clear(h[:40])
		binary.LittleEndian.PutUint16(h, 0xD110)
		binary.LittleEndian.PutUint32(h[4:], uint32(s.Timeline))
		binary.LittleEndian.PutUint64(h[8:], uint64(s.Start(z))+uint64(off))
	}
	binary.LittleEndian.PutUint16(b[2:], 2) // XLP_LONG_HEADER
	binary.LittleEndian.PutUint64(b[24:], fileSystem)
	binary.LittleEndian.PutUint32(b[32:], uint32(z))
	binary.LittleEndian.PutUint32(b[36:], wal.PageSize)
	return b
}

func writeSegment(t *testing.T, dir string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, fileSegment.Name(mb))
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openSegment(t *testing.T, dir string) *wal.SegmentFile {
	t.Helper()
	f, err := wal.OpenSegment(dir, fileSegment, mb, fileSystem)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestSegmentFileReturnsJustTheRequestedBytes(t *testing.T) {
	dir := t.TempDir()
	want := segmentBytes(t, fileSegment, mb)
	writeSegment(t, dir, want)
	f := openSegment(t, dir)

	lengths := []int{
		0, 1, 23, 24, 39, 40, 41, wal.PageSize - 1, wal.PageSize, wal.PageSize + 1, wal.PageSize + 39,
		3*wal.PageSize + 17, 300_000, int(mb),
	}
	offsets := []int{
		0, 1, 39, 40, wal.PageSize - 1, wal.PageSize, wal.PageSize + 1, 5*wal.PageSize + 4000,
		int(mb) - wal.PageSize, int(mb) - 1,
	}
	for _, off := range offsets {
		for _, n := range lengths {
			p := make([]byte, n)
			got, err := f.ReadAt(p, int64(off))
			exp := want[off:min(off+n, len(want))]
			if got != len(exp) || !bytes.Equal(p[:got], exp) {
				t.Errorf("ReadAt(%d bytes, %d) = %d bytes, which are not those of the file", n, off, got)
			}
			if beyond := off+n > len(want); beyond != errors.Is(err, io.EOF) || !beyond && err != nil {
				t.Errorf("ReadAt(%d bytes, %d) past the end = %v: %v", n, off, beyond, err)
			}
		}
	}
	if n, err := f.ReadAt(make([]byte, 1), int64(mb)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("reading at the end: %d, %v; want io.EOF", n, err)
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("reading at a negative offset is accepted")
	}
	if all, err := io.ReadAll(io.NewSectionReader(f, 0, int64(mb))); err != nil || !bytes.Equal(all, want) {
		t.Errorf("reading everything as a stream: %v", err)
	}
}

func TestSegmentFileRejectsPagesThatDoNotBelong(t *testing.T) {
	const page = 7
	harm := map[string]func(b []byte){
		"zeros but for one byte":  func(b []byte) { clear(b[page*wal.PageSize : (page+1)*wal.PageSize]); b[(page+1)*wal.PageSize-1] = 1 },
		"page of another segment": func(b []byte) { b[page*wal.PageSize+8+3] ^= 0x40 },
		"later timeline":          func(b []byte) { b[page*wal.PageSize+4] = 3 },
		"unknown magic":           func(b []byte) { b[page*wal.PageSize] = 0x99 },
	}
	for name, harm := range harm {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := segmentBytes(t, fileSegment, mb)
			harm(b)
			writeSegment(t, dir, b)
			f := openSegment(t, dir)
			for _, r := range []struct{ off, n int }{
				{0, int(mb)},
				{page * wal.PageSize, 1},
				{page*wal.PageSize + 100, 10},
				{page*wal.PageSize - 1, 2},
				{(page - 1) * wal.PageSize, wal.PageSize + 1},
				{(page+1)*wal.PageSize - 1, 2},
			} {
				if n, err := f.ReadAt(make([]byte, r.n), int64(r.off)); !errors.Is(err, wal.ErrPage) || n != 0 {
					t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want ErrPage", r.n, r.off, n, err)
				}
			}
			// What lies beyond the end of the request is not judged: the server may be writing there.
			for _, r := range []struct{ off, n int }{
				{0, page * wal.PageSize}, {100, page*wal.PageSize - 100}, {(page + 1) * wal.PageSize, wal.PageSize},
			} {
				if _, err := f.ReadAt(make([]byte, r.n), int64(r.off)); err != nil {
					t.Errorf("ReadAt(%d bytes, %d) of good pages: %v", r.n, r.off, err)
				}
			}
		})
	}
}

// A switch leaves zeros up to the segment's end. Anything after them shows that they are a hole.
func TestSegmentFileAcceptsZerosAfterASwitch(t *testing.T) {
	const page = 7
	dir := t.TempDir()
	b := segmentBytes(t, fileSegment, mb)
	clear(b[page*wal.PageSize:])
	writeSegment(t, dir, b)
	f := openSegment(t, dir)
	for _, r := range []struct{ off, n int }{
		{0, int(mb)},
		{page * wal.PageSize, 1},
		{page*wal.PageSize + 100, 10},
		{page*wal.PageSize - 1, 2},
		{(page-1)*wal.PageSize + 100, 5*wal.PageSize + 50},
		{int(mb) - 1, 1},
	} {
		p := make([]byte, r.n)
		if _, err := f.ReadAt(p, int64(r.off)); err != nil || !bytes.Equal(p, b[r.off:r.off+r.n]) {
			t.Errorf("ReadAt(%d bytes, %d): %v", r.n, r.off, err)
		}
	}
	hole := segmentBytes(t, fileSegment, mb)
	clear(hole[page*wal.PageSize : (page+1)*wal.PageSize])
	writeSegment(t, dir, hole)
	for _, r := range []struct{ off, n int }{
		{0, int(mb)}, {page * wal.PageSize, 2 * wal.PageSize}, {(page+1)*wal.PageSize - 1, 2}, {page*wal.PageSize + 1, wal.PageSize},
	} {
		if n, err := openSegment(t, dir).ReadAt(make([]byte, r.n), int64(r.off)); !errors.Is(err, wal.ErrPage) || n != 0 {
			t.Errorf("ReadAt(%d bytes, %d) over a hole = %d, %v; want ErrPage", r.n, r.off, n, err)
		}
	}
	clear(b[:wal.PageSize])
	writeSegment(t, dir, b)
	for _, off := range []int64{0, page * wal.PageSize} {
		if _, err := openSegment(t, dir).ReadAt(make([]byte, 10), off); !errors.Is(err, wal.ErrPage) {
			t.Errorf("ReadAt(10 bytes, %d) of a segment that begins with zeros: %v", off, err)
		}
	}
}

func TestSegmentFileChecksSystemAndSize(t *testing.T) {
	dir := t.TempDir()
	writeSegment(t, dir, segmentBytes(t, fileSegment, mb))
	p := make([]byte, 100)
	for sysid, good := range map[uint64]bool{fileSystem: true, 0: true, 42: false} {
		f, err := wal.OpenSegment(dir, fileSegment, mb, sysid)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.ReadAt(p, 0); good != (err == nil) || !good && !errors.Is(err, wal.ErrPage) {
			t.Errorf("reading with system identifier %d: %v", sysid, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	// Timeline 3 begins with a copy of timeline 2's segment: older pages are right, newer ones are not.
	forked := wal.Segment{Timeline: 3, Number: fileSegment.Number}
	if err := os.Link(filepath.Join(dir, fileSegment.Name(mb)), filepath.Join(dir, forked.Name(mb))); err != nil {
		t.Fatal(err)
	}
	f, err := wal.OpenSegment(dir, forked, mb, fileSystem)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt(p, wal.PageSize); err != nil {
		t.Errorf("reading a page of the parent timeline: %v", err)
	}
}

func TestSegmentFileNoticesRecycling(t *testing.T) {
	dir := t.TempDir()
	old := segmentBytes(t, fileSegment, mb)
	path := writeSegment(t, dir, old)
	f := openSegment(t, dir)
	if err := f.StillNamed(); err != nil {
		t.Fatalf("an untouched file: %v", err)
	}
	// As the server does: the file gets the name of a later segment, and is overwritten under it.
	later := wal.Segment{Timeline: 2, Number: fileSegment.Number + 50}
	if err := os.Rename(path, filepath.Join(dir, later.Name(mb))); err != nil {
		t.Fatal(err)
	}
	if err := f.StillNamed(); !errors.Is(err, wal.ErrRecycled) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the file was renamed: %v; want ErrRecycled", err)
	}
	if err := os.WriteFile(filepath.Join(dir, later.Name(mb)), segmentBytes(t, later, mb), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(make([]byte, 10), 5000); !errors.Is(err, wal.ErrPage) {
		t.Errorf("reading the segment that the file has become: %v; want ErrPage", err)
	}
	writeSegment(t, dir, old)
	if err := f.StillNamed(); !errors.Is(err, wal.ErrRecycled) {
		t.Errorf("with another file of the same name: %v; want ErrRecycled", err)
	}
}

func TestSegmentFileCannotTellIsNotRecycled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pg_wal")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeSegment(t, dir, segmentBytes(t, fileSegment, mb))
	f := openSegment(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // the name cannot be looked up any more: ENOTDIR
		t.Fatal(err)
	}
	if err := f.StillNamed(); err == nil || errors.Is(err, wal.ErrRecycled) {
		t.Errorf("StillNamed where it cannot be found out: %v", err)
	}
}

func TestSegmentFileMissingOrShort(t *testing.T) {
	dir := t.TempDir()
	if _, err := wal.OpenSegment(dir, fileSegment, mb, 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening a missing segment: %v; want fs.ErrNotExist", err)
	}
	b := segmentBytes(t, fileSegment, mb)
	path := writeSegment(t, dir, b[:len(b)-1])
	if _, err := wal.OpenSegment(dir, fileSegment, mb, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("opening a short segment: %v; want io.ErrUnexpectedEOF", err)
	}
	writeSegment(t, dir, b)
	f := openSegment(t, dir)
	if err := os.Truncate(path, 20_000); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{12_001, 30_000} {
		if _, err := f.ReadAt(make([]byte, n), 8_000); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("reading %d bytes of a file cut while open: %v; want io.ErrUnexpectedEOF", n, err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, fileSegment.Next().Name(mb)), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := wal.OpenSegment(dir, fileSegment.Next(), mb, 0); err == nil {
		t.Error("a directory is accepted as a segment")
	}
}

func TestSegmentFileDoesNotAllocate(t *testing.T) {
	dir := t.TempDir()
	writeSegment(t, dir, segmentBytes(t, fileSegment, mb))
	f := openSegment(t, dir)
	p := make([]byte, 300_000)
	if n := testing.AllocsPerRun(20, func() {
		if _, err := f.ReadAt(p, 12_345); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations for each read", n)
	}
}

// All that a real server has flushed passes the checks and equals what its files hold.
func TestSegmentFileReadsARealServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}, Settings: map[string]string{"wal_keep_size": "100MB"}})
	s.Exec("CREATE TABLE t AS SELECT g, repeat('x', 500) FROM generate_series(1, 10000) g", "SELECT pg_switch_wal()",
		"CREATE TABLE after_switch ()", "CHECKPOINT")
	flush, err := wal.ParseLSN(pgtest.Query[string](s, "SELECT pg_current_wal_flush_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	ctl, err := wal.ReadControl(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(s.DataDir, "pg_wal")
	read := 0
	for l := mb.Floor(flush); read < 5; l -= wal.LSN(mb) {
		seg := mb.SegmentAt(1, l)
		f, err := wal.OpenSegment(dir, seg, ctl.SegmentSize, ctl.SystemIdentifier)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, min(int64(flush-l), int64(mb)))
		if _, err := f.ReadAt(p, 0); err != nil {
			t.Error(err)
		}
		raw, err := os.ReadFile(filepath.Join(dir, seg.Name(mb)))
		if err != nil || !bytes.Equal(raw[:len(p)], p) {
			t.Errorf("%s reads differently: %v", seg.Name(mb), err)
		}
		for _, err := range []error{f.StillNamed(), f.Sync(), f.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
		read++
	}
}
