package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/pgtest"
	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func TestParseTarget(t *testing.T) {
	at := time.Date(2026, 11, 23, 5, 0, 0, 123456000, time.UTC)
	for in, want := range map[string]Target{
		"":                                   {},
		"latest":                             {},
		" latest ":                           {},
		"latest@3":                           {Timeline: 3},
		"@3":                                 {Timeline: 3},
		"16/B374D848":                        {LSN: 0x16B374D848},
		"16/b374d848@2":                      {LSN: 0x16B374D848, Timeline: 2},
		"2026-11-23T05:00:00.123456Z":        {Time: at},
		"2026-11-23T05:00:00.123456789Z":     {Time: at},
		"2026-11-23 05:00:00.123456+00":      {Time: at},
		"2026-11-23 07:00:00.123456+02:00":   {Time: at},
		"2026-11-23 00:00:00.123456-0500":    {Time: at},
		"2026-11-23 05:00:00.123456 UTC":     {Time: at},
		"2026-11-23T05:00:00.123456+00:00@7": {Time: at, Timeline: 7},
		"2026-11-23T05:00:00Z":               {Time: at.Truncate(time.Second)},
	} {
		got, err := ParseTarget(in)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("ParseTarget(%q) = %v, %v; want %v", in, got, err, want)
		}
		again, err := ParseTarget(got.String())
		if err != nil || !cmp.Equal(again, want) || again.String() != got.String() {
			t.Errorf("%q is read back as %v, %v", got, again, err)
		}
	}
	for _, in := range []string{
		"yesterday", "2026-11-23", "2026-11-23 05:00:00", "2026-11-23T05:00:00", "0/0", "1/2/3", "latest@0", "latest@x", "latest@",
		"16/B374D848@-1", "2026-13-23T05:00:00Z", "16/123456789",
	} {
		if got, err := ParseTarget(in); err == nil {
			t.Errorf("ParseTarget(%q) = %v, want an error", in, got)
		}
	}
	if _, err := ParseTarget("2026-11-23 05:00:00"); !strings.Contains(fmt.Sprint(err), "zone") {
		t.Errorf("a time without a zone: %v", err)
	}
}

// Whoever runs the restore, the files belong to the server's user in the end.
func TestOwners(t *testing.T) {
	s := tell(t)
	recorded, err := os.Stat(filepath.Join(s.db.DataDir, "PG_VERSION"))
	must(t, err)
	for name, c := range map[string]struct{ uid, want int }{"as recorded": {0, ownerOf(recorded)}, "as told": {4321, 4321}} {
		if os.Geteuid() != 0 {
			c.want = os.Geteuid()
		}
		r := recovering(t, s.writer.a, Request{}, Options{UID: c.uid, GID: c.uid})
		n := 0
		must(t, filepath.WalkDir(r.dir, func(path string, e fs.DirEntry, err error) error {
			must(t, err)
			fi, err := e.Info()
			must(t, err)
			n++
			if ownerOf(fi) != c.want {
				t.Errorf("%s: %s belongs to %d, want %d", name, path, ownerOf(fi), c.want)
			}
			if fi.Mode().Perm()&0o077 != 0 && !strings.Contains(path, "/"+ownDir+"/"+spoolName) {
				t.Errorf("%s: %s has mode %s", name, path, fi.Mode())
			}
			return nil
		}))
		if n < 100 {
			t.Errorf("looked at %d files", n)
		}
	}
}

// The store is away in the middle: nothing that was done is done again, and nothing is counted twice.
func TestStoreIsAwayForAMoment(t *testing.T) {
	s := tell(t)
	b := cloneBucket(t, s.bucket)
	a := archive.New(b)
	plan, err := NewPlan(t.Context(), a, Request{})
	must(t, err)
	var opens atomic.Int64
	b.Fault(func(op, key string) error {
		if op == "open" && (strings.Contains(key, "/part_") || strings.HasPrefix(key, "wal_005/0")) && opens.Add(1)%2 == 1 {
			return errors.New("the network is down")
		}
		return nil
	})
	var last Progress
	r := restored{t: t, a: a, plan: plan, dir: filepath.Join(t.TempDir(), "data")}
	r.res, err = Restore(t.Context(), a, plan, Options{Dir: r.dir, Progress: func(p Progress) { last = p }})
	must(t, err)
	if last.Step != "unpack" || last.Bytes != plan.Snapshot.RawSize || last.Total != plan.Snapshot.RawSize || last.Files != r.res.Files {
		t.Errorf("the last progress is %+v; %d bytes, %d files were restored", last, plan.Snapshot.RawSize, r.res.Files)
	}
	res, err := Fill(t.Context(), a, FillOptions{Dir: r.dir, Progress: func(p Progress) { last = p }})
	must(t, err)
	if last.Step != "wal" || last.Bytes != last.Total || last.Files != plan.Segments || res.Segments != plan.Segments {
		t.Errorf("the last progress is %+v, %d segments were laid; the plan has %d", last, res.Segments, plan.Segments)
	}
	wantRows(t, r.start(), 1, 2, 3, 4, 5)
}

// breaking is a bucket where the first transfer of each object breaks off in the middle.
type breaking struct {
	*archivetest.Bucket
	seen sync.Map
}

