package wal_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/sidecar/internal/wal"
)

// seed is the first value of a committed fuzz seed.
func seed(t *testing.T, target, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "fuzz", target, name))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(b), "\n")[1]
	s, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(line, "[]byte("), ")"))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return []byte(s)
}

// TestParseControl reads what initdb of 15 left, which pg_controldata shows.
func TestParseControl(t *testing.T) {
	got, err := wal.ParseControl(seed(t, "FuzzParseControl", "postgres-15"))
	if err != nil {
		t.Fatal(err)
	}
	want := wal.Control{
		SystemIdentifier: 7711239092525670219, Version: 1300, CatalogVersion: 202209061, State: wal.StateShutDown,
		Time: time.Date(2026, 11, 23, 5, 46, 1, 0, time.UTC), CheckPoint: 0x8358D8, Redo: 0x8358D8,
		CheckPointTimeline: 1, PrevTimeline: 1, CheckPointTime: time.Date(2026, 11, 23, 5, 46, 1, 0, time.UTC),
		WALLevel: wal.WALLevelReplica, MaxConnections: 100, MaxWorkerProcesses: 8, MaxWALSenders: 10, MaxLocksPerXact: 64,
		BlockSize: 8192, RelSegSize: 131072, WALBlockSize: 8192, SegmentSize: mb, DataChecksumVersion: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if s := got.State.String(); s != "shut down" {
		t.Errorf("state %q", s)
	}
}

// TestParseControlRefuses changes each byte of each version's file, and cuts it everywhere.
func TestParseControlRefuses(t *testing.T) {
	for major := 14; major <= 18; major++ {
		b := seed(t, "FuzzParseControl", fmt.Sprintf("postgres-%d", major))
		end := 292
		if major == 18 {
			end = 296
		}
		if _, err := wal.ParseControl(b[:end]); err != nil {
			t.Errorf("%d: %v", major, err)
		}
		for n := range end {
			if _, err := wal.ParseControl(b[:n]); !errors.Is(err, wal.ErrControl) {
				t.Errorf("%d: %d bytes are enough: %v", major, n, err)
			}
			b[n] ^= 0x10
			if _, err := wal.ParseControl(b); !errors.Is(err, wal.ErrControl) {
				t.Errorf("%d: byte %d does not matter: %v", major, n, err)
			}
			b[n] ^= 0x10
		}
		for at, what := range map[int]string{224: "WAL page size", 228: "segment size"} {
			odd := append([]byte(nil), b...)
			binary.LittleEndian.PutUint32(odd[at:], 12345)
			binary.LittleEndian.PutUint32(odd[end-4:], crc32.Checksum(odd[:end-4], crc32.MakeTable(crc32.Castagnoli)))
			if _, err := wal.ParseControl(odd); !errors.Is(err, wal.ErrControl) || !strings.Contains(err.Error(), "12345") {
				t.Errorf("%d: a %s of 12345: %v", major, what, err)
			}
		}
	}
}

// TestReadControlWaitsOutATornWrite has the file be torn for a while, as a server may leave it.
func TestReadControlWaitsOutATornWrite(t *testing.T) {
	dir := t.TempDir()
	if _, err := wal.ReadControl(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := os.Mkdir(filepath.Dir(wal.ControlPath(dir)), 0o700); err != nil {
		t.Fatal(err)
	}
	whole := seed(t, "FuzzParseControl", "postgres-18")
	torn := func(n int) []byte { return append(append([]byte(nil), whole[:n]...), make([]byte, len(whole)-n)...) }
	write := func(t *testing.T, b []byte) {
		if err := os.WriteFile(wal.ControlPath(dir), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		contents [][]byte // one every 10 ms
		ok       bool
		after    time.Duration
	}{
		"whole":            {[][]byte{whole}, true, 0},
		"whole in the end": {[][]byte{torn(8), torn(100), nil, torn(200), whole}, true, 40 * time.Millisecond},
		"damaged":          {[][]byte{torn(100), torn(100), whole}, false, 10 * time.Millisecond},
		"never whole": {[][]byte{
			torn(260), torn(261), torn(262), torn(263), torn(264), torn(265), torn(266), torn(267), torn(268), torn(269), whole,
		}, false, 90 * time.Millisecond},
	} {
		write(t, tt.contents[0])
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			go func() {
				time.Sleep(5 * time.Millisecond)
				for _, b := range tt.contents[1:] {
					write(t, b)
					time.Sleep(10 * time.Millisecond)
				}
			}()
			c, err := wal.ReadControl(dir)
			if tt.ok != (err == nil && c.Version == 1800) || !tt.ok && !errors.Is(err, wal.ErrControl) {
				t.Errorf("%s: %+v, %v", name, c, err)
			}
			if d := time.Since(began); d != tt.after {
				t.Errorf("%s: the answer came after %v, want %v", name, d, tt.after)
			}
			time.Sleep(time.Second) // fake: until the writer is through
		})
	}
}

func FuzzParseControl(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := wal.ParseControl(b)
		if err != nil {
			if !errors.Is(err, wal.ErrControl) || c != (wal.Control{}) {
				t.Errorf("%+v, %v", c, err)
			}
			return
		}
		if !c.SegmentSize.Valid() || c.WALBlockSize != wal.PageSize || c.State.String() == "" || c.WALLevel.String() == "" {
			t.Errorf("accepted: %+v", c)
		}
	})
}
