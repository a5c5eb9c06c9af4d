package oss

import (
	"math/rand/v2"
	"time"
)

// Timeouts bounds how long one call goes on. A zero field has the default. Callers above retry for as long as they
// like: these limits only see to it that an answer comes, and that a dead connection is not waited for.
type Timeouts struct {
	Connect  time.Duration // opening a connection, TLS included: 5 s
	Attempt  time.Duration // one request, beside the time that its payload needs at SlowestRate: 10 s
	Idle     time.Duration // waiting for the next byte of a body that is being read: 15 s
	Total    time.Duration // all attempts of a request together, beside its payload: 30 s
	Attempts int           // most attempts of a request: 10
	Backoff  time.Duration // bound of the first pause, doubled each time up to 5 s, of which a random part is waited: 200 ms
	// SlowestRate in bytes per second is what an upload must reach, or it counts as hanging: 256 KiB/s.
	SlowestRate int64
}

const longestPause = 5 * time.Second

func (t Timeouts) withDefaults() Timeouts {
	orElse := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	orElse(&t.Connect, 5*time.Second)
	orElse(&t.Attempt, 10*time.Second)
	orElse(&t.Idle, 15*time.Second)
	orElse(&t.Total, 30*time.Second)
	orElse(&t.Backoff, 200*time.Millisecond)
	if t.Attempts <= 0 {
		t.Attempts = 10
	}
	if t.SlowestRate <= 0 {
		t.SlowestRate = 256 << 10
	}
	return t
}

// attempt and total are the limits for a request with a payload of n bytes.
func (t Timeouts) attempt(n int64) time.Duration { return t.Attempt + t.payload(n) }
func (t Timeouts) total(n int64) time.Duration   { return t.Total + 2*t.payload(n) }

func (t Timeouts) payload(n int64) time.Duration {
	return time.Duration(float64(n) / float64(t.SlowestRate) * float64(time.Second))
}

// pause is the time to wait after the n-th attempt: exponential with full jitter, so that many writers that failed
// together do not come back together.
func (t Timeouts) pause(n int) time.Duration {
	limit := min(t.Backoff<<min(n-1, 20), longestPause)
	return rand.N(limit) + 1
}
