package evacuation

import (
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// trouble logs a failure that goes on once, then once a minute, and its end.
type trouble struct {
	log      *slog.Logger
	failures int
	said     time.Time
}

const sayEvery = time.Minute

func (t *trouble) failed(err error) {
	t.failures++
	if t.failures == 1 || time.Since(t.said) >= sayEvery {
		t.said = time.Now()
		t.log.Warn("the evacuation of this pod cannot be asked for, it is asked again", "error", err, "failures", t.failures)
	}
}

func (t *trouble) over() {
	if t.failures > 0 {
		t.log.Info("the evacuation of this pod is answered again", "failures", t.failures)
	}
	t.failures = 0
}

type metrics struct {
	calls *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{calls: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "outrider_evacuation_calls_total", Help: "Questions for the evacuation of this pod: answered, refused, or failed.",
	}, []string{"result"})}
	for _, r := range []string{"answered", "refused", "failed"} {
		m.calls.WithLabelValues(r)
	}
	if reg != nil {
		reg.MustRegister(m.calls)
	}
	return m
}
