package evacuate

import (
	"time"

	corev1 "k8s.io/api/core/v1"

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

// mayTaint counts the new taints of a machine. A node that comes back under its name is another machine, and has not
// used up what that one had: else the replacement of an evicted pod is put on it although it is reclaimed.
func (l *limits) mayTaint(now time.Time, n *corev1.Node) bool {
	return l.nodes.Allow(now, n.Name+"/"+string(n.UID))
}

func newLimits() *limits {
	return &limits{
		reviews: caller.NewGate(reviewsPerSecond, 2*reviewsPerSecond),
		pods:    caller.NewLimiter(podInterval, podBurst),
		nodes:   caller.NewLimiter(nodeInterval, nodeBurst),
	}
}
