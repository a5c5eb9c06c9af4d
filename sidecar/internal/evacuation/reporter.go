package evacuation

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How a Reporter takes its time.
const (
	settleFor     = 5 * time.Second // how long a state has to last to be worth an Event
	newsFor       = time.Hour       // for how long a report is tried
	reportTimeout = 10 * time.Second
	completeFor   = time.Minute
	firstPause    = 5 * time.Second // after a failure; then twice as long, up to
	longestPause  = 2 * time.Minute
)

// Reporter tells the webhook's process what has happened, which makes Events of it. Nothing waits for it and nothing
// depends on it: what cannot be told is dropped. Its methods are safe for concurrent use.
type Reporter struct {
	door    *door
	to      string
	timeout time.Duration
	log     *slog.Logger
	metrics *reportMetrics
	settle  time.Duration
	news    time.Duration
	first   time.Duration // pause
	added   chan struct{} // holds one token when something was added

	mu    sync.Mutex
	queue []pending

	// Of Run alone.
	said    Report // the state that was taken last
	warned  bool   // whether a refusal was logged
	failing bool
}

// NewReporter makes a Reporter that sends nothing before Run. Reports go to where cfg.URL says, beside the evacuations; of
// cfg the Interval, if it is set, takes the place of all times that are not limits. An error says what is wrong with the
// configuration.
func NewReporter(cfg Config) (*Reporter, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = reportTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d, err := newDoor(cfg)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("the address for evacuations is %q: %w", cfg.URL, err)
	}
	r := &Reporter{
		door: d, to: u.ResolveReference(&url.URL{Path: "reports"}).String(), timeout: cfg.Timeout, log: cfg.Log, metrics: newReportMetrics(cfg.Registerer),
		settle: settleFor, news: newsFor, first: firstPause, added: make(chan struct{}, 1),
	}
	if cfg.Interval > 0 {
		r.settle, r.first = cfg.Interval, cfg.Interval
	}
	return r, nil
}

// Run sends what is added until ctx ends, which is no error. It has no other. What is left then is dropped.
func (r *Reporter) Run(ctx context.Context) error {
	defer r.door.close()
	pause := r.first
	var earliest time.Time // after a failure
	for {
		now := time.Now()
		var wait <-chan time.Time
		var timer *time.Timer
		if !now.Before(earliest) {
			p, ok, at := r.next(now)
			if ok {
				if r.deliver(ctx, &p) {
					pause = r.first
				} else if ctx.Err() == nil {
					r.again(p, time.Now())
					earliest = time.Now().Add(pause)
					pause = min(2*pause, longestPause)
				}
				if ctx.Err() != nil {
					return nil
				}
				continue
			}
			if !at.IsZero() {
				timer = time.NewTimer(time.Until(at))
			}
		} else {
			timer = time.NewTimer(time.Until(earliest))
		}
		if timer != nil {
			wait = timer.C
		}
		select {
		case <-ctx.Done():
		case <-r.added:
		case <-wait:
		}
		if timer != nil {
			timer.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// deliver sends a report once, and tells whether it is done with.
func (r *Reporter) deliver(ctx context.Context, p *pending) bool {
	if p.report.Kind.settles() && p.report.same(r.said) {
		return true
	}
	if complete := p.report.Complete; complete != nil {
		p.report.Complete = nil
		limited, cancel := context.WithTimeout(ctx, completeFor)
		complete(limited, &p.report)
		cancel()
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	a, err := r.door.post(ctx, r.to, p.report)
	switch {
	case err != nil:
		r.metrics.reports.WithLabelValues("failed").Inc()
		if !r.failing {
			r.failing = true
			r.log.DebugContext(ctx, "what has happened cannot be reported for Events, it is tried again", "kind", string(p.report.Kind), "error", err)
		}
		return false
	case a.refused():
		r.metrics.reports.WithLabelValues("refused").Inc()
		if !r.warned {
			r.warned = true
			r.log.InfoContext(ctx, "there are no Events about this database: its reports are refused", "outcome", a.Outcome, "status", a.status, "message", a.Message)
		}
	default:
		r.metrics.reports.WithLabelValues("taken").Inc()
		r.log.DebugContext(ctx, "reported for Events", "kind", string(p.report.Kind))
	}
	r.failing = false
	if p.report.Kind.settles() {
		r.said = p.report
	}
	return true
}

type reportMetrics struct {
	reports *prometheus.CounterVec
}

func newReportMetrics(reg prometheus.Registerer) *reportMetrics {
	m := &reportMetrics{reports: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_reports_total", Help: "Reports for Events about this pod: taken, refused, failed for now, or dropped.",
	}, []string{"result"})}
	for _, result := range []string{"taken", "refused", "failed", "dropped"} {
		m.reports.WithLabelValues(result)
	}
	if reg != nil {
		reg.MustRegister(m.reports)
	}
	return m
}
