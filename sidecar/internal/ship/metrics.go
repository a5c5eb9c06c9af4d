package ship

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what a Shipper counts.
type Metrics struct {
	durable     prometheus.Gauge
	lastSuccess prometheus.Gauge
	raw         *prometheus.CounterVec
	stored      *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	sealed      prometheus.Counter
	retries     prometheus.Counter
}

// NewMetrics makes and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		durable: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_wal_durable_lsn_bytes", Help: "Position up to which WAL is durable in the archive, as a byte number.",
		}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_wal_last_durable_timestamp_seconds", Help: "When the durable position last moved, Unix time.",
		}),
		raw: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_wal_shipped_bytes_total", Help: "WAL bytes shipped before compression, by kind of object.",
		}, []string{"kind"}),
		stored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_wal_stored_bytes_total", Help: "Bytes of WAL objects stored, after compression, by kind of object.",
		}, []string{"kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outrider_wal_ship_seconds", Help: "Time from reading WAL to its being durable, by kind of object.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"kind"}),
		sealed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_wal_segments_sealed_total", Help: "Segments stored whole in wal_005/.",
		}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_wal_ship_retries_total", Help: "Times the archive did not accept WAL and it was tried again.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.durable, m.lastSuccess, m.raw, m.stored, m.seconds, m.sealed, m.retries)
	}
	return m
}

func (m *Metrics) observe(kind string, raw int, took time.Duration) {
	m.raw.WithLabelValues(kind).Add(float64(raw))
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}
