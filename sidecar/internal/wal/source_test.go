package wal_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"outrider.dev/sidecar/internal/wal"
)

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
