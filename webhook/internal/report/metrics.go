package report

import "github.com/prometheus/client_golang/prometheus"

// none is the label reason of a report that did not come to be read.
const none = "none"

type metrics struct {
	reports *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{reports: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_webhook_reports_total", Help: "Reports of sidecars by the reason of the Event they are for, none if that was not read, and what became of them.",
	}, []string{"reason", "result"})}
	for _, k := range Kinds() {
		m.reports.WithLabelValues(k.reason(), string(Noted))
	}
	for _, o := range Outcomes() {
		if o != Noted {
			m.reports.WithLabelValues(none, string(o))
		}
	}
	if reg != nil {
		reg.MustRegister(m.reports)
	}
	return m
}