func (b *breaking) Open(ctx context.Context, key string, r archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	body, info, err := b.Bucket.Open(ctx, key, r)
	if _, again := b.seen.LoadOrStore(key, true); again || err != nil || strings.HasSuffix(key, ".json") {
		return body, info, err
	}
	broken := iotest.ErrReader(fmt.Errorf("reading %s: %w", key, io.ErrUnexpectedEOF))
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(io.LimitReader(body, info.Size/2), broken), body}, info, nil
}

// A transfer that breaks off is neither the end of the WAL nor a damaged object.
func TestTransfersThatBreakOff(t *testing.T) {
	s := tell(t)
	want, err := NewPlan(t.Context(), s.writer.a, Request{})
	must(t, err)
	b := &breaking{Bucket: s.bucket}
	a := archive.New(b)
	var plan Plan
	for try := 0; ; try++ {
		if plan, err = NewPlan(t.Context(), a, Request{}); err == nil {
			break
		}
		if errors.Is(err, archive.ErrCorrupt) || errors.Is(err, ErrHole) || errors.Is(err, ErrNoSnapshot) || try > 20 {
			t.Fatalf("planning while transfers break off: %v", err)
		}
	}
	if plan.ReplayEnd != want.ReplayEnd || !plan.LastCommit.Equal(want.LastCommit) {
		t.Errorf("while transfers break off the plan goes to %s, %s; otherwise to %s, %s", plan.ReplayEnd, plan.LastCommit, want.ReplayEnd, want.LastCommit)
	}
	r := layDown(t, a, plan)
	if diff := differ(contentOf(t, recovering(t, s.writer.a, Request{}, Options{}).dir), contentOf(t, r.dir)); diff != "" {
		t.Error(diff)
	}
	wantRows(t, r.start(), 1, 2, 3, 4, 5)
}

func TestTarWithMoreBehindIt(t *testing.T) {
	tarball := func(name string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		writeMember(t, w, name, []byte("x"))
		must(t, w.Close())
		return b.Bytes()
	}
	u := handmadeTar(t, append(tarball("a"), tarball("b")...))
	if !errors.Is(u.err, archive.ErrCorrupt) {
		t.Errorf("two tars in one part: %v, want ErrCorrupt", u.err)
	}
	// GNU tar fills up its last record.
	u = handmadeTar(t, append(tarball("a"), make([]byte, 8192)...))
	must(t, u.err)
}

// A clone begins an archive of its own on timeline 2; the WAL of timeline 1 is in the other one. Neither that nor a
// missing .history keeps it from being restored.
func TestArchiveThatBeginsOnALaterTimeline(t *testing.T) {
	s := tell(t)
	clone := restoreTo(t, s.writer.a, Request{Clone: true, Target: Target{LSN: s.p[2].lsn}})
	if !clone.plan.JobsOff {
		t.Error("the jobs of a clone run")
	}
	server := clone.start()
	bucket := archivetest.Memory()
	clone.a = archive.New(bucket)
	w := clone.take(server, bucket, 1)
	w.insert(20)
	w.snapshot()
	w.insert(21)
	wantRows(t, restoreTo(t, w.a, Request{}).start(), 1, 2, 20, 21)

	remove(t, bucket, func(key string) bool { return strings.Contains(key, ".history") })
	remove(t, bucket, func(key string) bool { return strings.HasPrefix(key, "outrider/timelines/") })
	must(t, w.a.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 2, Epoch: 1, Switch: w.pos}))
	r := restoreTo(t, w.a, Request{})
	server = r.start()
	wantRows(t, server, 1, 2, 20, 21)
	if tli := timelineNow(server); tli != 3 {
		t.Errorf("promoted to timeline %d, want 3", tli)
	}
}

// A record is damaged in an archive without hashes. PostgreSQL takes that for the end of the WAL and promotes; the plan
// tells that it is not.
func TestRecoveryThatEndsEarly(t *testing.T) {
	g := startWALG(t, "")
	g.snapshot(walgOptions{})
	g.db.Exec("INSERT INTO t VALUES (2)")
	at := parseLSN(t, pgtest.Query[string](g.db, "SELECT pg_current_wal_insert_lsn()::text")) + 500_000 // amidst what follows
	g.db.Exec("CREATE TABLE bulk AS SELECT repeat(md5(g::text), 30) FROM generate_series(1, 2000) g", "INSERT INTO t VALUES (3)")
	g.ship()
	key := "wal_005/" + segmentSize.SegmentAt(1, at).Name(segmentSize)
	body := g.bucket.Bytes(key)
	body[segmentSize.Offset(at)/wal.PageSize*wal.PageSize+4000] ^= 1
	g.bucket.SetBytes(key, body)
	r := restoreTo(t, archive.New(g.bucket), Request{})
	s := r.start()
	h, _ := readHistory(t, r.dir, 2)
	if err := r.plan.Arrived(h[0].LSN); !errors.Is(err, archive.ErrCorrupt) {
		t.Errorf("recovery ended at %s with %v, planned was %s: %v, want ErrCorrupt", h[0].LSN, rows(s), r.plan.ReplayEnd, err)
	}
	if err := r.plan.Arrived(r.plan.ReplayEnd); err != nil {
		t.Errorf("at its end: %v", err)
	}
}
