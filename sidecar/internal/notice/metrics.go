package notice

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The gauges have no labels; being vectors, they are absent as long as they are not known.
type metrics struct {
	up      *prometheus.GaugeVec
	seen    *prometheus.GaugeVec
	release *prometheus.GaugeVec
	errors  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_metadata_up", Help: "1 if the instance metadata service tells whether there is a termination notice, 0 if it is unknown.",
		}, nil),
		seen: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_spot_notice_timestamp_seconds", Help: "When the termination notice that stands was seen, Unix time; absent without a notice.",
		}, nil),
		release: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_spot_release_timestamp_seconds", Help: "When the instance will be released, Unix time; absent without a notice.",
		}, nil),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_metadata_errors_total", Help: "Questions that the instance metadata service did not answer usefully.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.up, m.seen, m.release, m.errors)
	}
	return m
}

func (m *metrics) polled(err error) {
	if err != nil {
		m.errors.Inc()
		m.up.WithLabelValues().Set(0)
		return
	}
	m.up.WithLabelValues().Set(1)
}

func (m *metrics) noticed(at, seen time.Time) {
	if at.IsZero() {
		m.seen.Reset()
		m.release.Reset()
		return
	}
	m.seen.WithLabelValues().Set(float64(seen.Unix()))
	m.release.WithLabelValues().Set(float64(at.Unix()))
}
