package tail

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"outrider.dev/sidecar/internal/wal"
)

const (
	segmentSize = wal.SegmentSize(1 << 20)
	interval    = 250 * time.Millisecond
	floor       = 10 * time.Second
)

// world is a pg_wal of real files, a server whose position the test sets, and events that the test sends.
type world struct {
	t   *testing.T
	dir string
	log bytes.Buffer

	events chan fsnotify.Event
	errs   chan error

	mu      sync.Mutex
	pos     wal.Position
	err     error
	queries []time.Time
	flushed time.Time
	touched int
}

func newWorld(t *testing.T, dir string, start wal.LSN) (*world, *Tailer) {
	w := &world{t: t, dir: dir, events: make(chan fsnotify.Event), errs: make(chan error)}
	w.pos = wal.Position{Timeline: 1, LSN: start}
	w.touch(start)
	cfg, err := Config{Dir: dir, Size: segmentSize, Server: w, Log: slog.New(slog.NewTextHandler(&w.log, nil))}.check()
	if err != nil {
		t.Fatal(err)
	}
	return w, newTailer(cfg, notifier{events: w.events, errors: w.errs, close: func() error { return nil }})
}

// Flushed is the server's answer.
func (w *world) Flushed(ctx context.Context) (wal.Position, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, time.Now())
	return w.pos, errors.Join(w.err, ctx.Err())
}

func (w *world) asked() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.queries)
}

func (w *world) flush(l wal.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pos.LSN, w.flushed = l, time.Now()
}

// late is how long ago the last flush was.
func (w *world) late() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.flushed)
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *world) path(l wal.LSN) string {
	return filepath.Join(w.dir, segmentSize.SegmentAt(1, l).Name(segmentSize))
}

// touch changes the file that holds l as a write does. The clock of the files is not the bubble's.
func (w *world) touch(l wal.LSN) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.touched++
	stamp := time.Unix(int64(w.touched), 0)
	if err := os.WriteFile(w.path(l), []byte{1}, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Chtimes(w.path(l), stamp, stamp); err != nil {
		w.t.Fatal(err)
	}
	// Nothing but the file's own time is to change.
	if err := os.Chtimes(w.dir, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		w.t.Fatal(err)
	}
}

// send is an event that waits until somebody takes it.
func (w *world) send(l wal.LSN) {
	select {
	case w.events <- fsnotify.Event{Name: w.path(l), Op: fsnotify.Write}:
	case <-w.t.Context().Done():
	}
}

func at(l wal.LSN) wal.Position { return wal.Position{Timeline: 1, LSN: l} }

// next calls Next and expects a position and how long it took.
func next(t *testing.T, tl *Tailer, after, want wal.LSN) time.Duration {
	t.Helper()
	started := time.Now()
	pos, err := tl.Next(t.Context(), at(after))
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	if pos != at(want) {
		t.Fatalf("Next(%s) = %s, want %s", at(after), pos, at(want))
	}
	return time.Since(started)
}

// settled is a world in which nothing has happened for so long that the server is only asked once each floor.
func settled(t *testing.T, dir string, start wal.LSN) (*world, *Tailer) {
	w, tl := newWorld(t, dir, start)
	next(t, tl, 0, start)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if pos, err := tl.Next(ctx, at(start)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Next while nothing happens = %s, %v", pos, err)
	}
	return w, tl
}
