package main

import (
	"sync"
	"time"
)

// pacer has more WAL go into one request the nearer the requests come to the policy's budget. The rpo is kept: the age of
// what is not shipped grows to three quarters of it at most, and what is left is for the store's answer.
type pacer struct {
	perDay float64
	rpo    time.Duration
	used   func() int64 // requests so far that are billed

	mu   sync.Mutex
	left float64 // requests of the allowance
	seen int64
	at   time.Time
}

// allowanceSpan is how much of a day may be saved up: a burst of an hour's requests is not held against anybody.
const allowanceSpan = time.Hour

func newPacer(perDay int64, rpo time.Duration, used func() int64) *pacer {
	p := &pacer{perDay: float64(perDay), rpo: rpo, used: used, at: time.Now(), seen: used()}
	p.left = p.full()
	return p
}

func (p *pacer) full() float64 { return p.perDay * allowanceSpan.Hours() / 24 }

// pace is how long it is at least from one flush to the next. It is safe for concurrent use.
func (p *pacer) pace() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, used := time.Now(), p.used()
	p.left += p.perDay*now.Sub(p.at).Hours()/24 - float64(used-p.seen)
	p.left = max(0, min(p.left, p.full()))
	p.at, p.seen = now, used
	usual := p.rpo / flushShare
	scarce := 1 - 2*p.left/p.full() // 0 with half of the allowance left, 1 with nothing
	if scarce <= 0 {
		return usual
	}
	return usual + time.Duration(scarce*float64(p.rpo*3/4-usual))
}

// flushShare is the part of the rpo that lies between two flushes where nothing is scarce.
const flushShare = 4

// pace is how long it is at least from one flush to the next. Where the end is near nothing is saved.
func (g *guard) pace() time.Duration {
	usual := g.policy.RPO / flushShare
	if g.pacer == nil || g.awaitsStop() {
		return usual
	}
	return g.pacer.pace()
}

// requests is how many of them OSS bills for so far; none as long as the archive has not been reached.
func (d *door) requests() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.root.bucket == nil {
		return 0
	}
	u := d.root.bucket.Usage()
	return u.PutRequests + u.GetRequests
}
