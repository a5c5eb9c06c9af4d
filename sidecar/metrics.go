package main

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"
)

// collector computes at scrape time what would be stale otherwise. What is not known is absent.
type collector struct {
	guard *guard
	descs map[string]*prometheus.Desc
}

func newCollector(g *guard) *collector {
	c := &collector{guard: g, descs: map[string]*prometheus.Desc{}}
	add := func(name, help string, labels ...string) {
		c.descs[name] = prometheus.NewDesc(name, help, labels, nil)
	}
	add("outrider_wal_unshipped_age_seconds", "Upper bound for the age of the oldest commit that is not durable in the archive.")
	add("outrider_wal_unshipped_bytes", "WAL bytes that are flushed and not durable in the archive.")
	add("outrider_wal_not_flushed_bytes", "WAL bytes that are inserted and not flushed: asynchronous commits among them are not promised.")
	add("outrider_epoch", "The epoch under which this sidecar writes.")
	add("outrider_state", "1 for the state that holds.", "state")
	add("outrider_not_protected_since_timestamp_seconds", "Since when there is no way back, Unix time; absent while protected.")
	add("outrider_snapshot_newest_timestamp_seconds", "When the newest snapshot from which a restore could start was completed, whoever took it, Unix time.")
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := c.guard.report(context.Background())
	gauge := func(name string, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(c.descs[name], prometheus.GaugeValue, v, labels...)
	}
	gauge("outrider_state", 1, string(r.State))
	if r.AgeSeconds != nil {
		gauge("outrider_wal_unshipped_age_seconds", *r.AgeSeconds)
	}
	if r.Flushed != nil {
		gauge("outrider_wal_unshipped_bytes", float64(*r.UnshippedBytes))
		gauge("outrider_wal_not_flushed_bytes", float64(*r.AsyncBytes))
	}
	if r.Epoch != 0 {
		gauge("outrider_epoch", float64(r.Epoch))
	}
	if r.NotProtectedSince != nil {
		gauge("outrider_not_protected_since_timestamp_seconds", float64(r.NotProtectedSince.Unix()))
	}
	if s := r.LastSnapshot; s != nil {
		gauge("outrider_snapshot_newest_timestamp_seconds", float64(s.Taken.Unix()))
	}
}
