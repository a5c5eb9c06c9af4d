package certs

import (
	"crypto/x509"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	expiry    *prometheus.GaugeVec
	changes   *prometheus.CounterVec
	published prometheus.Counter
	errors    prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		expiry: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_webhook_certificate_expiry_timestamp_seconds",
			Help: "When the certificate that is served (server) and the authority that signs (ca) expire.",
		}, []string{"certificate"}),
		changes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_webhook_certificate_changes_total",
			Help: "Changes of the certificates' Secret by this replica.",
		}, []string{"change"}),
		published: f.NewCounter(prometheus.CounterOpts{
			Name: "outrider_webhook_certificate_publications_total",
			Help: "Times that this replica wrote the authorities into a webhook configuration.",
		}),
		errors: f.NewCounter(prometheus.CounterOpts{
			Name: "outrider_webhook_certificate_errors_total",
			Help: "Looks at the certificates that ended with an error.",
		}),
	}
}

// expire sets the gauges: of the authority in the Secret, and of what is served.
func (m *metrics) expire(s state, served *x509.Certificate) {
	if s.ca != nil {
		m.expiry.WithLabelValues("ca").Set(float64(s.ca.cert.NotAfter.Unix()))
	}
	m.expiry.WithLabelValues("server").Set(float64(served.NotAfter.Unix()))
}
