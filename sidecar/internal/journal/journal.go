// Package journal is the flight recorder: what happened to a database and its sidecar, written to the archive while it
// happens, so that it can be read when the machine is long gone.
package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// Store keeps entries.
type Store interface {
	Record(ctx context.Context, e archive.Entry) error
}

const (
	maxQueued = 1000 // entries that wait while the store is away
	maxRecent = 100
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
)

// Journal takes entries without ever blocking, and Run writes them in order. All methods are safe for concurrent use.
type Journal struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	epoch   uint64 // 0 until it is known: entries are held back until then
	queue   []archive.Entry
	recent  []archive.Entry
	last    time.Time
	dropped int
	changed chan struct{} // closed and replaced at each change of the above
}

// New makes a Journal.
func New(store Store, log *slog.Logger) *Journal {
	return &Journal{store: store, log: log, changed: make(chan struct{})}
}

// Note adds an entry. attrs are keys and values in turn, as for slog. The oldest entries that could not be stored yet
// give way when there are too many, and it is said how many.
func (j *Journal) Note(event string, attrs ...any) {
	e := archive.Entry{Time: time.Now(), Event: event}
	for i := 0; i+1 < len(attrs); i += 2 {
		if e.Attrs == nil {
			e.Attrs = map[string]any{}
		}
		e.Attrs[fmt.Sprint(attrs[i])] = attrs[i+1]
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// Two entries of one microsecond would have one key.
	if step := time.Microsecond; e.Time.Sub(j.last) < step {
		e.Time = j.last.Add(step)
	}
	j.last = e.Time
	j.queue = append(j.queue, e)
	if over := len(j.queue) - maxQueued; over > 0 {
		j.queue = j.queue[over:]
		j.dropped += over
	}
	j.recent = append(j.recent, e)
	if over := len(j.recent) - maxRecent; over > 0 {
		j.recent = j.recent[over:]
	}
	j.notify()
}

// SetEpoch says under which epoch entries are stored from now on, those held back included.
func (j *Journal) SetEpoch(n uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.epoch != n {
		j.epoch = n
		j.notify()
	}
}

// Recent returns the last n entries, oldest first.
func (j *Journal) Recent(n int) []archive.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	from := max(0, len(j.recent)-n)
	return append([]archive.Entry(nil), j.recent[from:]...)
}

func (j *Journal) notify() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// head is the entry to be stored next; ok is false if there is none, or its epoch is not known yet.
func (j *Journal) head() (e archive.Entry, ok bool, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 || j.epoch == 0 {
		return e, false, j.changed
	}
	e = j.queue[0]
	e.Epoch = j.epoch
	return e, true, j.changed
}

// stored takes e off the queue, unless it gave way meanwhile.
func (j *Journal) stored(e archive.Entry) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) > 0 && j.queue[0].Time.Equal(e.Time) {
		j.queue = j.queue[1:]
	}
	if j.dropped > 0 {
		j.log.Warn("journal entries were dropped while the archive was away", "entries", j.dropped)
		j.dropped = 0
	}
	j.notify()
}

// Run stores entries until ctx ends. The store's being away is waited out.
func (j *Journal) Run(ctx context.Context) error {
	wait := firstWait
	for {
		e, ok, changed := j.head()
		if !ok {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
			}
			continue
		}
		err := j.store.Record(ctx, e)
		if err == nil || errors.Is(err, archive.ErrConflict) {
			j.stored(e)
			wait = firstWait
			continue
		}
		if ctx.Err() == nil && wait == firstWait {
			j.log.Warn("the journal cannot be written for now", "event", e.Event, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = min(wait*2, maxWait)
	}
}

// Flush waits until all entries are stored. Without a known epoch there is nowhere to store them: it returns at once.
func (j *Journal) Flush(ctx context.Context) error {
	for {
		j.mu.Lock()
		left, changed, epoch := len(j.queue), j.changed, j.epoch
		j.mu.Unlock()
		if left == 0 || epoch == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("writing the journal, %d entries are left: %w", left, context.Cause(ctx))
		case <-changed:
		}
	}
}
