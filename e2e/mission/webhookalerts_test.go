//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/monitoring/watch"
)

// TestWebhookAlerts has each alert on the webhook itself fire and resolve: it is away, comes back with certificates that live
// for an hour, gets a configuration that is wrong, and is mended. No other scenario may need it meanwhile.
func TestWebhookAlerts(t *testing.T) {
	ours(t, "takes the webhook away")
	p := look(t, "outrider-system")
	good := configuration(t)
	after(t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		if err := ground.install(ctx); err != nil {
			t.Error(err)
		}
	})
	renewWebhook(t, p, good+"certificates: {ca: 2h, server: 1h, settle: 1s}\n", func() { p.Fires("OutriderWebhookDown") })
	p.Resolves("OutriderWebhookDown")
	p.Fires("OutriderWebhookCertificateExpires")

	configure(t, good+"nonsense: true\n")
	p.Fires("OutriderWebhookConfigurationRefused")
	configure(t, good)
	p.Resolves("OutriderWebhookConfigurationRefused")

	renewWebhook(t, p, good, func() {})
	p.Resolves("OutriderWebhookCertificateExpires")
	p.AllHaveResolved(ofTheWebhook)
}

// configuration is the one that the webhook is installed with.
func configuration(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("testdata/install/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// configure changes the webhook's configuration. The kubelet looks for it when something about a pod changes: it would take a
// minute otherwise.
func configure(t *testing.T, content string) {
	t.Helper()
	client, err := field.Client()
	if err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps("outrider-system")
	m, err := maps.Get(t.Context(), "outrider-webhook", metav1.GetOptions{})
	if err == nil {
		m.Data["config.yaml"] = content
		_, err = maps.Update(t.Context(), m, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", "outrider-system", "annotate", "pods", "-l", "app.kubernetes.io/component=webhook",
		fmt.Sprintf("configured=%d", time.Now().UnixNano()), "--overwrite")
}

// renewWebhook takes the webhook away, for as long as meanwhile takes, and brings it back with this configuration and, as the
// runbook says, new certificates.
func renewWebhook(t *testing.T, p *watch.Prometheus, config string, meanwhile func()) {
	t.Helper()
	const deployment = "deployment/outrider-webhook"
	kubectl(t, "-n", "outrider-system", "scale", deployment, "--replicas=0")
	kubectl(t, "-n", "outrider-system", "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=webhook", "--timeout=120s")
	meanwhile()
	configure(t, config)
	kubectl(t, "-n", "outrider-system", "patch", "secret", "outrider-webhook-tls", "--type=json", "-p", `[{"op":"remove","path":"/data"}]`)
	kubectl(t, "-n", "outrider-system", "scale", deployment, "--replicas=2")
	kubectl(t, "-n", "outrider-system", "rollout", "status", deployment, "--timeout=120s")
	until(t, "both replicas to be scraped", func(context.Context) error {
		if n := len(p.Now("outrider_webhook_config_last_reload_successful == 1")); n != 2 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
}
