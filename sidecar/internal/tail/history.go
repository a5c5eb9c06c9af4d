package tail

import (
	"slices"
	"sort"
	"time"

	"outrider.dev/sidecar/internal/wal"
)

// sample says that everything flushed by the time at lies before flushed.
type sample struct {
	at      time.Time
	flushed wal.LSN
}

const (
	// maxSamples bounds the history. At four samples a second and 1/32 of their age apart, 600 reach back for years.
	maxSamples = 1024
	coarseness = 32
)

// history remembers samples in increasing order. When it is full, it is made coarser: the distance between two samples
// grows in proportion to their age, so that an age is never off by more than a small share of itself.
type history struct{ samples []sample }

func (h *history) add(at time.Time, flushed wal.LSN) {
	if n := len(h.samples); n > 0 {
		switch last := h.samples[n-1].flushed; {
		case flushed == last:
			h.extend(at)
			return
		case flushed < last:
			h.samples = h.samples[:0] // another server's positions
		}
	}
	if len(h.samples) == maxSamples {
		h.thin()
	}
	h.samples = append(h.samples, sample{at, flushed})
}

// extend says that what is known to be flushed was still all at a later time.
func (h *history) extend(at time.Time) {
	if n := len(h.samples); n > 0 {
		h.samples[n-1].at = at
	}
}

// thin keeps the oldest and the newest sample, and those without which a gap would be too large for its age.
func (h *history) thin() {
	all := h.samples
	newest := all[len(all)-1].at
	kept := all[:1]
	for i := 1; i < len(all)-1; i++ {
		if gap := all[i+1].at.Sub(kept[len(kept)-1].at); gap > newest.Sub(all[i+1].at)/coarseness {
			kept = append(kept, all[i])
		}
	}
	if len(kept) == len(all)-1 {
		kept = slices.Delete(kept, 1, 2)
	}
	kept = append(kept, all[len(all)-1])
	h.samples = kept
}

// latest is the latest time of which is known that everything flushed by then lies before durable, and whether that is
// the newest sample.
func (h *history) latest(durable wal.LSN) (at time.Time, newest, known bool) {
	n := sort.Search(len(h.samples), func(i int) bool { return h.samples[i].flushed > durable })
	if n == 0 {
		return time.Time{}, false, false
	}
	return h.samples[n-1].at, n == len(h.samples), true
}

// Age is an upper bound for the age of the oldest commit that is not durable elsewhere, if everything before durable
// is: the time since the latest moment of which it is known that all that was flushed by then is durable. It is 0 if
// nothing newer is known of and none is to be expected, that is, nothing was written for a while. It is unknown as
// long as the server was never asked, and if durable is before all that is remembered.
func (t *Tailer) Age(durable wal.LSN) (age time.Duration, known bool) {
	t.mu.Lock()
	at, newest, known := t.history.latest(durable)
	quiet, seen := newest && t.clock.quiet, t.seen
	t.mu.Unlock()
	if !known {
		return 0, false
	}
	if quiet && t.look(seen.segment) == seen {
		return 0, true
	}
	return time.Since(at), true
}
