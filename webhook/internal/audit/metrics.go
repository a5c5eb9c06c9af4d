package audit

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are of the last round. On replicas that do not lead, and of namespaces that could not be read, there are none.
type metrics struct {
	errors prometheus.Counter

	pods, waiting, budgets, last *prometheus.Desc

	mu     sync.Mutex
	counts map[string]count // by namespace
	waits  map[string]int   // workloads, by namespace, those without the label included; nil if it could not be told
	whole  time.Time        // when everything was seen last
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_audit_errors_total", Help: "Things that the audit could not read.",
		}),
		pods: prometheus.NewDesc("outrider_audit_pods", "Pods with a database in protected namespaces: protected, outdated, unprotected, suspected (they may hold one, and are not protected), or refused if they were made now.",
			[]string{"namespace", "state"}, nil),
		waiting: prometheus.NewDesc("outrider_audit_waiting_workloads", "Workloads that lack pods because the webhook or the guard refused them, or the webhook did not answer. Namespaces without the label are there while it is not 0.", []string{"namespace"}, nil),
		budgets: prometheus.NewDesc("outrider_audit_blocking_budgets", "Disruption budgets that never allow the eviction of a protected pod.", []string{"namespace"}, nil),
		last:    prometheus.NewDesc("outrider_audit_last_success_timestamp_seconds", "When the audit last saw everything, Unix time.", nil, nil),
	}
	if reg != nil {
		reg.MustRegister(m.errors, m)
	}
	return m
}

func (m *metrics) publish(counts map[string]count, waits map[string]int, whole bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts, m.waits = counts, waits
	if whole {
		m.whole = time.Now()
	}
}

func (m *metrics) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts, m.waits, m.whole = nil, nil, time.Time{}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.pods, m.waiting, m.budgets, m.last} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for namespace, c := range m.counts {
		for state, n := range c.pods {
			gauge(m.pods, float64(n), namespace, string(state))
		}
		if n := m.waits[namespace]; n == 0 && m.waits != nil {
			gauge(m.waiting, 0, namespace)
		}
		gauge(m.budgets, float64(c.budgets), namespace)
	}
	for namespace, n := range m.waits {
		if n > 0 {
			gauge(m.waiting, float64(n), namespace)
		}
	}
	if !m.whole.IsZero() {
		gauge(m.last, float64(m.whole.Unix()))
	}
}
