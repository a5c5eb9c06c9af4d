package verify_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

const mib = wal.MinSegmentSize

// fixture is an archive of WAL that a real server wrote: sealed segments, chunks of the open one, and two snapshots.
type fixture struct {
	bucket      *archivetest.Bucket
	first, last wal.Segment // sealed; the segment after last is open
	end         wal.LSN
	snapshots   []string
}

// makeFixture runs a server with segments of 1 MiB and archives what it writes.
func makeFixture(t *testing.T) *fixture {
	t.Helper()
	s := pgtest.Start(t, pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}, Settings: map[string]string{"wal_keep_size": "512MB"}})
	start := position(t, s)
	s.Exec("CREATE TABLE t AS SELECT generate_series(1, 60000) AS n")
	middle := position(t, s)
	s.Exec("SELECT pg_switch_wal()", "INSERT INTO t SELECT generate_series(1, 20000)", "CHECKPOINT")
	f := &fixture{bucket: archivetest.Memory(), end: position(t, s)}
	z := wal.SegmentSize(mib)
	f.first, f.last = z.SegmentAt(1, start), z.SegmentBefore(1, z.Floor(f.end))
	c, err := wal.ReadControl(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	w := archive.New(f.bucket).WAL(mib)
	f.must(t, w.ClaimCluster(t.Context(), archive.Cluster{SystemIdentifier: c.SystemIdentifier, SegmentSize: mib}))
	f.must(t, w.ClaimEpoch(t.Context(), archive.Epoch{Number: 1, Timeline: 1, Since: z.Floor(start)}))
	f.must(t, w.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 1, Epoch: 1, Switch: z.Floor(start)}))
	for seg := f.first; seg.Number <= f.last.Number+1; seg = seg.Next() {
		f.ship(t, w, filepath.Join(s.DataDir, "pg_wal", seg.Name(mib)), seg)
	}
	f.snapshot(t, w, start, start+1000)
	f.snapshot(t, w, middle, middle+1000)
	return f
}

func position(t *testing.T, s *pgtest.Server) wal.LSN {
	t.Helper()
	at, err := wal.ParseLSN(pgtest.Query[string](s, "SELECT pg_current_wal_flush_lsn()::text"))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func (f *fixture) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ship seals a complete segment, and stores the open one as two chunks of which the second begins inside a page.
func (f *fixture) ship(t *testing.T, w *archive.WAL, file string, seg wal.Segment) {
	t.Helper()
	raw, err := os.ReadFile(file)
	f.must(t, err)
	if seg.Number <= f.last.Number {
		_, err = w.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: mib})
		f.must(t, err)
		return
	}
	start := seg.Start(mib)
	cut := start + (f.end-start)/2
	for _, c := range []archive.Chunk{{Segment: seg, Epoch: 1, From: start, To: cut}, {Segment: seg, Epoch: 1, From: cut, To: f.end}} {
		_, err := w.PutChunk(t.Context(), c, raw[c.From-start:c.To-start])
		f.must(t, err)
	}
}

func (f *fixture) snapshot(t *testing.T, w *archive.WAL, start, stop wal.LSN) {
	t.Helper()
	name := archive.BackupName(wal.SegmentSize(mib).SegmentAt(1, start), mib)
	var raw bytes.Buffer
	tw := tar.NewWriter(&raw)
	body := bytes.Repeat([]byte("page"), 20_000)
	f.must(t, tw.WriteHeader(&tar.Header{Name: "/base/1/1259", Mode: 0o600, Size: int64(len(body))}))
	_, err := tw.Write(body)
	f.must(t, errors.Join(err, tw.Close()))
	var parts []archive.Part
	for _, n := range []string{"part_001", "part_002"} {
		p, err := w.UploadPart(t.Context(), name, n, bytes.NewReader(raw.Bytes()))
		f.must(t, err)
		parts = append(parts, p)
	}
	from, to := uint64(start), uint64(stop)
	f.must(t, w.CommitBackup(t.Context(), archive.Manifest{
		Name: name, Epoch: 1, Timeline: 1, Start: start, Stop: stop, StopTime: time.Now(), Parts: parts,
		Checksums: archive.ChecksumVerdict{Enabled: true, Pages: 10},
	}, archive.Metadata{}, archive.Sentinel{LSN: &from, FinishLSN: &to, FinishTime: time.Now()}))
	f.snapshots = append(f.snapshots, name)
}

// copy is an archive of its own with the same content.
func (f *fixture) copy(t *testing.T) *archivetest.Bucket {
	t.Helper()
	b := archivetest.Memory()
	for _, key := range f.bucket.Keys() {
		r, info, err := f.bucket.Open(t.Context(), key, archive.Range{})
		f.must(t, err)
		body, err := io.ReadAll(r)
		f.must(t, errors.Join(err, r.Close()))
		f.must(t, b.Put(t.Context(), key, body, archive.PutOptions{Meta: info.Meta}))
	}
	return b
}
