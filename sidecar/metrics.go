package main

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/policy"
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
	add("outrider_build_info", "1 for the version of the program that runs.", "version", "go_version")
	add("outrider_archive_info", "1 for the root of this database in the archive; absent for a clone that is not archived.", "archive")
	add("outrider_state", "1 for the state that holds, 0 for the others.", "state")
	add("outrider_not_protected_since_timestamp_seconds", "Since when there is no way back, Unix time; absent while protected.")
	add("outrider_epoch", "The epoch under which this sidecar writes.")
	add("outrider_epoch_confirmed_timestamp_seconds", "When the archive was last asked and said that no other writer has taken over, Unix time.")

	add("outrider_rpo_target_seconds", "The policy's target for the age of commits that are not durable in the archive.")
	add("outrider_wal_unshipped_age_seconds", "Upper bound for the age of the oldest commit that is not durable in the archive.")
	add("outrider_wal_unshipped_bytes", "WAL bytes that are flushed and not durable in the archive.")
	add("outrider_wal_not_flushed_bytes", "WAL bytes that are inserted and not flushed: asynchronous commits among them are not promised.")
	add("outrider_wal_backlog_bytes", "WAL bytes that Postgres has to keep for the archive.")
	add("outrider_wal_backlog_limit_bytes", "The policy's max-wal-backlog; absent if there is none.")
	add("outrider_wal_disk_available_bytes", "Free bytes of the file system that pg_wal is on.")
	add("outrider_wal_disk_full_seconds",
		"Time until the file system of pg_wal is full if the archive takes nothing more, at the rate of the last ten minutes; absent while no WAL is written.")

	add("outrider_rto_target_seconds", "The policy's target for the time that a recovery takes.")
	add("outrider_oss_request_budget_day", "The policy's budget of billed requests a day; absent if there is none.")
	add("outrider_flush_interval_seconds", "Time from one flush to the next under load, as it is for the budget of requests; absent if there is none.")
	add("outrider_rto_predicted_seconds", "How long a restore would take now, from its start to the first write.")
	add("outrider_recovery_window_target_seconds", "The policy's retention.")
	add("outrider_recovery_window_start_timestamp_seconds", "The earliest moment that can be restored on this line of history, Unix time.")
	add("outrider_snapshots", "Snapshots that a restore could begin with.")
	add("outrider_snapshot_newest_timestamp_seconds", "When the newest snapshot that a restore could begin with was completed, whoever took it, Unix time.")
	add("outrider_snapshot_newest_raw_bytes", "Size of the newest snapshot before compression.")

	add("outrider_drill_due_timestamp_seconds", "When a restore drill has to have been passed at the latest, Unix time; absent without drill-max-age.")
	add("outrider_drill_last_timestamp_seconds", "When the newest restore drill came to its verdict, Unix time; like all of drills absent without drill-max-age, or a drill.")
	add("outrider_drill_last_passed", "1 if the newest restore drill was passed, 0 if it was not.")
	add("outrider_drill_last_success_timestamp_seconds", "When a restore drill was last passed, Unix time.")
	add("outrider_drill_last_verified_lsn_bytes", "Position up to which the last restore drill that was passed had replayed, as a byte number.")
	add("outrider_drill_last_restore_duration_seconds", "How long it took in that drill until the restored server answered.")

	add("outrider_archive_objects",
		"Objects in the archive by kind: snapshot, segment (of WAL), chunk (WAL not in a segment yet), record (claims, receipts, journal).", "kind", "storage_class")
	add("outrider_archive_bytes", "Size of the objects in the archive, by the same kinds. What unfinished uploads hold is not in it.", "kind", "storage_class")
	add("outrider_archive_counted_timestamp_seconds", "When the archive was last listed, Unix time; what was stored since then is added.")

	add("outrider_stop_phase_duration_seconds", "How long each phase of the last stop, or preparation for one, took: checkpoint, flush, postgres, finish.", "phase")
	add("outrider_restore_phase_duration_seconds",
		"How long each phase of the restore took that this server came out of: snapshot, prepare, replay.", "phase")
	add("outrider_restore_finished_timestamp_seconds", "When the restore was seen to be over that this server came out of, Unix time.")
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// scrape is what one answer is made of.
type scrape struct {
	*collector
	ch chan<- prometheus.Metric
}

