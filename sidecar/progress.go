package main

import (
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progressInterval is how often progress is logged where nobody sees a bar.
const progressInterval = 5 * time.Second

// progress shows how far something long is: a bar on a terminal, a line of the log every few seconds otherwise.
type progress struct {
	app   *app
	label string

	mu    sync.Mutex
	all   *mpb.Progress
	bar   *mpb.Bar
	last  time.Time
	total int64
}

// newProgress begins to show progress on stderr. close ends it.
func (a *app) newProgress(label string) *progress {
	p := &progress{app: a, label: label, last: time.Now()}
	if terminal(a.stderr) {
		p.all = mpb.New(mpb.WithOutput(a.stderr), mpb.WithAutoRefresh())
		p.bar = p.all.AddBar(0,
			mpb.PrependDecorators(decor.Name(label+"  "), decor.CountersKibiByte("% .1f / % .1f")),
			mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), decor.AverageETA(decor.ET_STYLE_GO)))
	}
	return p
}

// set says that done of total bytes are done. It is safe for concurrent use.
func (p *progress) set(done, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		if total != p.total {
			p.bar.SetTotal(total, false)
			p.total = total
		}
		p.bar.SetCurrent(done)
		return
	}
	if now := time.Now(); now.Sub(p.last) >= progressInterval {
		p.last = now
		p.app.log.Info("progress", "step", p.label, "done_bytes", done, "total_bytes", total)
	}
}

// close takes the bar away, whether it is full or not.
func (p *progress) close() {
	if p.bar == nil {
		return
	}
	p.bar.Abort(true)
	p.all.Wait()
}
