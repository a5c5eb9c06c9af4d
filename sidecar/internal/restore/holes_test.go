package restore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

func remove(t *testing.T, b *archivetest.Bucket, match func(key string) bool) {
	t.Helper()
	n := 0
	for _, key := range b.Keys() {
		if match(key) {
			must(t, b.Remove(t.Context(), key))
			n++
		}
	}
	if n == 0 {
		t.Fatal("no object matches")
	}
}

// growing is a bucket in which an object comes to be after it was first listed.
type growing struct {
	archive.Bucket
	late   string
	listed bool
}

func (g *growing) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	return func(yield func(archive.ObjectInfo, error) bool) {
		for o, err := range g.Bucket.List(ctx, prefix, after) {
			if o.Key == g.late && !g.listed {
				g.listed = true
				continue
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func segmentKey(t wal.Timeline, l wal.LSN) string {
	return "wal_005/" + segmentSize.SegmentAt(t, l).Name(segmentSize) + ".zst"
}

func TestHoles(t *testing.T) {
	w := startWriter(t, 0, nil)
	w.insert(1)
	first := w.snapshot()
	w.insert(2)
	w.bulk(3)
	middle := w.insert(3)
	w.bulk(3)
	second := w.snapshot()
	w.insert(4)
	w.bulk(4)
	w.insert(5)
	w.chunks = 8 << 10
	w.db.Exec("INSERT INTO bulk SELECT repeat(md5(g::text), 30) FROM generate_series(1, 100) g")
	w.insert(6)
	b2, err := w.a.Backup(t.Context(), second)
	must(t, err)

	t.Run("before the newest snapshot", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		remove(t, b, func(key string) bool { return key == segmentKey(1, middle.lsn-64) })
		a := archive.New(b)
		wantRows(t, restoreTo(t, a, Request{}).start(), 1, 2, 3, 4, 5, 6)
		// The older snapshot cannot get past the hole.
		_, err := NewPlan(t.Context(), a, Request{Backup: first})
		if !errors.Is(err, ErrHole) {
			t.Errorf("a restore across a hole: %v, want ErrHole", err)
		}
		r := restoreTo(t, a, Request{Backup: first, AcceptMissing: true})
		if len(r.plan.Missing) == 0 || !strings.Contains(r.plan.String(), "MISSING") {
			t.Errorf("the plan does not say what is missing:\n%s", r.plan)
		}
		wantRows(t, r.start(), 1, 2)
		// What lies before the hole can be reached without accepting anything.
		_, err = NewPlan(t.Context(), a, Request{Target: Target{LSN: segmentSize.Floor(middle.lsn-64) - 100}})
		must(t, err)
	})
	t.Run("inside the newest snapshot", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		remove(t, b, func(key string) bool { return key == segmentKey(1, b2.Start()) })
		_, err := NewPlan(t.Context(), archive.New(b), Request{})
		if !errors.Is(err, ErrHole) || strings.Contains(err.Error(), second) {
			t.Errorf("the newest snapshot lacks its WAL: %v, want ErrHole from the one before", err)
		}
	})
	t.Run("that is none, as a writer is at work", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		var tail []string
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "outrider/tail/") {
				tail = append(tail, key)
			}
		}
		if len(tail) < 3 {
			t.Fatalf("there are %d chunks", len(tail))
		}
		g := &growing{Bucket: b, late: tail[len(tail)-2]}
		_, err := NewPlan(t.Context(), archive.New(g), Request{})
		must(t, err)
		if !g.listed {
			t.Error("the chunk was never asked for")
		}
	})
	t.Run("in what was said to be durable", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		a := archive.New(b)
		must(t, a.Beat(t.Context(), archive.Heartbeat{Epoch: 1, Timeline: 1, Durable: w.pos}))
		must(t, planned(t, a))
		lastTail := ""
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "outrider/tail/") {
				lastTail = key
			}
		}
		must(t, b.Remove(t.Context(), lastTail))
		if err := planned(t, a); !errors.Is(err, ErrHole) {
			t.Errorf("the last chunk is gone, which was durable: %v, want ErrHole", err)
		}
	})
	t.Run("in what was on its way", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		a := archive.New(b)
		remove(t, b, func(key string) bool { return strings.HasPrefix(key, "outrider/tail/") })
		sealed := slices.DeleteFunc(b.Keys(), func(key string) bool { return !strings.HasPrefix(key, "wal_005/") })
		must(t, b.Remove(t.Context(), sealed[len(sealed)-2]))
		// Without a word of the writer's nobody can tell.
		if err := planned(t, a); !errors.Is(err, ErrHole) {
			t.Errorf("the segment before the last is gone: %v, want ErrHole", err)
		}
		must(t, a.Beat(t.Context(), archive.Heartbeat{Epoch: 1, Timeline: 1, Durable: b2.Stop()}))
		plan, err := NewPlan(t.Context(), a, Request{})
		must(t, err)
		if len(plan.Missing) != 0 || !strings.Contains(strings.Join(plan.Warnings, "\n"), "on their way") {
			t.Errorf("missing %q, warnings %q; want none, and that WAL was on its way", plan.Missing, plan.Warnings)
		}
		// A chunk that belongs to nobody changes nothing.
		last, err := wal.ParseSegment(sealed[len(sealed)-1][8:32], segmentSize)
		must(t, err)
		foreign := archive.Chunk{Segment: last.Next(), Epoch: 77, From: last.End(segmentSize), To: last.End(segmentSize) + 100}
		_, err = a.WAL(segmentSize).PutChunk(t.Context(), foreign, make([]byte, 100))
		must(t, err)
		must(t, planned(t, a))
		// The writer puts two at a time, not three.
		must(t, b.Remove(t.Context(), sealed[len(sealed)-3]))
		if err := planned(t, a); !errors.Is(err, ErrHole) {
			t.Errorf("two segments before the last are gone: %v, want ErrHole", err)
		}
	})
	t.Run("in what was durable since the last heartbeat", func(t *testing.T) {
		b := cloneBucket(t, w.bucket)
		a := archive.New(b)
		must(t, a.Beat(t.Context(), archive.Heartbeat{Epoch: 1, Timeline: 1, Durable: b2.Stop()}))
		must(t, planned(t, a))
		var tails []string
		for _, key := range b.Keys() {
			if strings.HasPrefix(key, "outrider/tail/") {
				tails = append(tails, key)
			}
		}
		if len(tails) < 5 {
			t.Fatalf("the archive ends with %d chunks, want at least 5", len(tails))
		}
		// What follows a chunk goes up after it was acknowledged: somebody was told that it is durable.
		must(t, b.Remove(t.Context(), tails[len(tails)-2]))
		if err := planned(t, a); !errors.Is(err, ErrHole) {
			t.Errorf("the chunk before the last is gone: %v, want ErrHole", err)
		}
		// A replica of the archive is judged otherwise: what is not there was lost on the way, and each stretch is named.
		must(t, b.Remove(t.Context(), tails[len(tails)-4]))
		plan, err := NewPlan(t.Context(), a, Request{AcceptMissing: true})
		must(t, err)
		if n := strings.Count(strings.Join(plan.Missing, "\n"), "has no WAL from"); n != 2 || !strings.Contains(plan.String(), "is not restored") {
			t.Errorf("missing are %q, want two stretches, and what lies behind", plan.Missing)
		}
	})
	t.Run("a chunk is gone when it is fetched", func(t *testing.T) {
		a := archive.New(cloneBucket(t, w.bucket))
		plan, err := NewPlan(t.Context(), a, Request{})
		must(t, err)
		r := restored{t: t, a: a, plan: plan, dir: t.TempDir() + "/data"}
		_, err = Restore(t.Context(), a, plan, Options{Dir: r.dir})
		must(t, err)
		b := cloneBucket(t, w.bucket)
		b.Fault(func(operation, key string) error {
			if operation == "open" && strings.HasPrefix(key, "outrider/tail/") {
				b.Fault(nil)
				must(t, b.Remove(context.Background(), key))
			}
			return nil
		})
		_, err = Fill(t.Context(), archive.New(b), FillOptions{Dir: r.dir})
		if !errors.Is(err, ErrHole) {
			t.Fatalf("a chunk vanished: %v, want ErrHole", err)
		}
		// The server stops and does not promote.
		_, log := r.startFails()
		if !strings.Contains(log, "WAL is missing in the archive") {
			t.Errorf("the server's log does not tell why it stopped:\n%s", log)
		}
		// The object is brought back: recovery goes on.
		r.fill()
		wantRows(t, r.start(), 1, 2, 3, 4, 5, 6)
	})
	t.Run("a sealed segment is damaged", func(t *testing.T) {
		for name, damage := range map[string]func([]byte) []byte{
			"cut":     func(b []byte) []byte { return b[:len(b)/2] },
			"empty":   func([]byte) []byte { return nil },
			"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
			"swapped": func([]byte) []byte { return w.bucket.Bytes(segmentKey(1, middle.lsn+wal.LSN(segmentSize))) },
		} {
			t.Run(name, func(t *testing.T) {
				b := cloneBucket(t, w.bucket)
				a := archive.New(b)
				plan, err := NewPlan(t.Context(), a, Request{Backup: first})
				must(t, err)
				dir := t.TempDir() + "/data"
				_, err = Restore(t.Context(), a, plan, Options{Dir: dir})
				must(t, err)
				key := segmentKey(1, middle.lsn-64)
				b.SetBytes(key, damage(b.Bytes(key)))
				_, err = Fill(t.Context(), a, FillOptions{Dir: dir})
				if !errors.Is(err, archive.ErrCorrupt) || !strings.Contains(fmt.Sprint(err), key[8:32]) {
					t.Errorf("filling with a damaged segment: %v, want ErrCorrupt that names it", err)
				}
			})
		}
	})
}

