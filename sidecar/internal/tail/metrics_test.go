package tail

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetricsOutliveATailer(t *testing.T) {
	bubble(t, func(t *testing.T, dir string) {
		reg := prometheus.NewRegistry()
		w := &world{t: t, dir: dir}
		w.pos = at(0x1500000)
		for i := range 2 {
			cfg, err := Config{Dir: dir, Size: segmentSize, Server: w, Registerer: reg}.check()
			if err != nil {
				t.Fatal(err)
			}
			tl := newTailer(cfg, notifier{})
			if n := testutil.CollectAndCount(reg, "outrider_wal_flushed_lsn_bytes"); n != i {
				t.Errorf("Tailer %d: %d positions before the server was asked", i, n)
			}
			next(t, tl, 0, 0x1500000)
		}
		families, err := reg.Gather()
		if err != nil || len(families) != 4 {
			t.Fatalf("%d metrics: %v", len(families), err)
		}
		for _, f := range families {
			if v := f.GetMetric()[0]; f.GetName() == "outrider_tail_queries_total" && v.GetCounter().GetValue() != 2 {
				t.Errorf("two Tailers asked %v times", v.GetCounter().GetValue())
			}
		}
		problems, err := testutil.GatherAndLint(reg)
		if err != nil || len(problems) > 0 {
			t.Errorf("%v %v", problems, err)
		}
	})
}
