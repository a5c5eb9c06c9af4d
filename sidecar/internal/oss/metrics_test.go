package oss

import (
	"bytes"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/e2e/devcloud/devtest"
	devoss "outrider.dev/e2e/devcloud/oss"
	"outrider.dev/sidecar/internal/archive"
)

// metricValue is the sum of a counter over its labels.
func (b *Bucket) metricValue(t *testing.T, name string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	m := b.metrics
	reg.MustRegister(m.requests, m.seconds, m.retries, m.sent, m.received)
	return gathered(t, reg, name)
}

func gathered(t *testing.T, reg *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			matches := 0
			for _, l := range m.GetLabel() {
				for _, want := range labels {
					if l.GetValue() == want {
						matches++
					}
				}
			}
			if matches == len(labels) {
				sum += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func TestMetricsAndUsage(t *testing.T) {
	cloud := devtest.Start(t)
	reg := prometheus.NewRegistry()
	first := open(t, cloud, func(c *Config) { c.Registerer = reg })
	second := open(t, cloud, func(c *Config) { c.Registerer = reg }) // a process may open two roots
	cloud.SetFaults(devoss.Fault{Op: "put", Kind: devoss.Status, Status: 503, Count: 2})
	body := make([]byte, 1000)
	if err := first.Put(t.Context(), "k", body, archive.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := second.Put(t.Context(), "k", body, archive.PutOptions{}); err == nil {
		t.Fatal("created twice")
	}
	wantObject(t, second, "k", body)
	if _, err := first.Stat(t.Context(), "nothing"); err == nil {
		t.Fatal("found nothing")
	}
	for _, c := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"outrider_oss_requests_total", []string{"put", "ok"}, 1},
		{"outrider_oss_requests_total", []string{"put", "unavailable"}, 2},
		{"outrider_oss_requests_total", []string{"put", "exists"}, 1},
		{"outrider_oss_requests_total", []string{"get", "ok"}, 1},
		{"outrider_oss_requests_total", []string{"head", "not_found"}, 1},
		{"outrider_oss_retries_total", []string{"put"}, 2},
		{"outrider_oss_request_duration_seconds", []string{"put"}, 4},
		{"outrider_oss_sent_bytes_total", nil, 4000},
	} {
		if got := gathered(t, reg, c.name, c.labels...); got != c.want {
			t.Errorf("%s%v is %v, want %v", c.name, c.labels, got, c.want)
		}
	}
	if got := gathered(t, reg, "outrider_oss_received_bytes_total"); got < 1000 {
		t.Errorf("%v bytes received, want at least the 1000 of the object", got)
	}
	// Answers that are errors are not billed.
	if got := first.Usage(); got.PutRequests != 1 || got.GetRequests != 0 || got.Sent != 3000 {
		t.Errorf("usage of the first: %+v", got)
	}
	if got := second.Usage(); got.PutRequests != 0 || got.GetRequests != 1 || got.Received < 1000 {
		t.Errorf("usage of the second: %+v", got)
	}
}

// Whoever stores in a class with dearer requests pays for small objects as before, and for what is uploaded the price of
// that class.
func TestBilledRequestsHaveTheirClass(t *testing.T) {
	cloud := devtest.Start(t)
	reg := prometheus.NewRegistry()
	b := open(t, cloud, func(c *Config) { c.Registerer, c.StorageClass, c.PartSize = reg, "IA", minPartSize })
	if err := b.Put(t.Context(), "small", []byte("x"), archive.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	for name, size := range map[string]int{"short": 1000, "long": 3*minPartSize - 1} { // one request, and five
		if _, err := b.Upload(t.Context(), name, bytes.NewReader(make([]byte, size)), archive.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	wantObject(t, b, "short", make([]byte, 1000))
	for _, key := range []string{"small", "long"} {
		if _, err := b.Stat(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range b.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Remove(t.Context(), "short"); err != nil {
		t.Fatal(err)
	}
	for labels, want := range map[[2]string]float64{{"put", "Standard"}: 3, {"put", "IA"}: 6, {"get", "Standard"}: 1, {"get", "IA"}: 2} {
		if got := gathered(t, reg, "outrider_oss_billed_requests_total", labels[:]...); got != want {
			t.Errorf("%v requests of %v are billed, want %v", got, labels, want)
		}
	}
}
