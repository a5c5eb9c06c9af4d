package ship

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/internal/wal"
)

const size = wal.SegmentSize(wal.MinSegmentSize)

// disk is a pg_wal of random bytes on one timeline.
type disk struct {
	mu      sync.Mutex
	content map[wal.Segment][]byte
	rng     *rand.Rand
	read    map[wal.Segment]int // bytes
}

func newDisk(seed uint64) *disk {
	return &disk{content: map[wal.Segment][]byte{}, read: map[wal.Segment]int{}, rng: rand.New(rand.NewPCG(seed, 1))}
}

func (d *disk) segment(s wal.Segment) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b, ok := d.content[s]
	if !ok {
		b = make([]byte, size)
		for i := range b {
			b[i] = byte(d.rng.Uint32() & 3) // compressible
		}
		d.content[s] = b
	}
	return b
}

type file struct {
	*bytes.Reader
	gone error
	read func(n int) // may be nil
}

func (f file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.Reader.ReadAt(p, off)
	if f.read != nil {
		f.read(n)
	}
	return n, err
}

func (f file) StillNamed() error { return f.gone }
func (f file) Close() error      { return nil }

func (d *disk) open(s wal.Segment) (Segment, error) {
	return file{Reader: bytes.NewReader(d.segment(s)), read: func(n int) {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.read[s] += n
	}}, nil
}

func (d *disk) bytes(t wal.Timeline, from, to wal.LSN) []byte {
	var out []byte
	for at := from; at < to; {
		s := size.SegmentAt(t, at)
		end := min(to, s.End(size))
		out = append(out, d.segment(s)[size.Offset(at):size.Offset(at)+int64(end-at)]...)
		at = end
	}
	return out
}

// script says positions one after the other and then waits for the end.
type script struct{ positions []wal.Position }

func (s *script) Next(ctx context.Context, _ wal.Position) (wal.Position, error) {
	if len(s.positions) == 0 {
		<-ctx.Done()
		return wal.Position{}, context.Cause(ctx)
	}
	p := s.positions[0]
	s.positions = s.positions[1:]
	return p, nil
}

func newShipper(t *testing.T, d *disk, store Store, from wal.LSN) *Shipper {
	t.Helper()
	return New(Config{
		Size: size, Epoch: 1, Timeline: 1, Durable: from, Store: store, Open: d.open,
		Owner: func(context.Context) error { return nil }, Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError})),
	})
}

// claimed makes the archive say that epoch 1 owns timeline 1, as a voyage does before it ships.
func claimed(t *testing.T, b archive.Bucket, from wal.LSN) *archive.WAL {
	t.Helper()
	a := archive.New(b)
	if err := a.ClaimEpoch(t.Context(), archive.Epoch{Number: 1, Writer: archive.Identity{Instance: "i"}, Timeline: 1, Since: from}); err != nil {
		t.Fatal(err)
	}
	if err := a.ClaimTimeline(t.Context(), archive.TimelineClaim{Timeline: 1, Epoch: 1, Switch: from}); err != nil {
		t.Fatal(err)
	}
	return a.WAL(size)
}

// readBack reads what the archive holds of timeline 1 from one position on.
func readBack(t *testing.T, w *archive.WAL, from wal.LSN) []byte {
	t.Helper()
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for _, p := range inv.Follow(1, from, archive.MaxLSN) {
		var raw []byte
		start := p.Segment.Start(size)
		if p.Chunk != nil {
			raw, err = w.ReadChunk(t.Context(), *p.Chunk)
			start = p.Chunk.From
		} else {
			r, _, oerr := w.OpenSegment(t.Context(), p.Segment)
			if oerr != nil {
				t.Fatal(oerr)
			}
			raw, err = io.ReadAll(r)
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw[p.From-start:p.To-start]...)
	}
	return out
}

