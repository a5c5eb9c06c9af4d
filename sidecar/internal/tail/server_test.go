package tail_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/tail"
	"outrider.dev/sidecar/internal/wal"
)

const mb = wal.SegmentSize(1 << 20)

// asker asks a real server on one session.
type asker struct {
	conn    *pgx.Conn
	queries atomic.Int64
}

func (a *asker) Flushed(ctx context.Context) (wal.Position, error) {
	a.queries.Add(1)
	var file, lsn string
	err := a.conn.QueryRow(ctx, "SELECT pg_walfile_name(pg_current_wal_insert_lsn()), pg_current_wal_flush_lsn()::text").Scan(&file, &lsn)
	if err != nil {
		return wal.Position{}, err
	}
	timeline, err := strconv.ParseUint(file[:8], 16, 32)
	if err != nil {
		return wal.Position{}, err
	}
	l, err := wal.ParseLSN(lsn)
	return wal.Position{Timeline: wal.Timeline(timeline), LSN: l}, err
}

// What Next says can be read at once, without a hole, over segment switches and recycled files, and the last answer is
// the server's last position.
func TestFollowsARealServer(t *testing.T) {
	s := pgtest.Start(t, pgtest.Options{InitdbArgs: []string{"--wal-segsize=1"}, Settings: map[string]string{
		"max_wal_size": "8MB", "min_wal_size": "6MB", "checkpoint_timeout": "30s",
	}})
	ctl, err := wal.ReadControl(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	s.Exec("CREATE TABLE t (n int, s text)", "SELECT pg_create_physical_replication_slot('test', true)")
	dir := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Join(s.DataDir, "pg_wal"), dir); err != nil {
		t.Fatal(err)
	}
	a := &asker{conn: s.Conn()}
	before := goleak.IgnoreCurrent()
	tl, err := tail.New(tail.Config{Dir: dir, Size: mb, Server: a, Interval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	// A server just started may begin in a segment that is recycled at once; from the slot on nothing is lost.
	start, err := wal.ParseLSN(pgtest.Query[string](s, "SELECT restart_lsn::text FROM pg_replication_slots"))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{t: t, dir: dir, ctl: ctl, slots: s.Conn(), files: map[uint64]wal.Segment{}}
	r.at = wal.Position{Timeline: 1, LSN: start}

	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		load(t, s)
	}()
	for done := false; !done; {
		select {
		case <-loaded:
			done = true
		default:
			r.follow(tl)
		}
		if t.Failed() {
			<-loaded
			return
		}
	}
	// A last write after everything: the tailer must end exactly there.
	s.Exec("INSERT INTO t VALUES (0, 'last')")
	last, err := a.Flushed(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for !t.Failed() && r.at.LSN < last.LSN {
		r.follow(tl)
	}
	if err := tl.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, before)
	t.Logf("%d bytes in %d answers with %d questions, %d segments, %d recycled files", r.bytes, r.answers, a.queries.Load(), r.segments, r.recycled)
	if r.recycled == 0 || r.segments < 20 {
		t.Errorf("the test has seen %d segments and %d recycled files", r.segments, r.recycled)
	}
}

// load writes in small commits and in bulk, with checkpoints that recycle files.
func load(t *testing.T, s *pgtest.Server) {
	var clients sync.WaitGroup
	for c := range 3 {
		clients.Go(func() {
			conn, err := s.Connect(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close(t.Context())
			for i := range 300 {
				rows := 1
				if c == 0 && i%10 == 0 {
					rows = 5000
				}
				_, err := conn.Exec(t.Context(), "INSERT INTO t SELECT g, repeat('x', 200) FROM generate_series(1, $1) g", rows)
				if err == nil && c == 0 && i%50 == 0 {
					_, err = conn.Exec(t.Context(), "CHECKPOINT")
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// reader reads what Next says is there and lets the server recycle it.
type reader struct {
	t     *testing.T
	dir   string
	ctl   wal.Control
	slots *pgx.Conn
	at    wal.Position

	answers, segments, recycled int
	bytes                       int64
	files                       map[uint64]wal.Segment // by inode
}

func (r *reader) follow(tl *tail.Tailer) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Second)
	defer cancel()
	pos, err := tl.Next(ctx, r.at)
	if errors.Is(err, context.DeadlineExceeded) {
		return // the load pauses
	}
	if err != nil {
		r.t.Error(err)
		return
	}
	r.answers++
	for l := r.at.LSN; l < pos.LSN; {
		end := min(mb.Floor(l)+wal.LSN(mb), pos.LSN)
		if err := r.read(pos.Timeline, l, end); err != nil {
			r.t.Error(err)
			return
		}
		l = end
	}
	r.at = pos
	if _, err := r.slots.Exec(r.t.Context(), "SELECT pg_replication_slot_advance('test', $1::text::pg_lsn)", pos.LSN.String()); err != nil {
		r.t.Error(err)
	}
}

func (r *reader) read(timeline wal.Timeline, from, to wal.LSN) error {
	seg := mb.SegmentAt(timeline, from)
	f, err := wal.OpenSegment(r.dir, seg, r.ctl.SegmentSize, r.ctl.SystemIdentifier)
	if err != nil {
		return err
	}
	defer f.Close()
	p := make([]byte, to-from)
	if _, err := f.ReadAt(p, mb.Offset(from)); err != nil {
		return err
	}
	if err := f.StillNamed(); err != nil {
		return err
	}
	r.bytes += int64(len(p))
	info, err := os.Stat(filepath.Join(r.dir, seg.Name(mb)))
	if err != nil {
		return err
	}
	inode := info.Sys().(*syscall.Stat_t).Ino
	switch before, known := r.files[inode]; {
	case !known:
		r.segments++
	case before != seg:
		r.segments++
		r.recycled++
	}
	r.files[inode] = seg
	return nil
}

// BenchmarkLoad measures what following a server under load costs this process: processor time for each answer, and
// as a share of one processor.
func BenchmarkLoad(b *testing.B) {
	majors := slices.DeleteFunc(pgtest.Majors(b), func(m int) bool { return !pgtest.HasTool(b, m, "pgbench") })
	if len(majors) == 0 {
		b.Skip("no installation of PostgreSQL has pgbench")
	}
	s := pgtest.Start(b, pgtest.Options{Major: majors[0], Settings: map[string]string{"max_wal_size": "4GB"}})
	run := func(args ...string) {
		if out, err := s.Command("pgbench", args...).CombinedOutput(); err != nil {
			b.Error(fmt.Errorf("pgbench: %w\n%s", err, out))
		}
	}
	run("-i", "-q", "-s", "10")
	for _, clients := range []int{0, 1, 8} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			a := &asker{conn: s.Conn()}
			tl, err := tail.New(tail.Config{Dir: filepath.Join(s.DataDir, "pg_wal"), Size: wal.DefaultSegmentSize, Server: a})
			if err != nil {
				b.Fatal(err)
			}
			defer tl.Close()
			var out sync.WaitGroup
			if clients > 0 {
				out.Go(func() { run("-n", "-c", strconv.Itoa(clients), "-j", "1", "-T", "10") })
			}
			ctx, cancel := context.WithTimeout(b.Context(), 8*time.Second)
			defer cancel()
			started, cpu, answers := time.Now(), processorTime(), 0
			for at := (wal.Position{}); ctx.Err() == nil; {
				if pos, err := tl.Next(ctx, at); err == nil {
					at = pos
					answers++
				} else if ctx.Err() == nil {
					b.Fatal(err)
				}
			}
			used, took := processorTime()-cpu, time.Since(started)
			b.ReportMetric(used.Seconds()/took.Seconds()*100, "cpu-%")
			b.ReportMetric(float64(a.queries.Load())/took.Seconds(), "queries/s")
			b.ReportMetric(float64(answers)/took.Seconds(), "answers/s")
			out.Wait()
		})
	}
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
