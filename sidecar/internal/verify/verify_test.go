package verify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/verify"
	"outrider.dev/sidecar/internal/wal"
)

func run(t *testing.T, b archive.Bucket, quick bool) verify.Report {
	t.Helper()
	r, err := verify.Run(t.Context(), archive.New(b).WAL(mib), verify.Options{Quick: quick, Jobs: 3})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func kinds(r verify.Report) []verify.Kind {
	var all []verify.Kind
	for _, p := range r.Problems {
		if !slices.Contains(all, p.Kind) {
			all = append(all, p.Kind)
		}
	}
	slices.Sort(all)
	return all
}

func TestVerify(t *testing.T) {
	f := makeFixture(t)
	t.Run("a whole archive", func(t *testing.T) { whole(t, f) })
	t.Run("damage", func(t *testing.T) { damage(t, f) })
	t.Run("could not tell", func(t *testing.T) { outage(t, f) })
	t.Run("a promise that is not kept", func(t *testing.T) { receipt(t, f) })
	t.Run("the end is gone", func(t *testing.T) { lostEnd(t, f) })
	t.Run("zeros", func(t *testing.T) { zeros(t, f) })
	t.Run("a timeline is gone", func(t *testing.T) { lostTimeline(t, f) })
}

func whole(t *testing.T, f *fixture) {
	var seen []int64
	r, err := verify.Run(t.Context(), archive.New(f.bucket).WAL(mib), verify.Options{Jobs: 2, Progress: func(done, total int64) {
		if done > total {
			t.Errorf("progress %d of %d", done, total)
		}
		seen = append(seen, done)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Problems) != 0 {
		t.Errorf("problems in an archive that has none: %+v", r.Problems)
	}
	sealed := int(f.last.Number - f.first.Number + 1)
	if r.Objects != sealed+2+4 || len(seen) != r.Objects || !slices.IsSorted(seen) {
		t.Errorf("%d objects were read with %d steps of progress, want %d segments, 2 chunks, 4 parts", r.Objects, len(seen), sealed)
	}
	if len(r.Snapshots) != 2 || r.Snapshots[0].Checksums != verify.PagesVerified {
		t.Errorf("snapshots = %+v", r.Snapshots)
	}
	if len(r.Branches) != 1 || !r.Branches[0].Newest || r.Branches[0].To != f.end || r.Branches[0].From == 0 {
		t.Errorf("branches = %+v, want one that ends at %s", r.Branches, f.end)
	}
	if q := run(t, f.bucket, true); q.Objects != 0 || len(q.Problems) != 0 || !q.Quick {
		t.Errorf("quick: %+v", q)
	}
}

func damage(t *testing.T, f *fixture) {
	seg := func(n uint64) string {
		return "wal_005/" + wal.Segment{Timeline: 1, Number: f.first.Number + n}.Name(mib) + ".zst"
	}
	part := "basebackups_005/" + f.snapshots[0] + "/tar_partitions/part_001.tar.zst"
	flip := func(b *archivetest.Bucket, key string, at int) {
		body := b.Bytes(key)
		body[(len(body)+at)%len(body)] ^= 1
		b.SetBytes(key, body)
	}
	chunkKey := func(b *archivetest.Bucket) string {
		i := slices.IndexFunc(b.Keys(), func(k string) bool { return strings.HasPrefix(k, "outrider/tail/") })
		return b.Keys()[i]
	}
	cases := []struct {
		name   string
		damage func(t *testing.T, b *archivetest.Bucket)
		object string
		want   []verify.Kind
		quick  []verify.Kind
	}{
		{
			"a segment is gone", func(t *testing.T, b *archivetest.Bucket) { remove(t, b, seg(2)) }, strings.TrimPrefix(seg(2), "wal_005/")[:24],
			[]verify.Kind{verify.WALGap},
			[]verify.Kind{verify.WALGap},
		},
		{
			"a segment inside a snapshot is gone", func(t *testing.T, b *archivetest.Bucket) { remove(t, b, seg(0)) }, f.snapshots[0],
			[]verify.Kind{verify.SnapshotUnusable, verify.WALGap},
			[]verify.Kind{verify.SnapshotUnusable, verify.WALGap},
		},
		{"a flipped bit in a segment", func(_ *testing.T, b *archivetest.Bucket) { flip(b, seg(1), -2000) }, seg(1), []verify.Kind{verify.SegmentDamaged}, nil},
		{"a truncated segment", func(_ *testing.T, b *archivetest.Bucket) { b.SetBytes(seg(1), b.Bytes(seg(1))[:1000]) }, seg(1), []verify.Kind{verify.SegmentDamaged}, nil},
		{"two segments have changed places", func(t *testing.T, b *archivetest.Bucket) { swap(t, b, seg(1), seg(2)) }, seg(2), []verify.Kind{verify.WrongWAL}, nil},
		{"a flipped bit in a chunk", func(_ *testing.T, b *archivetest.Bucket) { flip(b, chunkKey(b), -9) }, "outrider/tail/", []verify.Kind{verify.ChunkDamaged}, nil},
		{"a part is gone", func(t *testing.T, b *archivetest.Bucket) { remove(t, b, part) }, "part_001.tar.zst", []verify.Kind{verify.PartMissing}, []verify.Kind{verify.PartMissing}},
		{
			"a part is short", func(_ *testing.T, b *archivetest.Bucket) { b.SetBytes(part, b.Bytes(part)[:100]) }, "part_001.tar.zst",
			[]verify.Kind{verify.PartSize},
			[]verify.Kind{verify.PartSize},
		},
		{"a flipped bit in a part", func(_ *testing.T, b *archivetest.Bucket) { flip(b, part, -20) }, "part_001.tar.zst", []verify.Kind{verify.PartDamaged}, nil},
		{
			"a stray object among the parts", func(_ *testing.T, b *archivetest.Bucket) {
				b.SetBytes(strings.Replace(part, "part_001.tar.zst", "notes.txt", 1), []byte("x"))
			},
			"notes.txt",
			[]verify.Kind{verify.PartForeign},
			[]verify.Kind{verify.PartForeign},
		},
		{"a damaged manifest", func(_ *testing.T, b *archivetest.Bucket) {
			b.SetBytes("basebackups_005/"+f.snapshots[1]+"/outrider.json", []byte(`{"format":1,`))
		}, f.snapshots[1], []verify.Kind{verify.DocumentDamaged}, []verify.Kind{verify.DocumentDamaged}},
		{
			"a damaged claim", func(_ *testing.T, b *archivetest.Bucket) {
				b.SetBytes("outrider/epochs/0000000001.json", []byte(`{"epoch":2}`))
			},
			"the documents of the WAL",
			[]verify.Kind{verify.DocumentDamaged},
			[]verify.Kind{verify.DocumentDamaged},
		},
		{"another database's identity", func(_ *testing.T, b *archivetest.Bucket) {
			b.SetBytes("outrider/cluster.json", []byte(`{"format":1,"system_identifier":"12345","wal_segment_size":1048576}`))
		}, seg(0), []verify.Kind{verify.WrongWAL}, nil},
		{"no snapshot is left", func(t *testing.T, b *archivetest.Bucket) {
			for _, s := range f.snapshots {
				remove(t, b, "basebackups_005/"+s+"_backup_stop_sentinel.json")
			}
		}, "timeline 1", []verify.Kind{verify.NoSnapshot}, []verify.Kind{verify.NoSnapshot}},
		{"a delta without its parent", func(t *testing.T, b *archivetest.Bucket) {
			key := "basebackups_005/" + f.snapshots[1] + "_backup_stop_sentinel.json"
			b.SetBytes(key, bytes.Replace(b.Bytes(key), []byte("{"), []byte(`{"DeltaFrom":"base_000000010000000000000001",`), 1))
		}, f.snapshots[1], []verify.Kind{verify.ParentMissing}, []verify.Kind{verify.ParentMissing}},
		{"bad pages", func(_ *testing.T, b *archivetest.Bucket) {
			key := "basebackups_005/" + f.snapshots[1] + "/outrider.json"
			b.SetBytes(key, bytes.Replace(b.Bytes(key), []byte(`"enabled":true`), []byte(`"enabled":true,"bad_pages":["base/1/1:2"]`), 1))
		}, f.snapshots[1], []verify.Kind{verify.BadPages}, []verify.Kind{verify.BadPages}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := f.copy(t)
			c.damage(t, b)
			full := run(t, b, false)
			if got := kinds(full); !slices.Equal(got, c.want) {
				t.Errorf("problems = %q, want %q: %+v", got, c.want, full.Problems)
			}
			if !slices.ContainsFunc(full.Problems, func(p verify.Problem) bool { return strings.Contains(p.Object, c.object) }) {
				t.Errorf("no problem names %s: %+v", c.object, full.Problems)
			}
			if got := kinds(run(t, b, true)); !slices.Equal(got, c.quick) {
				t.Errorf("quick: problems = %q, want %q", got, c.quick)
			}
		})
	}
}

func remove(t *testing.T, b *archivetest.Bucket, key string) {
	t.Helper()
	if b.Bytes(key) == nil {
		t.Fatalf("there is no %s", key)
	}
	if err := b.Remove(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

// swap exchanges two objects with their metadata, so that each is sound in itself.
func swap(t *testing.T, b *archivetest.Bucket, x, y string) {
	t.Helper()
	xi, xerr := b.Stat(t.Context(), x)
	yi, yerr := b.Stat(t.Context(), y)
	xb, yb := b.Bytes(x), b.Bytes(y)
	if err := errors.Join(xerr, yerr, b.Put(t.Context(), x, yb, archive.PutOptions{Meta: yi.Meta, Replace: true}),
		b.Put(t.Context(), y, xb, archive.PutOptions{Meta: xi.Meta, Replace: true})); err != nil {
		t.Fatal(err)
	}
}

// outage demands that what could not be told is an error and no problem of the archive.
func outage(t *testing.T, f *fixture) {
	for _, op := range []string{"open", "list", "stat"} {
		for _, cause := range []error{errors.New("connection refused"), fs.ErrPermission} {
			b := f.copy(t)
			var n atomic.Int64
			b.Fault(func(o, key string) error {
				if o != op {
					return nil
				}
				if n.Add(1) < 3 && op != "stat" {
					return nil
				}
				return fmt.Errorf("%s %s: %w", o, key, cause)
			})
			r, err := verify.Run(t.Context(), archive.New(b).WAL(mib), verify.Options{Jobs: 2})
			if !errors.Is(err, cause) || len(r.Problems) != 0 {
				t.Errorf("%s fails with %v: error = %v, problems = %+v", op, cause, err, r.Problems)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verify.Run(ctx, archive.New(f.bucket).WAL(mib), verify.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: error = %v", err)
	}
}

func receipt(t *testing.T, f *fixture) {
	b := f.copy(t)
	w := archive.New(b).WAL(mib)
	promise := func(end wal.LSN) []verify.Kind {
		r := archive.Receipt{Epoch: 1, Clean: true, Timeline: 1, Durable: end, CheckpointEnd: end}
		if err := w.PutReceipt(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		return kinds(run(t, b, true))
	}
	if got := promise(f.end); len(got) != 0 {
		t.Errorf("a receipt that is kept: problems = %q", got)
	}
	if got := promise(f.end + 120); !slices.Equal(got, []verify.Kind{verify.ReceiptUnsupported, verify.WALLost}) {
		t.Errorf("a receipt for more than there is: problems = %q", got)
	}
}

// lostEnd takes the newest WAL away. Nothing lies behind it, and only what its writer has said tells that it was there.
func lostEnd(t *testing.T, f *fixture) {
	for name, say := range map[string]func(w *archive.WAL, durable wal.LSN) error{
		"heartbeat": func(w *archive.WAL, durable wal.LSN) error {
			return w.Beat(t.Context(), archive.Heartbeat{Epoch: 1, Timeline: 1, Durable: durable})
		},
		"receipt that is not clean": func(w *archive.WAL, durable wal.LSN) error {
			return w.PutReceipt(t.Context(), archive.Receipt{Epoch: 1, Timeline: 1, Durable: durable})
		},
	} {
		b := f.copy(t)
		f.must(t, say(archive.New(b).WAL(mib), f.end))
		if got := kinds(run(t, b, true)); len(got) != 0 {
			t.Errorf("%s: all that was promised is there, and problems = %q", name, got)
		}
		keys := slices.DeleteFunc(b.Keys(), func(k string) bool { return !strings.HasPrefix(k, "outrider/tail/") })
		remove(t, b, keys[len(keys)-1])
		r := run(t, b, true)
		if got := kinds(r); !slices.Equal(got, []verify.Kind{verify.WALLost}) {
			t.Errorf("%s: the last chunk is gone, and problems = %q", name, got)
		}
		if len(r.Problems) > 0 && !strings.Contains(r.Problems[0].Detail, f.end.String()) {
			t.Errorf("%s: %q does not say up to where it was durable", name, r.Problems[0].Detail)
		}
	}
}

// lostTimeline has a successor that promoted and said that some of its own timeline was durable, of which nothing is left.
func lostTimeline(t *testing.T, f *fixture) {
	b := f.copy(t)
	w := archive.New(b).WAL(mib)
	f.must(t, w.ClaimEpoch(t.Context(), archive.Epoch{Number: 2}))
	f.must(t, w.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 2, Epoch: 2, Parent: 1, Switch: f.end}))
	for durable, want := range map[wal.LSN][]verify.Kind{f.end: nil, f.end + 1000: {verify.WALLost}} {
		f.must(t, w.Beat(t.Context(), archive.Heartbeat{Epoch: 2, Timeline: 2, Durable: durable}))
		if got := kinds(run(t, b, true)); !slices.Equal(got, want) {
			t.Errorf("durable up to %s, and nothing of it is there: problems = %q, want %q", durable, got, want)
		}
	}
}

// zeros stores pages of zeros where WAL was, with the hash of what is stored. At the end of a segment a WAL switch leaves
// them; before other pages nothing does.
func zeros(t *testing.T, f *fixture) {
	seg := wal.Segment{Timeline: 1, Number: f.first.Number + 1}
	open := f.last.Next()
	for _, c := range []struct {
		name     string
		seg      wal.Segment
		from, to int // pages
		want     []verify.Kind
	}{
		{"the rest of a segment", seg, 100, mib / wal.PageSize, nil},
		{"a page inside a segment", seg, 100, 101, []verify.Kind{verify.WrongWAL}},
		{"a page of the first of two chunks", open, 1, 2, []verify.Kind{verify.WrongWAL}},
		{"the rest of the first chunk, and not the second", open, 1, -1, []verify.Kind{verify.WrongWAL}},
	} {
		b := f.copy(t)
		w := archive.New(b).WAL(mib)
		if c.seg == seg {
			raw := content(t, w, seg)
			clear(raw[c.from*wal.PageSize : c.to*wal.PageSize])
			remove(t, b, "wal_005/"+seg.Name(mib)+".zst")
			_, err := w.Seal(t.Context(), archive.SealRequest{Segment: seg, Epoch: 1, Raw: bytes.NewReader(raw), Valid: mib})
			f.must(t, err)
		} else {
			emptyChunk(t, b, w, c.from, c.to)
		}
		if got := kinds(run(t, b, false)); !slices.Equal(got, c.want) {
			t.Errorf("%s: problems = %q, want %q", c.name, got, c.want)
		}
	}
}

func content(t *testing.T, w *archive.WAL, seg wal.Segment) []byte {
	t.Helper()
	r, _, err := w.OpenSegment(t.Context(), seg)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}

// emptyChunk clears pages of the first chunk of the open segment; to -1 is all up to its end.
func emptyChunk(t *testing.T, b *archivetest.Bucket, w *archive.WAL, from, to int) {
	t.Helper()
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, chunks := range inv.Chunks {
		c := chunks[0]
		raw, err := w.ReadChunk(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		end := len(raw)
		if to >= 0 {
			end = to * wal.PageSize
		}
		clear(raw[from*wal.PageSize : end])
		i := slices.IndexFunc(b.Keys(), func(k string) bool { return strings.HasPrefix(k, "outrider/tail/") })
		remove(t, b, b.Keys()[i])
		if _, err := w.PutChunk(t.Context(), c, raw); err != nil {
			t.Fatal(err)
		}
	}
}
