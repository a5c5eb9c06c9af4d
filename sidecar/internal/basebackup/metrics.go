package basebackup

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
)

// Metrics are what a Taker counts. What describes the last snapshot is absent until one was taken: vectors without
// labels.
type Metrics struct {
	read     prometheus.Counter
	failures prometheus.Counter
	taken    prometheus.Counter
	running  prometheus.Gauge
	last     lastSnapshot
}

type lastSnapshot struct {
	time, seconds, raw, stored, files, delta, changed, badPages *prometheus.GaugeVec
}

// NewMetrics makes and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		read: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_snapshot_read_bytes_total", Help: "Bytes of database files read for snapshots.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_snapshot_failures_total", Help: "Snapshots that were begun and did not come to exist.",
		}),
		taken: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "outrider_snapshot_taken_total", Help: "Snapshots that were taken.",
		}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "outrider_snapshot_running", Help: "Snapshots being taken now.",
		}),
		last: newLastSnapshot(),
	}
	if reg != nil {
		l := m.last
		reg.MustRegister(m.read, m.failures, m.taken, m.running, l.time, l.seconds, l.raw, l.stored, l.files, l.delta, l.changed, l.badPages)
	}
	return m
}

func newLastSnapshot() lastSnapshot {
	return lastSnapshot{
		time: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_timestamp_seconds", Help: "When the last snapshot of this process became consistent, Unix time.",
		}, nil),
		seconds: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_duration_seconds", Help: "How long the last snapshot took until it existed.",
		}, nil),
		raw: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_raw_bytes", Help: "Size of the last snapshot before compression.",
		}, nil),
		stored: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_stored_bytes", Help: "Size of the last snapshot in the archive.",
		}, nil),
		files: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_files", Help: "Files in the last snapshot.",
		}, nil),
		delta: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_delta", Help: "1 if the last snapshot holds only what changed since an earlier one, 0 if it is a full one.",
		}, nil),
		changed: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_changed_ratio", Help: "Share of the database's bytes that the last snapshot stored: 1 for a full one.",
		}, nil),
		badPages: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "outrider_snapshot_last_bad_pages", Help: "Pages with a wrong checksum in the last snapshot, at most 100; absent without checksums.",
		}, nil),
	}
}

func (m *Metrics) succeeded(s archive.Manifest, took time.Duration) {
	m.taken.Inc()
	set := func(g *prometheus.GaugeVec, v float64) { g.WithLabelValues().Set(v) }
	set(m.last.time, float64(s.StopTime.UnixMicro())/1e6)
	set(m.last.seconds, took.Seconds())
	set(m.last.raw, float64(s.RawSize))
	set(m.last.stored, float64(s.StoredSize))
	set(m.last.files, float64(s.Files))
	set(m.last.delta, 0)
	set(m.last.changed, 1)
	if d := s.Delta; d != nil {
		set(m.last.delta, 1)
		if d.DataBytes > 0 {
			set(m.last.changed, float64(d.ChangedBytes)/float64(d.DataBytes))
		}
	}
	m.last.badPages.Reset()
	if s.Checksums.Enabled {
		set(m.last.badPages, float64(len(s.Checksums.Bad)))
	}
}
