package monitoring_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// webhookPart plays what Prometheus sees of a webhook, which needs a cluster to run in. Its metrics are those in README.
type webhookPart struct {
	mu     sync.Mutex
	values map[string]float64
	begun  time.Time
}

func playWebhook(t *testing.T) (*webhookPart, *httptest.Server) {
	t.Helper()
	w := &webhookPart{begun: time.Now(), values: map[string]float64{
		"outrider_webhook_config_last_reload_successful":                                  1,
		`outrider_webhook_certificate_expiry_timestamp_seconds{certificate="server"}`:     float64(time.Now().AddDate(1, 0, 0).Unix()),
		`outrider_audit_pods{namespace="shop",state="protected"}`:                         2,
		`outrider_audit_pods{namespace="shop",state="unprotected"}`:                       0,
		`outrider_audit_waiting_workloads{namespace="shop"}`:                              0,
		`outrider_evacuation_requests_total{outcome="evicted"}`:                           1,
		`outrider_evacuation_pods_total{how="evicted"}`:                                   1,
		`outrider_webhook_admissions_total{resource="pods",decision="changed",reason=""}`: 5,
	}}
	if unknown := unknownMetrics(t, w.text()); len(unknown) > 0 {
		t.Fatalf("README.md has no %v", unknown)
	}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	return w, s
}

func (w *webhookPart) set(series string, v float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.values[series]; !known {
		panic(series)
	}
	w.values[series] = v
}

func (w *webhookPart) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for series, v := range w.values {
		fmt.Fprintf(&b, "%s %f\n", series, v)
	}
	return b.String()
}

// ServeHTTP implements http.Handler.
func (w *webhookPart) ServeHTTP(a http.ResponseWriter, _ *http.Request) {
	a.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprint(a, w.text())
}