func TestWhatWasFlushedIsInTheArchive(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	const from = wal.LSN(7 * size)
	d, bucket := newDisk(seed), archivetest.Memory()
	w := claimed(t, bucket, from)
	var mu sync.Mutex
	faults := rand.New(rand.NewPCG(seed, 3))
	bucket.Fault(func(string, string) error {
		mu.Lock()
		defer mu.Unlock()
		if faults.IntN(5) == 0 {
			return errors.New("the store hiccups")
		}
		return nil
	})
	synctest.Test(t, func(t *testing.T) {
		s := newShipper(t, d, w, from)
		ctx, cancel := context.WithCancel(t.Context())
		src, at := &script{}, from
		for range 25 {
			at += wal.LSN(1 + rng.IntN(int(size)*3/2))
			src.positions = append(src.positions, wal.Position{Timeline: 1, LSN: at})
		}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, src) }()
		if err := s.WaitDurable(ctx, wal.Position{Timeline: 1, LSN: at}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Fatalf("Run ended with %v", err)
		}
	})
	bucket.Fault(nil)
	end := archiveEnd(t, w, from)
	if got, want := readBack(t, w, from), d.bytes(1, from, end); !bytes.Equal(got, want) {
		t.Fatalf("the archive holds %d bytes that are not the %d that were flushed", len(got), len(want))
	}
}

func archiveEnd(t *testing.T, w *archive.WAL, from wal.LSN) wal.LSN {
	t.Helper()
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return inv.End(1, from)
}

func TestWholeSegmentsNeedNoChunks(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	w := claimed(t, bucket, wal.LSN(size))
	s := newShipper(t, d, w, wal.LSN(size))
	if err := s.ShipTo(t.Context(), wal.LSN(6*size)); err != nil {
		t.Fatal(err)
	}
	for _, k := range bucket.Keys() {
		if strings.HasPrefix(k, "outrider/tail/") {
			t.Errorf("whole segments were at hand, and yet there is a chunk: %s", k)
		}
	}
	if got := s.Keep(); got != wal.LSN(6*size) {
		t.Errorf("all is sealed up to segment 6, but WAL is kept from %s on", got)
	}
}

func TestChunkedSegmentIsSealedAndItsChunksGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, bucket := newDisk(1), archivetest.Memory()
		w := claimed(t, bucket, wal.LSN(size))
		s := newShipper(t, d, w, wal.LSN(size))
		ctx, cancel := context.WithCancel(t.Context())
		src := &script{positions: []wal.Position{{Timeline: 1, LSN: wal.LSN(size) + 100}, {Timeline: 1, LSN: wal.LSN(2*size) + 5}}}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx, src) }()
		synctest.Wait()
		if got, want := s.Keep(), wal.LSN(2*size); got != want {
			t.Errorf("segment 1 is sealed, WAL is kept from %s instead of %s", got, want)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
		if n := d.read[wal.Segment{Timeline: 1, Number: 1}]; n != int(size) {
			t.Errorf("of a segment of %d bytes %d were read: what its chunks left is not sealed", size, n)
		}
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		keys := bucket.Keys()
		if !slices.Contains(keys, "wal_005/"+wal.Segment{Timeline: 1, Number: 1}.Name(size)+".zst") {
			t.Errorf("segment 1 was not sealed: %v", keys)
		}
		for _, k := range keys {
			if strings.Contains(k, "tail/"+wal.Segment{Timeline: 1, Number: 1}.Name(size)) {
				t.Errorf("a chunk of the sealed segment is left: %s", k)
			}
		}
	})
}

func TestForeignContentStopsForGood(t *testing.T) {
	d, other, bucket := newDisk(1), newDisk(2), archivetest.Memory()
	w := claimed(t, bucket, wal.LSN(size))
	if err := newShipper(t, other, w, wal.LSN(size)).ShipTo(t.Context(), wal.LSN(2*size)); err != nil {
		t.Fatal(err)
	}
	err := newShipper(t, d, w, wal.LSN(size)).ShipTo(t.Context(), wal.LSN(2*size))
	if !errors.Is(err, archive.ErrConflict) {
		t.Fatalf("another history was met, and the error is %v", err)
	}
}

