package restore

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

// TestMain puts temporary directories into memory where there is room: these tests are about content, not about disks,
// and lay down thousands of files.
func TestMain(m *testing.M) {
	const memory = "/dev/shm"
	if free, err := freeBytes(memory); err == nil && free > 4<<30 && os.Getenv("TMPDIR") == "" {
		if err := os.Setenv("TMPDIR", memory); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

const segmentSize = wal.SegmentSize(wal.MinSegmentSize)

// writer stands in for the sidecar: it ships the WAL of a server and takes snapshots of it.
type writer struct {
	t      testing.TB
	db     *pgtest.Server
	bucket *archivetest.Bucket
	a      *archive.Archive
	w      *archive.WAL
	epoch  uint64
	tli    wal.Timeline
	pos    wal.LSN // shipped up to here
	system uint64
	chunks int // bytes of a chunk at most
	tail   []archive.Chunk
}

func serverSettings() map[string]string {
	return map[string]string{
		"wal_keep_size": "1GB", "autovacuum": "off", "max_connections": "30", "fsync": "off", "shared_buffers": "16MB",
	}
}

// startWriter starts a server with small segments and an archive that it owns from the beginning.
func startWriter(t testing.TB, major int, settings map[string]string) *writer {
	t.Helper()
	all := serverSettings()
	for k, v := range settings {
		all[k] = v
	}
	db := pgtest.Start(t, pgtest.Options{Major: major, Settings: all, InitdbArgs: []string{"--wal-segsize=1", "-k"}})
	bucket := archivetest.Memory()
	w := &writer{t: t, db: db, bucket: bucket, a: archive.New(bucket), chunks: 64 << 10}
	w.w = w.a.WAL(segmentSize)
	shrink(db)
	db.Exec("CREATE TABLE t (n int)")
	w.begin(1, 1, "")
	return w
}

// shrink drops the databases that no test needs: two thirds of all files.
func shrink(db *pgtest.Server) {
	db.Exec("UPDATE pg_database SET datistemplate = false", "DROP DATABASE template0", "DROP DATABASE template1")
}

// begin claims an epoch and the timeline that the server is on, and ships from the first byte of its first segment on.
func (w *writer) begin(epoch uint64, tli wal.Timeline, target string) {
	w.t.Helper()
	c, err := wal.ReadControl(w.db.DataDir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.epoch, w.tli, w.system = epoch, tli, c.SystemIdentifier
	id := archive.Identity{Instance: fmt.Sprintf("test-%d", epoch)}
	must(w.t, w.a.ClaimCluster(ctx(w.t), archive.Cluster{SystemIdentifier: w.system, SegmentSize: segmentSize, CreatedBy: id}))
	claim := archive.TimelineClaim{Timeline: tli, Epoch: epoch, ClaimedAt: time.Now(), Target: target}
	e := archive.Epoch{Number: epoch, Writer: id, ClaimedAt: time.Now()}
	if tli == 1 {
		w.pos = segmentSize.Floor(w.flushed())
		claim.Switch, e.Timeline, e.Since = w.pos, tli, w.pos
	} else {
		h, raw := readHistory(w.t, w.db.DataDir, tli)
		claim.Parent, claim.Switch = h[len(h)-1].Parent, h[len(h)-1].LSN
		w.pos = segmentSize.Floor(claim.Switch)
		defer func() { must(w.t, w.a.PutHistory(ctx(w.t), tli, raw)) }()
	}
	must(w.t, w.a.ClaimEpoch(ctx(w.t), e))
	must(w.t, w.a.ClaimTimeline(ctx(w.t), claim))
	w.ship()
}

func readHistory(t testing.TB, dir string, tli wal.Timeline) (wal.History, []byte) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "pg_wal", wal.HistoryName(tli)))
	must(t, err)
	h, err := wal.ParseHistory(tli, string(raw))
	must(t, err)
	return h, raw
}

