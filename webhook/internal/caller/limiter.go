package caller

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// forgotten is after how long a key that was not asked for is forgotten.
const forgotten = time.Hour

// Limiter limits each of many keys, and forgets those that were not asked for in an hour. It is safe for concurrent use.
type Limiter struct {
	every time.Duration
	burst int

	mu     sync.Mutex
	all    map[string]*entry
	pruned time.Time
}

type entry struct {
	limiter *rate.Limiter
	last    time.Time
}

// NewLimiter makes one that allows a key to come once in a while, and burst times at once.
func NewLimiter(every time.Duration, burst int) *Limiter {
	return &Limiter{every: every, burst: burst, all: map[string]*entry{}}
}

// Allow tells whether a key may come now, and counts it if so.
func (l *Limiter) Allow(now time.Time, key string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.pruned) > forgotten {
		for key, e := range l.all {
			if now.Sub(e.last) > forgotten {
				delete(l.all, key)
			}
		}
		l.pruned = now
	}
	e := l.all[key]
	if e == nil {
		e = &entry{limiter: rate.NewLimiter(rate.Every(l.every), l.burst)}
		l.all[key] = e
	}
	e.last = now
	return e.limiter.AllowN(now, 1)
}