func TestGoneSegmentIsAGap(t *testing.T) {
	for name, open := range map[string]func(wal.Segment) (Segment, error){
		"missing": func(s wal.Segment) (Segment, error) {
			return nil, fmt.Errorf("open %s: %w", s.Name(size), fs.ErrNotExist)
		},
		"recycled": func(wal.Segment) (Segment, error) {
			return file{Reader: bytes.NewReader(make([]byte, size)), gone: wal.ErrRecycled}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newShipper(t, newDisk(1), claimed(t, archivetest.Memory(), wal.LSN(size)), wal.LSN(size))
			s.cfg.Open = open
			if err := s.ShipTo(t.Context(), wal.LSN(size)+10); !errors.Is(err, ErrGap) {
				t.Fatalf("got %v, want a gap", err)
			}
			if got := s.Durable().LSN; got != wal.LSN(size) {
				t.Errorf("durable moved to %s over a gap", got)
			}
		})
	}
}

func TestOutageIsWaitedOutAndTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, bucket := newDisk(1), archivetest.Memory()
		w := claimed(t, bucket, wal.LSN(size))
		away := time.Now().Add(3 * time.Hour)
		bucket.Fault(func(op, _ string) error {
			if time.Now().Before(away) {
				return errors.New("no route to the store")
			}
			return nil
		})
		s := newShipper(t, d, w, wal.LSN(size))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, &script{positions: []wal.Position{{Timeline: 1, LSN: wal.LSN(size) + 100}}})
		}()
		time.Sleep(time.Hour)
		if since, err := s.Trouble(); err == nil || time.Since(since) < 59*time.Minute {
			t.Errorf("an hour into the outage, trouble is %v since %s", err, since)
		}
		if err := s.WaitDurable(ctx, wal.Position{Timeline: 1, LSN: wal.LSN(size) + 100}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Trouble(); err != nil {
			t.Errorf("the store is back, trouble is still %v", err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

func TestCleanStopPadsAndSuccessorContinues(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	w := claimed(t, bucket, wal.LSN(size))
	s := newShipper(t, d, w, wal.LSN(size))
	stop := wal.LSN(size) + 4000
	if err := s.ShipTo(t.Context(), stop); err != nil {
		t.Fatal(err)
	}
	if err := s.SealRest(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	inv, err := w.Inventory(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := inv.End(1, wal.LSN(size)); got != stop {
		t.Fatalf("after a clean stop at %s the archive ends at %s", stop, got)
	}
	start, err := Resume(inv, nil, Local{Timeline: 1, Flushed: stop, Has: func(wal.Segment) (bool, error) { return true, nil }})
	if err != nil || start.Durable != stop {
		t.Fatalf("the successor goes on at %s (%v), want %s", start.Durable, err, stop)
	}
	next := New(Config{
		Size: size, Epoch: 2, Timeline: 1, Durable: start.Durable, SealFrom: start.SealFrom, Chunks: start.Chunks, Store: w,
		Open: d.open, Owner: func(context.Context) error { return nil }, Log: s.cfg.Log,
	})
	if err := w.ClaimEpoch(t.Context(), archive.Epoch{Number: 2, Writer: archive.Identity{Instance: "j"}, Timeline: 1, Since: stop}); err != nil {
		t.Fatal(err)
	}
	if err := next.ShipTo(t.Context(), wal.LSN(3*size)); err != nil {
		t.Fatal(err)
	}
	if err := next.seal.work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := readBack(t, w, wal.LSN(size)), d.bytes(1, wal.LSN(size), wal.LSN(3*size)); !bytes.Equal(got, want) {
		t.Fatal("the archive after the successor differs from the disk")
	}
}

func TestPaddedSegmentIsNotReplacedByAStranger(t *testing.T) {
	d, bucket := newDisk(1), archivetest.Memory()
	w := claimed(t, bucket, wal.LSN(size))
	s := newShipper(t, d, w, wal.LSN(size))
	if err := errors.Join(s.ShipTo(t.Context(), wal.LSN(size)+4000), s.SealRest(t.Context(), true)); err != nil {
		t.Fatal(err)
	}
	stranger := newShipper(t, d, w, wal.LSN(size))
	stranger.cfg.Owner = func(context.Context) error { return fmt.Errorf("epoch 1: %w", ErrNotOwner) }
	if err := stranger.ShipTo(t.Context(), wal.LSN(2*size)); !errors.Is(err, ErrNotOwner) {
		t.Fatalf("a superseded writer replaced a segment: %v", err)
	}
}
