package watch

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// heard remembers what would have failed a test.
type heard struct {
	testing.TB
	errors []string
}

func (h *heard) Errorf(format string, args ...any) {
	h.errors = append(h.errors, fmt.Sprintf(format, args...))
}

// An alert that nothing has provoked, and one that has not resolved, fail a test. Prometheus finds what plays the webhook among
// pods, and leaves out what is none and what has ended.
func TestWhatHasNotResolvedIsSaid(t *testing.T) {
	var says atomic.Value
	says.Store("")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintln(w, says.Load())
	}))
	t.Cleanup(s.Close)
	pod := func(name, phase, port string) string {
		return fmt.Sprintf(`{"targets": [%q], "labels": {"__meta_kubernetes_namespace": "outrider-system", "__meta_kubernetes_pod_name": %q, "__meta_kubernetes_pod_phase": %q,`+
			`"__meta_kubernetes_pod_container_port_name": %q, "__meta_kubernetes_pod_label_app_kubernetes_io_component": "webhook"}}`, strings.TrimPrefix(s.URL, "http://"), name, phase, port)
	}
	file := filepath.Join(t.TempDir(), "pods.json")
	pods := "[" + strings.Join([]string{pod("a", "Running", "metrics"), pod("b", "Running", "health"), pod("c", "Succeeded", "metrics")}, ",") + "]"
	must(t, os.WriteFile(file, []byte(pods), 0o600))

	p := StartAmong(t, file)
	p.Fires("OutriderWebhookDown")
	says.Store("outrider_webhook_config_last_reload_successful 0")
	p.Resolves("OutriderWebhookDown")
	p.Fires("OutriderWebhookConfigurationRefused")
	if found := p.Now("up"); len(found) != 1 || found[0].Labels["pod"] != "a" {
		t.Errorf("Prometheus scrapes %v", found)
	}

	h := &heard{TB: t}
	p.t = h
	p.AllHaveResolved(func(a Alert) bool {
		return a.Group == "outrider-webhook" && !strings.Contains(a.Expr, "outrider_audit_")
	})
	p.t = t
	said := strings.Join(h.errors, "\n")
	if len(h.errors) != 2 || !strings.Contains(said, "OutriderWebhookConfigurationRefused (warning) has fired and never resolved") ||
		!strings.Contains(said, "OutriderWebhookCertificateExpires (warning) has never fired") {
		t.Errorf("what is said of alerts is %q", said)
	}
}