func (s scrape) gauge(name string, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(s.descs[name], prometheus.GaugeValue, v, labels...)
}

// bytes and seconds leave out what is not known.
func (s scrape) bytes(name string, v *int64) {
	if v != nil {
		s.gauge(name, float64(*v))
	}
}

func (s scrape) seconds(name string, v *float64) {
	if v != nil {
		s.gauge(name, *v)
	}
}

func (s scrape) time(name string, at *time.Time) {
	if at != nil && !at.IsZero() {
		s.gauge(name, float64(at.UnixMilli())/1e3)
	}
}

// Collect implements prometheus.Collector. It asks the server one cheap question and the archive none.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := c.guard.report(context.Background())
	s := scrape{collector: c, ch: ch}
	s.gauge("outrider_build_info", 1, r.Version, runtime.Version())
	if s.guard.policy.Archiving != policy.Off { // a throw-away clone may go as it pleases
		s.gauge("outrider_archive_info", 1, r.Archive)
	}
	s.protection(r)
	s.targets()
	s.seconds("outrider_wal_unshipped_age_seconds", r.AgeSeconds)
	s.bytes("outrider_wal_unshipped_bytes", r.UnshippedBytes)
	s.bytes("outrider_wal_not_flushed_bytes", r.AsyncBytes)
	s.bytes("outrider_wal_backlog_bytes", r.Backlog)
	s.bytes("outrider_wal_disk_available_bytes", r.DiskFree)
	s.seconds("outrider_wal_disk_full_seconds", r.DiskFull)
	s.seconds("outrider_rto_predicted_seconds", r.PredictedRestore)
	s.time("outrider_recovery_window_start_timestamp_seconds", r.RecoverableFrom)
	if r.Snapshots != nil {
		s.gauge("outrider_snapshots", float64(*r.Snapshots))
	}
	if l := r.LastSnapshot; l != nil {
		s.time("outrider_snapshot_newest_timestamp_seconds", &l.Taken)
		s.bytes("outrider_snapshot_newest_raw_bytes", &l.Raw)
	}
	s.drills(r.Drills)
	s.holdings()
	for phase, v := range r.StopPhases {
		s.gauge("outrider_stop_phase_duration_seconds", v, phase)
	}
	if a := r.Restored; a != nil {
		for phase, v := range a.Phases {
			s.gauge("outrider_restore_phase_duration_seconds", v, phase)
		}
		s.time("outrider_restore_finished_timestamp_seconds", &a.Finished)
	}
}

func (s scrape) protection(r statusReport) {
	for _, state := range allStates() {
		v := 0.0
		if state == r.State {
			v = 1
		}
		s.gauge("outrider_state", v, string(state))
	}
	s.time("outrider_not_protected_since_timestamp_seconds", r.NotProtectedSince)
	if r.Epoch != 0 {
		s.gauge("outrider_epoch", float64(r.Epoch))
	}
	s.time("outrider_epoch_confirmed_timestamp_seconds", r.EpochConfirmed)
}

func (s scrape) targets() {
	p := s.guard.policy
	s.gauge("outrider_rpo_target_seconds", p.RPO.Seconds())
	s.gauge("outrider_rto_target_seconds", p.RTO.Seconds())
	if p.RequestBudget > 0 {
		s.gauge("outrider_oss_request_budget_day", float64(p.RequestBudget))
		s.gauge("outrider_flush_interval_seconds", s.guard.pace().Seconds())
	}
	s.gauge("outrider_recovery_window_target_seconds", p.Retention.Seconds())
	if limit := p.MaxWALBacklog.Bytes; limit > 0 {
		s.gauge("outrider_wal_backlog_limit_bytes", float64(limit))
	}
}

func (s scrape) holdings() {
	c := s.guard.door.counts()
	c.each(func(kind objectKind, class string, h holding) {
		s.gauge("outrider_archive_objects", float64(h.objects), string(kind), class)
		s.gauge("outrider_archive_bytes", float64(h.bytes), string(kind), class)
	})
	at := c.counted()
	s.time("outrider_archive_counted_timestamp_seconds", &at)
}