func ctx(t testing.TB) context.Context { return t.Context() }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func parseLSN(t testing.TB, s string) wal.LSN {
	t.Helper()
	l, err := wal.ParseLSN(s)
	must(t, err)
	return l
}

func (w *writer) flushed() wal.LSN {
	w.t.Helper()
	return parseLSN(w.t, pgtest.Query[string](w.db, "SELECT pg_current_wal_flush_lsn()::text"))
}

// ship brings the archive up to the flush position: whole segments sealed, the rest as chunks.
func (w *writer) ship() { w.shipTo(w.flushed()) }

func (w *writer) shipTo(to wal.LSN) {
	w.t.Helper()
	for w.pos < to {
		seg := segmentSize.SegmentAt(w.tli, w.pos)
		raw, err := os.ReadFile(filepath.Join(w.db.DataDir, "pg_wal", seg.Name(segmentSize)))
		must(w.t, err)
		if seg.End(segmentSize) <= to {
			_, err := w.w.Seal(ctx(w.t), archive.SealRequest{Segment: seg, Epoch: w.epoch, Raw: bytes.NewReader(raw), Valid: int64(segmentSize)})
			must(w.t, err)
			must(w.t, w.w.RemoveChunks(ctx(w.t), w.tail))
			w.tail, w.pos = nil, seg.End(segmentSize)
			continue
		}
		for w.pos < to {
			end := min(to, w.pos+wal.LSN(w.chunks))
			from := segmentSize.Offset(w.pos)
			c := archive.Chunk{Segment: seg, Epoch: w.epoch, From: w.pos, To: end}
			_, err := w.w.PutChunk(ctx(w.t), c, raw[from:from+int64(end-w.pos)])
			must(w.t, err)
			w.tail = append(w.tail, c)
			w.pos = end
		}
	}
}

func (w *writer) beat() {
	w.t.Helper()
	must(w.t, w.a.Beat(ctx(w.t), archive.Heartbeat{Epoch: w.epoch, Timeline: w.tli, Durable: w.pos, Interval: 1}))
}

// point is a moment in the life of the database.
type point struct {
	lsn wal.LSN
	at  time.Time
}

// insert commits a row and ships it. The point is after the commit, and a little before the next one.
func (w *writer) insert(n int) point {
	w.t.Helper()
	w.db.Exec(fmt.Sprintf("INSERT INTO t VALUES (%d)", n))
	return w.mark()
}

func (w *writer) mark() point {
	w.t.Helper()
	w.ship()
	var p point
	p.lsn = parseLSN(w.t, pgtest.Query[string](w.db, "SELECT pg_current_wal_insert_lsn()::text"))
	p.at = pgtest.Query[time.Time](w.db, "SELECT clock_timestamp()")
	time.Sleep(2 * time.Millisecond) // commits are told apart by time
	return p
}

// bulk writes some segments of WAL.
func (w *writer) bulk(segments int) {
	w.t.Helper()
	w.db.Exec("CREATE TABLE IF NOT EXISTS bulk (s text)",
		fmt.Sprintf("INSERT INTO bulk SELECT repeat(md5(g::text), 30) FROM generate_series(1, %d) g", segments*950))
	w.ship()
}

// snapshot takes a snapshot in three parts and those for label and control file, and returns its name.
func (w *writer) snapshot() string {
	w.t.Helper()
	s := w.copyFiles()
	m := archive.Manifest{
		Name: s.name, Epoch: w.epoch, Timeline: w.tli, Start: s.start, Stop: s.stop, StartTime: s.began, StopTime: s.ended,
		SystemIdentifier: w.system, SegmentSize: segmentSize, ServerVersion: w.db.Major * 10000, CatalogVersion: 1,
	}
	for _, name := range s.order {
		p, err := w.a.UploadPart(ctx(w.t), s.name, name, bytes.NewReader(s.parts[name]))
		must(w.t, err)
		p.Files = countFiles(w.t, s.parts[name])
		m.Parts = append(m.Parts, p)
		m.RawSize += p.RawSize
	}
	m.Tablespaces = s.tablespaces
	start, stop := uint64(s.start), uint64(s.stop)
	must(w.t, w.a.CommitBackup(ctx(w.t), m, archive.Metadata{}, archive.Sentinel{
		LSN: &start, FinishLSN: &stop, SystemIdentifier: &w.system, FilesMetadataDisabled: true, StartTime: s.began, FinishTime: s.ended,
	}))
	return s.name
}

