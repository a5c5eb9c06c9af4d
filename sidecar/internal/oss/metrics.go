package oss

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	billed   *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	retries  *prometheus.CounterVec
	sent     prometheus.Counter
	received prometheus.Counter
}

// newMetrics registers with reg unless it is nil. Several buckets of one process share their metrics.
func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		requests: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_oss_requests_total", Help: "HTTP requests to OSS by operation and result, each attempt counted.",
		}, []string{"operation", "result"})),
		billed: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_oss_billed_requests_total",
			Help: "HTTP requests that OSS bills, by type of its price list: put (also lists and deletes), or get; and by the class of what is stored or read, Standard where there is no such.",
		}, []string{"type", "storage_class"})),
		seconds: register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "outrider_oss_request_duration_seconds",
			Help:    "Time from sending an HTTP request to OSS to the headers of its answer.",
			Buckets: []float64{.005, .01, .02, .04, .08, .16, .32, .64, 1.28, 2.56, 5.12, 10.24, 20.48},
		}, []string{"operation"})),
		retries: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "outrider_oss_retries_total", Help: "Attempts after the first one of a request to OSS.",
		}, []string{"operation"})),
		sent: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_oss_sent_bytes_total", Help: "Bytes of request bodies sent to OSS.",
		})),
		received: register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_oss_received_bytes_total", Help: "Bytes of response bodies received from OSS.",
		})),
	}
}

func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	var already prometheus.AlreadyRegisteredError
	if err := reg.Register(c); errors.As(err, &already) {
		if there, ok := already.ExistingCollector.(C); ok {
			return there
		}
	}
	return c
}

// Usage is what a bucket has cost since it was opened, in the units of the bill: OSS counts answers of class 2xx and
// 3xx only, and lists and deletes with the puts.
type Usage struct {
	PutRequests, GetRequests int64
	Sent, Received           int64 // bytes of bodies
}

type usage struct{ puts, gets, sent, received atomic.Int64 }

// Usage returns the counters. It is safe to call at any time.
func (b *Bucket) Usage() Usage {
	return Usage{
		PutRequests: b.usage.puts.Load(), GetRequests: b.usage.gets.Load(),
		Sent: b.usage.sent.Load(), Received: b.usage.received.Load(),
	}
}