func planned(t *testing.T, a *archive.Archive) error {
	_, err := NewPlan(t.Context(), a, Request{})
	return err
}

func TestWhatIsInTheArchive(t *testing.T) {
	b := archivetest.Memory()
	a := archive.New(b)
	if err := planned(t, a); !errors.Is(err, ErrNothing) {
		t.Errorf("an empty archive: %v, want ErrNothing", err)
	}
	away := errors.New("the network is down")
	for _, operation := range []string{"list", "open", "stat"} {
		b.Fault(func(op, _ string) error {
			if op == operation {
				return away
			}
			return nil
		})
		err := planned(t, a)
		if operation != "stat" && !errors.Is(err, away) || errors.Is(err, ErrNothing) && operation != "stat" {
			t.Errorf("an archive that cannot be reached (%s): %v", operation, err)
		}
	}
	b.Fault(nil)
	must(t, a.ClaimCluster(t.Context(), archive.Cluster{SystemIdentifier: 1, SegmentSize: segmentSize}))
	if err := planned(t, a); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("an archive without a snapshot: %v, want ErrNoSnapshot", err)
	}
	other := archivetest.Memory()
	other.SetBytes("readme.txt", []byte("hello"))
	if err := planned(t, archive.New(other)); !errors.Is(err, ErrNoSnapshot) {
		t.Errorf("a place that holds something else: %v, want ErrNoSnapshot", err)
	}
}
