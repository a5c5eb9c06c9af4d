package ship

import (
	"context"
	"sync"

	"outrider.dev/sidecar/internal/wal"
)

// watermark is a position that only rises and can be waited for.
type watermark struct {
	mu    sync.Mutex
	at    wal.LSN
	moved chan struct{} // closed and replaced at each move
}

func newWatermark(at wal.LSN) *watermark { return &watermark{at: at, moved: make(chan struct{})} }

func (w *watermark) get() wal.LSN {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at
}

func (w *watermark) set(to wal.LSN) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to > w.at {
		w.at = to
		close(w.moved)
		w.moved = make(chan struct{})
	}
}

func (w *watermark) wait(ctx context.Context, until wal.LSN) error {
	for {
		w.mu.Lock()
		at, moved := w.at, w.moved
		w.mu.Unlock()
		if at >= until {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-moved:
		}
	}
}
