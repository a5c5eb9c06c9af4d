package archive_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// benchSegments is how many segments of real WAL the benchmarks go through.
const benchSegments = 24

// pgbenchWAL is the WAL of pgbench's default load since a checkpoint, so with many images of whole pages at first.
func pgbenchWAL(b *testing.B) [][]byte {
	b.Helper()
	majors := slices.DeleteFunc(pgtest.Majors(b), func(m int) bool { return !pgtest.HasTool(b, m, "pgbench") })
	if len(majors) == 0 {
		b.Fatal("no installation of PostgreSQL has pgbench")
	}
	s := pgtest.Start(b, pgtest.Options{Major: majors[len(majors)-1], Settings: map[string]string{
		"fsync": "off", "wal_keep_size": "2GB", "max_wal_size": "4GB", "checkpoint_timeout": "1h", "shared_buffers": "256MB",
	}})
	run := func(args ...string) {
		c := s.Command("pgbench", args...)
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("pgbench: %v: %s", err, out)
		}
	}
	run("-i", "-q", "-s", "30")
	s.Exec("CHECKPOINT", "SELECT pg_switch_wal()")
	first := pgtest.Query[string](s, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
	for pgtest.Query[int](s, "SELECT count(*)::int FROM pg_ls_waldir() WHERE name >= $1 AND name < pg_walfile_name(pg_current_wal_insert_lsn())", first) < benchSegments {
		run("-n", "-c", "4", "-t", "2000")
	}
	files, err := filepath.Glob(filepath.Join(s.DataDir, "pg_wal", strings.Repeat("[0-9A-F]", 24)))
	if err != nil {
		b.Fatal(err)
	}
	slices.Sort(files)
	var all [][]byte
	for _, f := range files {
		if filepath.Base(f) < first || len(all) == benchSegments {
			continue
		}
		raw, err := os.ReadFile(f)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, raw)
	}
	if len(all) != benchSegments {
		b.Fatalf("there are %d segments instead of %d", len(all), benchSegments)
	}
	return all
}

// BenchmarkWAL measures what the archive does to WAL on its way into the bucket and back, the bucket left aside.
func BenchmarkWAL(b *testing.B) {
	segments := pgbenchWAL(b)
	b.Run("seal", func(b *testing.B) {
		m := newMeter(b)
		w := archive.New(m).WAL(wal.DefaultSegmentSize)
		for i := 0; b.Loop(); i++ {
			raw := segments[i%len(segments)]
			if _, err := w.Seal(b.Context(), sealOf(segmentOf(1, uint64(i)), 1, raw)); err != nil {
				b.Fatal(err)
			}
			m.raw += len(raw)
		}
		m.report()
	})
	for _, size := range []int{64 << 10, 512 << 10, 4 << 20} {
		b.Run(fmt.Sprintf("chunks of %d KiB", size>>10), func(b *testing.B) {
			m := newMeter(b)
			w := archive.New(m).WAL(wal.DefaultSegmentSize)
			for i := 0; b.Loop(); i++ {
				n, at := i*size/wal.DefaultSegmentSize, i*size%wal.DefaultSegmentSize
				c := benchChunk(segmentOf(1, uint64(n)), wal.LSN(at), wal.LSN(at+size))
				if _, err := w.PutChunk(b.Context(), c, segments[n%len(segments)][at:at+size]); err != nil {
					b.Fatal(err)
				}
				m.raw += size
			}
			m.report()
		})
	}
	b.Run("read", func(b *testing.B) {
		bucket := archivetest.Memory()
		w := archive.New(bucket).WAL(wal.DefaultSegmentSize)
		for i, raw := range segments {
			if _, err := w.Seal(b.Context(), sealOf(segmentOf(1, uint64(i)), 1, raw)); err != nil {
				b.Fatal(err)
			}
		}
		m := newMeter(b)
		for i := 0; b.Loop(); i++ {
			r, _, err := w.OpenSegment(b.Context(), segmentOf(1, uint64(i%len(segments))))
			if err != nil {
				b.Fatal(err)
			}
			n, err := io.Copy(io.Discard, r)
			if err != nil {
				b.Fatal(err)
			}
			m.raw += int(n)
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
		m.report()
	})
}

func benchChunk(s wal.Segment, from, to wal.LSN) archive.Chunk {
	start := s.Start(wal.DefaultSegmentSize)
	return archive.Chunk{Segment: s, Epoch: 1, From: start + from, To: start + to}
}

// meter is a bucket that keeps nothing but sizes, and measures what was used meanwhile.
type meter struct {
	*archivetest.Bucket
	b           *testing.B
	raw, stored int
	cpu         time.Duration
	began       time.Time
}

func newMeter(b *testing.B) *meter {
	b.ReportAllocs()
	return &meter{Bucket: archivetest.Memory(), b: b, cpu: cpuTime(b), began: time.Now()}
}

func (m *meter) Put(_ context.Context, _ string, body []byte, _ archive.PutOptions) error {
	m.stored += len(body)
	return nil
}

func (m *meter) report() {
	gib := float64(m.raw) / (1 << 30)
	m.b.ReportMetric(float64(m.raw)/1e6/time.Since(m.began).Seconds(), "MB/s")
	m.b.ReportMetric((cpuTime(m.b)-m.cpu).Seconds()/gib, "cpu-s/GiB")
	if m.stored > 0 {
		m.b.ReportMetric(float64(m.raw)/float64(m.stored), "ratio")
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
