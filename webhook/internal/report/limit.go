package report

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
)

// Limits of one replica. A sidecar has little to say in a day; what comes more often than this is not one, or has run
// wild. Whoever has no token costs the API server a TokenReview, and all of them together get this many.
const (
	reviewsPerSecond = 20
	reviewsBurst     = 60
	podInterval      = 10 * time.Second
	podBurst         = 10
	forgotten        = time.Hour
)

// perPod is a limiter for each pod, and forgets those that have been silent for a while.
type perPod struct {
	mu     sync.Mutex
	all    map[types.UID]*allowance
	pruned time.Time
}

type allowance struct {
	limiter *rate.Limiter
	last    time.Time
}

func (p *perPod) allow(now time.Time, pod types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.pruned) > forgotten {
		for uid, a := range p.all {
			if now.Sub(a.last) > forgotten {
				delete(p.all, uid)
			}
		}
		p.pruned = now
	}
	a := p.all[pod]
	if a == nil {
		a = &allowance{limiter: rate.NewLimiter(rate.Every(podInterval), podBurst)}
		p.all[pod] = a
	}
	a.last = now
	return a.limiter.AllowN(now, 1)
}
