package evacuate

import (
	"time"

	"outrider.dev/webhook/internal/caller"
)

// Limits of one replica. A pod asks every 5 s; what comes more often is not a sidecar. Whoever has no good token may still
// cost the API server a TokenReview, and all of them together get this many.
const (
	reviewsPerSecond = 50
	podInterval      = time.Second
	podBurst         = 5
	nodeInterval     = 10 * time.Minute // between two new taints of one node
	nodeBurst        = 3
)

type limits struct {
	reviews *caller.Gate
	pods    *caller.Limiter
	nodes   *caller.Limiter
}

func newLimits() *limits {
	return &limits{
		reviews: caller.NewGate(reviewsPerSecond, 2*reviewsPerSecond),
		pods:    caller.NewLimiter(podInterval, podBurst),
		nodes:   caller.NewLimiter(nodeInterval, nodeBurst),
	}
}
