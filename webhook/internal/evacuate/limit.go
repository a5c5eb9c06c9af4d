package evacuate

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits of one replica. A pod asks every 5 s; what comes more often is not a sidecar. Whoever has no token costs the
// API server a TokenReview, and all of them together get this many.
const (
	reviewsPerSecond = 50
	podInterval      = time.Second
	podBurst         = 5
	nodeInterval     = 10 * time.Minute // between two new taints of one node
	nodeBurst        = 3
	forgotten        = time.Hour
)

type limits struct {
	reviews *rate.Limiter
	pods    *keyed
	nodes   *keyed
}

func newLimits() *limits {
	return &limits{
		reviews: rate.NewLimiter(reviewsPerSecond, 2*reviewsPerSecond),
		pods:    &keyed{every: podInterval, burst: podBurst, all: map[string]*entry{}},
		nodes:   &keyed{every: nodeInterval, burst: nodeBurst, all: map[string]*entry{}},
	}
}

// keyed is a limiter for each of many keys, and forgets those that were not asked for in a while.
type keyed struct {
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

func (k *keyed) allow(now time.Time, key string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.pruned) > forgotten {
		for key, e := range k.all {
			if now.Sub(e.last) > forgotten {
				delete(k.all, key)
			}
		}
		k.pruned = now
	}
	e := k.all[key]
	if e == nil {
		e = &entry{limiter: rate.NewLimiter(rate.Every(k.every), k.burst)}
		k.all[key] = e
	}
	e.last = now
	return e.limiter.AllowN(now, 1)
}
