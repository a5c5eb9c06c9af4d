// Package evacuation asks for this pod to be moved away before its node is taken. It asks the webhook's process, which
// has the rights that a pod has not, and goes on asking until the pod is stopped or the notice is withdrawn. Nothing
// depends on the answer: a pod that nobody moves has prepared itself.
//
// At the same door it reports what has happened to the database (Reporter), which then becomes Events: a pod has no right
// to write those either.
package evacuation

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Config says whom to ask, and as whom. URL, CA and TokenFile are required.
type Config struct {
	URL string // https://outrider-webhook.outrider-system.svc/v1/evacuations
	// CA are the certificates, PEM, of the authorities that may sign for the server at URL. No others are believed.
	CA string
	// TokenFile holds the token that says which pod asks. The kubelet renews it, so it is read each time.
	TokenFile string
	Interval  time.Duration // between two questions; default 5 s
	Timeout   time.Duration // of one question; default 10 s, which is more than the server takes
	// Note writes to the journal: evacuation_asked, evacuation_answered, evacuation_failed. nil for none.
	Note       func(event string, attrs ...any)
	Log        *slog.Logger          // nil for none
	Registerer prometheus.Registerer // nil for none
}

// Asker asks while a notice stands. Its methods are safe for concurrent use.
type Asker struct {
	cfg     Config
	door    *door
	metrics *metrics
	changed chan struct{} // holds one token when the notice has changed

	mu       sync.Mutex
	release  time.Time // zero for no notice
	instance string

	// Of Run alone.
	said    string // the gist of what was answered last, as it was journalled
	failed  bool   // whether a failure was journalled
	trouble trouble
}

// New makes an Asker that asks nothing yet. An error says what is wrong with the configuration.
func New(cfg Config) (*Asker, error) {
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Second
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Note == nil {
		cfg.Note = func(string, ...any) {}
	}
	d, err := newDoor(cfg)
	if err != nil {
		return nil, err
	}
	return &Asker{cfg: cfg, door: d, metrics: newMetrics(cfg.Registerer), changed: make(chan struct{}, 1), trouble: trouble{log: cfg.Log}}, nil
}

// Announce says when the instance will be released; the zero time that it will not, after all. It returns at once.
func (a *Asker) Announce(release time.Time, instance string) {
	a.mu.Lock()
	a.release, a.instance = release, instance
	a.mu.Unlock()
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *Asker) notice() (release time.Time, instance string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.release, a.instance
}

// Run asks until ctx ends, which is no error. It has no other.
func (a *Asker) Run(ctx context.Context) error {
	defer a.door.close()
	var about time.Time // the notice that was journalled
	for {
		release, instance := a.notice()
		if !release.Equal(about) {
			about, a.said, a.failed = release, "", false
			if !release.IsZero() {
				a.cfg.Note("evacuation_asked", "release_at", release, "url", a.cfg.URL)
			}
		}
		var again <-chan time.Time
		var pause *time.Timer
		if !release.IsZero() {
			a.ask(ctx, release, instance)
			pause = time.NewTimer(a.cfg.Interval)
			again = pause.C
		}
		select {
		case <-ctx.Done():
		case <-a.changed:
		case <-again:
		}
		if pause != nil {
			pause.Stop()
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// ask asks once, and says what is new.
func (a *Asker) ask(ctx context.Context, release time.Time, instance string) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	answer, err := a.door.ask(ctx, release, instance)
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the pod is being stopped: that is what was asked for
	}
	if err != nil {
		a.metrics.calls.WithLabelValues("failed").Inc()
		a.trouble.failed(err)
		if !a.failed {
			a.failed = true
			a.cfg.Note("evacuation_failed", "error", err.Error())
		}
		return
	}
	a.trouble.over()
	if answer.refused() {
		a.metrics.calls.WithLabelValues("refused").Inc()
	} else {
		a.metrics.calls.WithLabelValues("answered").Inc()
	}
	if said := answer.gist(); said != a.said {
		a.said = said
		a.cfg.Note("evacuation_answered", answer.attrs()...)
		if answer.refused() {
			a.cfg.Log.Warn("this pod is not moved away from its node", "outcome", answer.Outcome, "status", answer.status, "message", answer.Message)
		}
	}
}
