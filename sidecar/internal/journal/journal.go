// Package journal is the flight recorder: what happened to one writer, entry by entry, kept in the archive so that it
// can be read after the pod and its node are gone.
package journal

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

const (
	maxQueue  = 1024 // entries that wait for the store
	maxRecent = 256  // entries kept for Recent

	// dropped stands in the journal where entries are missing; its attribute count says how many.
	dropped = "entries_dropped"
)

// Store keeps entries. Recording the same entry twice is success; fs.ErrExist says that another one has its place,
// which the time and the event make up.
type Store interface {
	Record(ctx context.Context, e archive.Entry) error
}

// Journal takes entries at any time and stores them in order when it can. All methods are safe for concurrent use.
type Journal struct {
	store Store
	log   *slog.Logger

	mu      sync.Mutex
	queue   []item // not stored yet, oldest first
	recent  []archive.Entry
	epoch   uint64 // 0 is not known
	last    time.Time
	noted   uint64        // number of entries ever noted
	changed chan struct{} // closed and replaced when there may be something to do

	writing chan struct{} // holds a token while somebody writes
}

// item is an entry that waits, or a mark where some were dropped.
type item struct {
	archive.Entry
	number    uint64 // of the entry, or of the first one dropped
	dropped   int
	attempted bool // may be in the store already, so it must not change any more
}

// New makes a Journal. log may be nil. Entries are stored while Run or Flush runs.
func New(store Store, log *slog.Logger) *Journal {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Journal{store: store, log: log, changed: make(chan struct{}), writing: make(chan struct{}, 1)}
}

// Note adds an entry with the present time. event is a constant in lower case with underscores, such as "notice";
// attrs are alternating keys and values, or slog.Attr, as for a Logger, and never hold a secret. Values are turned into
// what JSON can hold at once. Note never waits for the store: when too many entries wait, the oldest ones are dropped
// and counted.
func (j *Journal) Note(event string, attrs ...any) {
	e := archive.Entry{Event: clean(event), Attrs: attributes(attrs)}
	j.mu.Lock()
	defer j.mu.Unlock()
	// Keys are made of the time, so that they sort as things happened even when the clock is set back.
	e.Time = time.Now().UTC().Truncate(time.Microsecond)
	if !e.Time.After(j.last) {
		e.Time = j.last.Add(time.Microsecond)
	}
	j.last = e.Time
	e.Epoch = j.epoch
	j.noted++
	if len(j.queue) >= maxQueue {
		j.drop()
	}
	j.queue = append(j.queue, item{Entry: e, number: j.noted})
	if len(j.recent) >= maxRecent {
		j.recent = slices.Delete(j.recent, 0, 1)
	}
	j.recent = append(j.recent, e)
	j.wake()
}

// drop makes room for one entry: the oldest ones become a mark.
func (j *Journal) drop() {
	i := 0
	if j.queue[0].attempted {
		i = 1
	}
	if mark := &j.queue[i]; mark.dropped == 0 {
		mark.Event, mark.dropped = dropped, 1
	}
	j.queue[i].dropped++
	j.queue[i].Attrs = map[string]any{"count": j.queue[i].dropped}
	j.queue = slices.Delete(j.queue, i+1, i+2)
}

// SetEpoch says to which epoch entries belong from now on, and those that wait for one. Without an epoch, nothing is
// stored.
func (j *Journal) SetEpoch(n uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.epoch = n
	for i := range j.queue {
		if j.queue[i].Epoch == 0 {
			j.queue[i].Epoch = n
		}
	}
	for i := range j.recent {
		if j.recent[i].Epoch == 0 {
			j.recent[i].Epoch = n
		}
	}
	j.wake()
}

// Recent is the newest n entries at most, oldest first, stored or not. Their Attrs must not be changed.
func (j *Journal) Recent(n int) []archive.Entry {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.recent[max(0, len(j.recent)-max(0, n)):])
}

// wake is called with the lock held.
func (j *Journal) wake() {
	close(j.changed)
	j.changed = make(chan struct{})
}

// waiting counts the entries up to a number that are not stored, and returns what announces a change.
func (j *Journal) waiting(upTo uint64) (n int, changed <-chan struct{}) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, it := range j.queue {
		if it.number <= upTo {
			n++
		}
	}
	return n, j.changed
}

// Flush stores everything that was noted before the call. It needs no Run. When ctx ends before, the error says how
// many entries are missing and why; they still wait for Run or another Flush. Without an epoch there is nowhere to
// store them, so nothing is waited for and it is no error.
func (j *Journal) Flush(ctx context.Context) error {
	j.mu.Lock()
	upTo := j.noted
	j.mu.Unlock()
	var trouble error
	for pause := newBackoff(50*time.Millisecond, time.Second); ; {
		n, _ := j.waiting(upTo)
		if n == 0 {
			return nil
		}
		if ctx.Err() != nil {
			err := fmt.Errorf("storing the journal, %d entries are left: %w", n, context.Cause(ctx))
			if trouble != nil {
				err = fmt.Errorf("%w (last trouble: %w)", err, trouble)
			}
			return err
		}
		switch more, err := j.writeNext(ctx); {
		case err != nil && ctx.Err() != nil:
		case err != nil:
			trouble = err
			pause.wait(ctx)
		case !more:
			return nil
		default:
			pause.reset()
		}
	}
}
