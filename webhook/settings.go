package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// settings is the configuration in force. The file is read again and again: a ConfigMap's volume changes by itself. A
// file that is wrong changes nothing but a metric and the log.
type settings struct {
	path    string
	log     *slog.Logger
	metrics *settingsMetrics
	current atomic.Pointer[config]

	// Only run touches it.
	seen []byte // what was read last, good or bad
	lost string // why it could not be read, as it was logged
}

// newSettings reads the configuration for the first time, when being wrong is an error.
func newSettings(path string, log *slog.Logger, reg prometheus.Registerer) (*settings, error) {
	s := &settings{path: path, log: log, metrics: newSettingsMetrics(reg)}
	c, err := readConfig(path)
	if err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("%w: the configuration %s: %w", errUsage, path, err)
	}
	s.current.Store(&c)
	s.metrics.loaded(true)
	return s, nil
}

// get is the configuration in force.
func (s *settings) get() config { return *s.current.Load() }

// clusterOr is the configured id of the Kubernetes cluster, or the one that was asked for.
func (s *settings) clusterOr(uid string) string { return cmp.Or(s.get().KubernetesCluster, uid) }

// reloadInterval is how often the file is looked at. The kubelet takes up to a minute to bring a change of a ConfigMap.
const reloadInterval = 2 * time.Second

// run looks at the file until ctx ends.
func (s *settings) run(ctx context.Context) error {
	if s.path == "" {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(reloadInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			s.reload(ctx)
		}
	}
}

// reload looks at the file once.
func (s *settings) reload(ctx context.Context) {
	b, err := os.ReadFile(s.path)
	if err != nil {
		if s.lost != err.Error() {
			s.refuse(ctx, err)
		}
		s.lost, s.seen = err.Error(), nil
		return
	}
	if s.lost == "" && bytes.Equal(b, s.seen) {
		return
	}
	first := s.seen == nil && s.lost == ""
	s.seen, s.lost = b, ""
	c, err := parseConfig(b)
	if err == nil {
		err = c.validate()
	}
	if err != nil {
		s.refuse(ctx, err)
		return
	}
	before := s.get()
	s.current.Store(&c)
	s.metrics.loaded(true)
	if first {
		return
	}
	s.log.InfoContext(ctx, "the configuration has been read again", "path", s.path)
	if !reflect.DeepEqual(before.Evacuation, c.Evacuation) {
		s.log.WarnContext(ctx, "what the configuration says of evacuation has changed: only its url is in force, the rest takes a restart", "path", s.path)
	}
}

func (s *settings) refuse(ctx context.Context, err error) {
	s.metrics.loaded(false)
	s.log.ErrorContext(ctx, "the configuration cannot be used, the one before stays in force", "path", s.path, "error", err)
}

type settingsMetrics struct {
	good prometheus.Gauge
	at   prometheus.Gauge
}

func newSettingsMetrics(reg prometheus.Registerer) *settingsMetrics {
	f := promauto.With(reg)
	return &settingsMetrics{
		good: f.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_webhook_config_last_reload_successful",
			Help: "1 if the configuration file is the one in force, 0 if it is wrong and an older one is.",
		}),
		at: f.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_webhook_config_last_reload_success_timestamp_seconds",
			Help: "When the configuration in force was read.",
		}),
	}
}

func (m *settingsMetrics) loaded(ok bool) {
	if !ok {
		m.good.Set(0)
		return
	}
	m.good.Set(1)
	m.at.SetToCurrentTime()
}
