package basebackup

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
)

// Metrics are what a Taker counts. What describes the last snapshot is absent until one was taken.
type Metrics struct {
	reg      prometheus.Registerer
	read     prometheus.Counter
	failures prometheus.Counter
	taken    prometheus.Counter
	running  prometheus.Gauge
	last     lastSnapshot
	known    sync.Once
}

type lastSnapshot struct {
	time, seconds, raw, stored, files, delta, badPages prometheus.Gauge
}

// NewMetrics makes and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "outrider_snapshot_" + name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "outrider_snapshot_" + name, Help: help})
	}
	m := &Metrics{
		reg:      reg,
		read:     counter("read_bytes_total", "Bytes of database files read for snapshots."),
		failures: counter("failures_total", "Snapshots that were begun and did not come to exist."),
		taken:    counter("taken_total", "Snapshots that were taken."),
		running:  gauge("running", "Snapshots being taken now."),
		last: lastSnapshot{
			time:     gauge("last_timestamp_seconds", "When the last snapshot became consistent, Unix time."),
			seconds:  gauge("last_duration_seconds", "How long the last snapshot took until it existed."),
			raw:      gauge("last_raw_bytes", "Size of the last snapshot before compression."),
			stored:   gauge("last_stored_bytes", "Size of the last snapshot in the archive."),
			files:    gauge("last_files", "Files in the last snapshot."),
			delta:    gauge("last_delta", "1 if the last snapshot holds only what changed since an earlier one, 0 if it is a full one."),
			badPages: gauge("last_bad_pages", "Pages with a wrong checksum in the last snapshot, at most 100; absent without checksums."),
		},
	}
	if reg != nil {
		reg.MustRegister(m.read, m.failures, m.taken, m.running)
	}
	return m
}

func (m *Metrics) succeeded(s archive.Manifest, took time.Duration) {
	m.taken.Inc()
	m.last.time.Set(float64(s.StopTime.UnixMicro()) / 1e6)
	m.last.seconds.Set(took.Seconds())
	m.last.raw.Set(float64(s.RawSize))
	m.last.stored.Set(float64(s.StoredSize))
	m.last.files.Set(float64(s.Files))
	m.last.delta.Set(0)
	if s.Delta != nil {
		m.last.delta.Set(1)
	}
	m.last.badPages.Set(float64(len(s.Checksums.Bad)))
	m.known.Do(func() {
		if m.reg == nil {
			return
		}
		m.reg.MustRegister(m.last.time, m.last.seconds, m.last.raw, m.last.stored, m.last.files, m.last.delta)
		if s.Checksums.Enabled {
			m.reg.MustRegister(m.last.badPages)
		}
	})
}