// cloneBucket copies all objects with their metadata.
func cloneBucket(t testing.TB, from *archivetest.Bucket) *archivetest.Bucket {
	t.Helper()
	to := archivetest.Memory()
	for _, key := range from.Keys() {
		info, err := from.Stat(ctx(t), key)
		must(t, err)
		must(t, to.Put(ctx(t), key, from.Bytes(key), archive.PutOptions{Meta: info.Meta}))
	}
	return to
}

// restored is a directory that a plan was carried out in.
type restored struct {
	t    testing.TB
	a    *archive.Archive
	plan Plan
	dir  string
	res  Result
}

// restoreTo plans a restore, lays it down with all its WAL, and leaves the server stopped.
func restoreTo(t testing.TB, a *archive.Archive, req Request) restored {
	t.Helper()
	plan, err := NewPlan(ctx(t), a, req)
	must(t, err)
	return layDown(t, a, plan)
}

func layDown(t testing.TB, a *archive.Archive, plan Plan) restored {
	t.Helper()
	r := restored{t: t, a: a, plan: plan, dir: filepath.Join(t.TempDir(), "data")}
	var err error
	r.res, err = Restore(ctx(t), a, plan, Options{Dir: r.dir, Patience: 20 * time.Second})
	must(t, err)
	r.fill()
	return r
}

func (r restored) fill() FillResult {
	r.t.Helper()
	res, err := Fill(ctx(r.t), r.a, FillOptions{Dir: r.dir, Patience: 20 * time.Second})
	must(r.t, err)
	return res
}

// start has the server recover and promote.
func (r restored) start() *pgtest.Server {
	r.t.Helper()
	return pgtest.Open(r.t, r.dir, pgtest.Options{Settings: map[string]string{"fsync": "off"}})
}

// rows are those of the table t.
func rows(s *pgtest.Server) []int32 { return pgtest.QueryAll[int32](s, "SELECT n FROM t ORDER BY n") }

func wantRows(t testing.TB, s *pgtest.Server, want ...int32) {
	t.Helper()
	if got := rows(s); !slices.Equal(got, want) {
		t.Fatalf("the restored table has %v, want %v\n%s", got, want, s.Log())
	}
}

func timelineNow(s *pgtest.Server) wal.Timeline {
	return wal.Timeline(pgtest.Query[int32](s, "SELECT timeline_id FROM pg_control_checkpoint()"))
}

// take makes the restored and promoted server the writer of a new epoch.
func (r restored) take(s *pgtest.Server, bucket *archivetest.Bucket, epoch uint64) *writer {
	r.t.Helper()
	w := &writer{t: r.t, db: s, bucket: bucket, a: r.a, w: r.a.WAL(segmentSize), chunks: 64 << 10}
	target := r.plan.Target.String()
	if target == "latest" {
		target = ""
	}
	w.begin(epoch, timelineNow(s), target)
	return w
}

func pgName(major int) string { return fmt.Sprintf("PostgreSQL %d", major) }

// startFails has the server start and fail, and returns its log.
func (r restored) startFails() (*pgtest.Server, string) {
	r.t.Helper()
	s := pgtest.Open(r.t, r.dir, pgtest.Options{Settings: map[string]string{"fsync": "off"}, Stopped: true})
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	if err := s.TryStart(ctx); err == nil {
		r.t.Fatalf("the server has come up with %v\n%s", rows(s), s.Log())
	}
	if ctx.Err() != nil {
		r.t.Fatalf("the server neither stops nor comes up\n%s", s.Log())
	}
	log := s.Log()
	return s, log
}
