// Package notice waits for the announcement that the spot instance below this process is about to be taken away. It
// comes about five minutes ahead, from the metadata service of Alibaba Cloud ECS.
package notice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// DefaultBaseURL is where ECS instances find their metadata service. It is reached without a proxy.
const DefaultBaseURL = "http://100.100.100.200"

// Notice says that the instance will be released.
type Notice struct {
	At       time.Time `json:"release_at"` // when it will be released; zero: it will not, the notice was withdrawn
	SeenAt   time.Time `json:"seen_at"`    // when this process learned of it
	Instance string    `json:"instance"`   // such as i-bp67acfmxazb4ph
}

// Config says where and how often to ask. The zero value is right on ECS.
type Config struct {
	BaseURL    string                // default DefaultBaseURL; with or without /latest
	Interval   time.Duration         // between two questions, give or take a tenth; default 5 s
	HTTPClient *http.Client          // default one without a proxy; redirects are never followed
	Log        *slog.Logger          // nil for none
	Registerer prometheus.Registerer // nil for none
}

// Watcher asks one metadata service.
type Watcher struct {
	cfg     Config
	service *service
	metrics *metrics
	trouble trouble

	instance string    // whose metadata service answers; "" if that is not known
	verified time.Time // when it said so last
	last     time.Time // the release time that was reported, zero for none
}

// New makes a Watcher; Run makes it work.
func New(cfg Config) *Watcher {
	if cfg.BaseURL == "" {
		cfg.BaseURL = DefaultBaseURL
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{cfg: cfg, metrics: newMetrics(cfg.Registerer), trouble: trouble{log: cfg.Log}}
}

// Run asks until ctx ends, which is no error, and calls report for each notice: once for a release time, again when
// the time has changed, when the notice is withdrawn, or when it comes back after that. While report runs, nothing is
// asked.
//
// What is at the address may be no metadata service at all. Its saying "not found" therefore means "no notice" only
// after it has named an instance; everything else means "unknown": the metric outrider_metadata_up is 0 then, a log
// line says why at most once a minute, and Run goes on asking. The only error of Run is an unusable Config.BaseURL.
func (w *Watcher) Run(ctx context.Context, report func(Notice)) error {
	s, err := newService(w.cfg.BaseURL, w.cfg.HTTPClient)
	if err != nil {
		return err
	}
	defer s.close()
	w.service = s
	for {
		found, err := w.poll(ctx)
		if ctx.Err() != nil {
			return nil
		}
		w.metrics.polled(err)
		if err != nil {
			w.instance = "" // whoever answers next has to say again who it is
			w.trouble.failed(err)
		} else {
			w.trouble.over()
			w.heard(found, report)
		}
		pause := time.NewTimer(w.cfg.Interval*9/10 + rand.N(w.cfg.Interval/5+1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		}
	}
}

// poll asks for the release time; the zero time is proven to be none.
func (w *Watcher) poll(ctx context.Context) (time.Time, error) {
	if w.instance == "" {
		if err := w.verify(ctx); err != nil {
			return time.Time{}, err
		}
	}
	const path = "instance/spot/termination-time"
	body, err := w.service.get(ctx, path)
	if errors.Is(err, errAbsent) {
		if !w.last.IsZero() || time.Since(w.verified) >= verifyEvery {
			err = w.verify(ctx)
			return time.Time{}, err
		}
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339, body)
	if err != nil || at.IsZero() {
		return time.Time{}, fmt.Errorf("%s says %.40q, which is not a time such as 2020-04-07T17:03:00Z", path, body)
	}
	return at.UTC(), nil
}

// verifyEvery is how long "not found" is believed without asking who says so. It costs a question, and the service
// throttles those who ask too much.
const verifyEvery = time.Minute

var instanceID = regexp.MustCompile(`^i-[A-Za-z0-9-]{1,62}$`)

// verify makes sure that the metadata service of an instance answers, not just any web server.
func (w *Watcher) verify(ctx context.Context) error {
	id, err := w.service.get(ctx, "instance-id")
	if err != nil {
		// Also where it is "not found": then this is not the service of an instance.
		return err
	}
	if !instanceID.MatchString(id) {
		return fmt.Errorf("instance-id is %.40q, which is not that of an ECS instance", id)
	}
	w.instance, w.verified = id, time.Now()
	return nil
}

// heard compares what was found with what was reported.
func (w *Watcher) heard(found time.Time, report func(Notice)) {
	switch {
	case found.Equal(w.last):
		return
	case found.IsZero():
		w.cfg.Log.Warn("the termination notice was withdrawn", "release_at", w.last, "instance", w.instance)
	case w.last.IsZero():
		w.cfg.Log.Warn("the instance will be released", "release_at", found, "instance", w.instance)
	default:
		w.cfg.Log.Warn("the instance will be released at another time", "release_at", found, "before", w.last, "instance", w.instance)
	}
	w.last = found
	n := Notice{At: found, SeenAt: time.Now().UTC(), Instance: w.instance}
	w.metrics.noticed(found, n.SeenAt)
	report(n)
}
