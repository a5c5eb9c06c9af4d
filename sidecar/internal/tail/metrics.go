package tail

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	queries prometheus.Counter
	hints   *prometheus.CounterVec
	notify  prometheus.Gauge
	flushed *prometheus.GaugeVec // without labels: absent until known
}

// newMetrics registers them, or finds those of an earlier Tailer: a new one follows each loss of the server.
func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		queries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_tail_queries_total", Help: "Times the server was asked for its flush position.",
		}),
		hints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_tail_hints_total", Help: "Signs of new WAL that were heeded, by source: event of the file system, or look at the files.",
		}, []string{"source"}),
		notify: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_tail_watching", Help: "1 if the system reports writes to pg_wal, 0 if its files are looked at instead.",
		}),
		flushed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_wal_flushed_lsn_bytes", Help: "Position up to which the server has flushed WAL, as a byte number.",
		}, nil),
	}
	for _, source := range []string{"event", "look"} {
		m.hints.WithLabelValues(source)
	}
	if reg != nil {
		m.queries, m.hints = register(reg, m.queries), register(reg, m.hints)
		m.notify, m.flushed = register(reg, m.notify), register(reg, m.flushed)
	}
	return m
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	err := reg.Register(c)
	var there prometheus.AlreadyRegisteredError
	if errors.As(err, &there) {
		if before, ok := there.ExistingCollector.(C); ok {
			return before
		}
	}
	if err != nil {
		panic(err) // as MustRegister does: two packages use one name
	}
	return c
}

func (m *metrics) watching(yes bool) {
	m.notify.Set(0)
	if yes {
		m.notify.Set(1)
	}
}
