package main

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
)

// buildInfo is what this program was made of, as a metric.
func buildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "outrider_webhook_build_info", Help: "1 for the version of the program that runs.",
	}, []string{"version", "go_version"})
	info.WithLabelValues(version(), runtime.Version()).Set(1)
	return info
}
