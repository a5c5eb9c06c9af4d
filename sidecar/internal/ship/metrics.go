package ship

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are what a Shipper counts. The gauges have no labels; being vectors, they are absent until they are known.
type Metrics struct {
	durable     *prometheus.GaugeVec
	lastSuccess *prometheus.GaugeVec
	raw         *prometheus.CounterVec
	stored      *prometheus.CounterVec
	objects     *prometheus.CounterVec
	seconds     *prometheus.HistogramVec
	retries     prometheus.Counter
}

// Kinds of objects that WAL is stored in.
const (
	kindChunk   = "chunk"   // a piece of a segment that is still growing
	kindSegment = "segment" // a whole segment in wal_005/
)

// NewMetrics makes and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		durable: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_wal_durable_lsn_bytes", Help: "Position up to which WAL is durable in the archive, as a byte number.",
		}, nil),
		lastSuccess: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_wal_last_durable_timestamp_seconds", Help: "When the durable position last moved, Unix time.",
		}, nil),
		raw: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_wal_shipped_bytes_total", Help: "WAL bytes in objects that were stored, before compression, by kind: chunk, or segment, which holds again what its chunks held.",
		}, []string{"kind"}),
		stored: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_wal_stored_bytes_total", Help: "Bytes of WAL objects that were stored, after compression, by kind.",
		}, []string{"kind"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "outrider_wal_store_duration_seconds", Help: "Time from reading WAL to its being stored, by kind of object.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 12),
		}, []string{"kind"}),
		objects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_wal_objects_total", Help: "WAL objects that were stored, by kind: chunk, or segment for one that was sealed.",
		}, []string{"kind"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_wal_ship_retries_total", Help: "Times the archive did not accept WAL and it was tried again.",
		}),
	}
	for _, kind := range []string{kindChunk, kindSegment} {
		m.raw.WithLabelValues(kind)
		m.stored.WithLabelValues(kind)
		m.objects.WithLabelValues(kind)
	}
	if reg != nil {
		reg.MustRegister(m.durable, m.lastSuccess, m.raw, m.stored, m.objects, m.seconds, m.retries)
	}
	return m
}

func (m *Metrics) observe(kind string, raw, stored int64, took time.Duration) {
	m.raw.WithLabelValues(kind).Add(float64(raw))
	m.stored.WithLabelValues(kind).Add(float64(stored))
	m.objects.WithLabelValues(kind).Inc()
	m.seconds.WithLabelValues(kind).Observe(took.Seconds())
}
