package admit

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	admissions *prometheus.CounterVec
	duration   *prometheus.HistogramVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		admissions: f.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_webhook_admissions_total",
			Help: "Answers to the API server by resource, decision (changed, allowed, denied, failed) and reason, dry runs included.",
		}, []string{"resource", "decision", "reason"}),
		duration: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outrider_webhook_admission_duration_seconds",
			Help: "Time to decide about an object, without the network.",
			// From half a millisecond to the timeout; most of them where the target of 5 ms and its neighbours are.
			Buckets: []float64{.0005, .001, .0015, .002, .003, .004, .005, .0075, .01, .015, .02, .03, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"resource"}),
	}
}

func (m *metrics) count(resource string, a answer, took time.Duration) {
	m.admissions.WithLabelValues(resource, string(a.decision), string(a.reason)).Inc()
	m.duration.WithLabelValues(resource).Observe(took.Seconds())
}
