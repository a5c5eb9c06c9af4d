package main

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
	"outrider.dev/sidecar/internal/archive/archivetest"
	"outrider.dev/sidecar/policy"
)

// drillValues are what is published of drills, by metric without its prefix. Times are hours since the start.
func drillValues(t *testing.T, v *voyage, start time.Time) map[string]float64 {
	t.Helper()
	g := newGuard(runConfig{policy: policy.Policy{Archive: "oss://b/orders"}, pgdata: t.TempDir(), log: v.log}, &door{}, nil)
	g.board.update(func(r *statusReport) { r.Drills = v.board.snapshot().Drills })
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(g))
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range all {
		name, ours := strings.CutPrefix(f.GetName(), "outrider_drill_")
		if !ours {
			continue
		}
		value := f.GetMetric()[0].GetGauge().GetValue()
		if strings.HasSuffix(name, "timestamp_seconds") {
			value = time.UnixMilli(int64(value * 1e3)).Sub(start).Hours()
		}
		values[name] = value
	}
	return values
}

// A sidecar whose policy expects drills reads what others have recorded: within minutes, and with a request for a listing
// four times an hour. One whose policy does not, asks for nothing and publishes nothing.
func TestDrillsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := archivetest.Memory()
		v := idleVoyage(t, b)
		start := time.Now()
		var requests atomic.Int64
		b.Fault(func(string, string) error { requests.Add(1); return nil })
		if err := v.watchDrills(t.Context()); err != nil || requests.Load() != 0 || v.board.snapshot().Drills != nil {
			t.Fatalf("without drill-max-age: %v, %d requests", err, requests.Load())
		}
		v.policy.DrillMaxAge = 24 * time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.watchDrills(ctx) }()
		wants := func(when string, want map[string]float64) {
			t.Helper()
			synctest.Wait()
			if diff := cmp.Diff(want, drillValues(t, v, start)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		record := func(d archive.Drill) {
			t.Helper()
			d.VerifiedAt = time.Now()
			if _, err := v.arch.RecordDrill(t.Context(), d); err != nil {
				t.Fatal(err)
			}
		}
		wants("before the first drill", map[string]float64{"due_timestamp_seconds": 24})

		record(archive.Drill{Failure: "the first"})
		time.Sleep(time.Hour)
		record(archive.Drill{Passed: true, LSN: 0x3000028, ReadySeconds: 12.5})
		time.Sleep(time.Hour)
		passed := map[string]float64{
			"due_timestamp_seconds": 25, "last_timestamp_seconds": 1, "last_passed": 1, "last_success_timestamp_seconds": 1,
			"last_verified_lsn_bytes": 0x3000028, "last_restore_duration_seconds": 12.5,
		}
		wants("after a drill that was passed", passed)

		record(archive.Drill{Failure: "part_001 is damaged"})
		time.Sleep(drillInterval)
		passed["last_timestamp_seconds"], passed["last_passed"] = 2, 0
		wants("after one that was not", passed)
		if d := v.board.snapshot().Drills; d.overdue(time.Now()) || d.Last.Failure != "part_001 is damaged" {
			t.Errorf("the status is %+v", d)
		}

		time.Sleep(drillInterval / 2) // between two looks, not at the same instant as one
		requests.Store(0)
		time.Sleep(24 * time.Hour)
		synctest.Wait() // for what the last tick does
		if n, want := requests.Load(), int64(24*time.Hour/drillInterval); n != want {
			t.Errorf("a day without a drill cost %d requests, want %d", n, want)
		}
		if !v.board.snapshot().Drills.overdue(time.Now()) {
			t.Error("a day later no drill is overdue")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What cannot be read is not taken for "none": the last word stands until the archive answers. After a restart the last
// drill that was passed is found behind others.
func TestDrillsThatCannotBeRead(t *testing.T) {
	b := archivetest.Memory()
	v := idleVoyage(t, b)
	v.policy.DrillMaxAge = time.Hour
	said := &strings.Builder{}
	v.log = slog.New(slog.NewTextHandler(said, nil))
	at := time.Now().UTC().Truncate(time.Second).Add(time.Minute)
	for i, d := range []archive.Drill{{Passed: true, LSN: 1}, {Passed: true, LSN: 2}, {Failure: "x"}, {Failure: "y"}} {
		d.VerifiedAt = at.Add(time.Duration(i) * time.Hour)
		if _, err := v.arch.RecordDrill(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	b.Fault(func(string, string) error { return errStore })
	if err := v.readDrills(t.Context()); err == nil || v.board.snapshot().Drills != nil {
		t.Fatalf("the store is away: %v", err)
	}
	b.Fault(nil)
	if err := b.Put(t.Context(), "outrider/drills/99990101t000000.000000z.json", []byte("{"), archive.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := v.readDrills(t.Context()); err != nil {
		t.Fatal(err)
	}
	d := v.board.snapshot().Drills
	if d.Last.Failure != "y" || d.Passed.LSN != 2 || !d.Due.Equal(at.Add(2*time.Hour)) {
		t.Errorf("read are %+v and %+v, due at %s", d.Last, d.Passed, d.Due)
	}
	if key := at.Add(3 * time.Hour).Format("20060102t150405"); !strings.Contains(said.String(), "not passed\" object=outrider/drills/"+key) {
		t.Errorf("the log does not name %s, which was not passed:\n%s", key, said)
	}
	d.Due = time.Now()
	var text strings.Builder
	d.text(&text)
	for _, words := range []string{"NOT PASSED\t" + timeText(at.Add(3*time.Hour)) + ": y", "OVERDUE"} {
		if !strings.Contains(text.String(), words) {
			t.Errorf("outrider status does not say %q:\n%s", words, &text)
		}
	}
}
