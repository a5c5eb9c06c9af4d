package monitoring_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"outrider.dev/e2e/monitoring/watch"
)

// playWebhook plays what Prometheus sees of a healthy webhook, which needs a cluster to run in, for the sake of the
// dashboard. The real one's metrics, and the alerts on them, are looked at in e2e/monitoring/admission.
func playWebhook(t *testing.T) (url string) {
	t.Helper()
	const text = `outrider_webhook_config_last_reload_successful 1
outrider_audit_pods{namespace="shop",state="protected"} 2
outrider_audit_pods{namespace="shop",state="suspected"} 0
outrider_audit_pods{namespace="shop",state="refused"} 0
outrider_audit_waiting_workloads{namespace="shop"} 0
outrider_audit_blocking_budgets{namespace="shop"} 0
outrider_evacuation_requests_total{outcome="evicted"} 1
outrider_evacuation_pods_total{how="evicted"} 1
outrider_webhook_admissions_total{resource="pods",decision="changed",reason=""} 5
`
	if unknown := watch.Undocumented(t, text); len(unknown) > 0 {
		t.Fatalf("README.md has no %v", unknown)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprint(w, text)
	}))
	t.Cleanup(s.Close)
	return s.URL
}
