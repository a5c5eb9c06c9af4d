package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/drain"
	"outrider.dev/sidecar/internal/wal"
	"outrider.dev/sidecar/policy"
)

// A zero where nothing is known would be taken for good news.
func TestUnknownMetricsAreAbsent(t *testing.T) {
	g := &guard{policy: policy.Policy{RPO: time.Second, RTO: time.Minute, Retention: time.Hour}, board: newBoard("oss://b/a", "test", nil), door: &door{}}
	g.journal = newGuard(runConfig{policy: g.policy}, &door{}, nil).journal
	reg := prometheus.NewRegistry()
	reg.MustRegister(newCollector(g))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		got = append(got, f.GetName())
	}
	want := []string{
		"outrider_archive_info", "outrider_build_info", "outrider_recovery_window_target_seconds", "outrider_rpo_target_seconds",
		"outrider_rto_target_seconds", "outrider_state",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metrics of a sidecar that has met no server (-want +got):\n%s", d)
	}
}

func TestFlowIsAnAverageOfTheLastMinutes(t *testing.T) {
	var f flow
	now := time.Now()
	at := func(after time.Duration, pos wal.LSN) float64 { return f.rate(now.Add(after), pos) }
	if r := at(0, 1000); r != 0 {
		t.Errorf("the rate is known at once: %v", r)
	}
	if r := at(time.Second, 2000); r != 0 {
		t.Errorf("the rate is known after a second: %v", r)
	}
	if r := at(10*time.Second, 2000); r != 100 {
		t.Errorf("1000 bytes in 10 s are %v a second", r)
	}
	for s := 20; s <= 3600; s += 10 {
		at(time.Duration(s)*time.Second, 2000)
	}
	if r := at(2*time.Hour, 2000); r != 0 {
		t.Errorf("nothing was written for long, the rate is %v", r)
	}
	if n := len(f.seen); n > int(flowSpan/flowStep)+2 {
		t.Errorf("%d positions are remembered", n)
	}
}

func TestEachPhaseOfAStopIsTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard("", "", nil)
		b.set(stateProtected, "")
		b.prepared(drain.Outcome{Took: 5 * time.Second, Checkpoint: 3})
		b.postgresStops()
		time.Sleep(time.Second)
		b.postgresStops() // it is seen again and again
		time.Sleep(time.Second)
		b.set(stateStopping, "")
		before := b.snapshot().StopPhases
		time.Sleep(4 * time.Second)
		b.set(stateStopped, "")
		want := map[string]float64{"checkpoint": 3, "flush": 2, "postgres": 2, "finish": 4}
		if d := cmp.Diff(want, b.snapshot().StopPhases); d != "" {
			t.Error(d)
		}
		if _, changed := before["finish"]; changed {
			t.Error("a report that was given away has changed")
		}
	})
}
