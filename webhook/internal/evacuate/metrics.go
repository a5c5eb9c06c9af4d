package evacuate

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
	pods     *prometheus.CounterVec
	taints   *prometheus.CounterVec
	errors   prometheus.Counter
	// nodes has no labels; being a vector, it is absent where nobody counts.
	nodes *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_evacuation_requests_total", Help: "Calls for evacuation by outcome.",
		}, []string{"outcome"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "outrider_evacuation_request_duration_seconds", Help: "How long calls for evacuation took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		pods: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_evacuation_pods_total",
			Help: "Pods moved away from nodes that are reclaimed: evicted, deleted past a disruption budget, drained with their node, or replaced on a lost node.",
		}, []string{"how"}),
		taints: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_evacuation_taints_total", Help: "Taints outrider.dev/reclaimed that were set and lifted.",
		}, []string{"action"}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_evacuation_errors_total", Help: "Nodes that could not be seen to in one of the leader's rounds.",
		}),
		nodes: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_evacuation_reclaimed_nodes", Help: "Nodes with the taint outrider.dev/reclaimed; absent on replicas that do not lead.",
		}, nil),
	}
	for _, o := range Outcomes() {
		m.requests.WithLabelValues(string(o))
	}
	for _, how := range []string{string(Evicted), string(Deleted), drained, replaced} {
		m.pods.WithLabelValues(how)
	}
	for _, a := range []string{"set", "lifted"} {
		m.taints.WithLabelValues(a)
	}
	if reg != nil {
		reg.MustRegister(m.requests, m.seconds, m.pods, m.taints, m.errors, m.nodes)
	}
	return m
}

// Values of the label how beside Evicted and Deleted.
const (
	drained  = "drained"
	replaced = "replaced"
)
