//go:build e2e

package mission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"outrider.dev/e2e/monitoring/watch"
)

// scraped has a real Prometheus with the configuration of manifests/monitoring find the database and the webhook by way of the API
// server, and scrape them where they are. It differs in two things: it runs outside of the cluster, so that it is told where the
// API server is, and it scrapes more often.
func scraped(t *testing.T, d *database) {
	t.Helper()
	address := startPrometheus(t)
	for what, query := range map[string]string{
		"the database": fmt.Sprintf(`outrider_wal_unshipped_age_seconds{job="outrider",namespace=%q,pod=%q}`, d.namespace, d.pod),
		"the webhook":  `sum(outrider_webhook_admissions_total{job="outrider-webhook",namespace="outrider-system",resource="pods"}) > 0`,
		// The containers of one pod are scraped once, by the port of that name.
		"one target": fmt.Sprintf(`count(up{job="outrider",namespace=%q} == 1) == 1`, d.namespace),
	} {
		until(t, "Prometheus to have scraped "+what, func(ctx context.Context) error {
			series, err := ask(ctx, address, query)
			if err == nil && len(series) != 1 {
				err = fmt.Errorf("%s has %d answers", query, len(series))
			}
			return err
		})
	}
}

// startPrometheus starts one until the test's end, and returns its address.
func startPrometheus(t *testing.T) string {
	t.Helper()
	monitoring := filepath.Join(watch.Repository(t), "manifests", "monitoring")
	config, err := os.ReadFile(filepath.Join(monitoring, "prometheus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{
		{"kubernetes_sd_configs: [{", "kubernetes_sd_configs: [{kubeconfig_file: " + field.Kubeconfig() + ", "},
		{"scrape_interval: 15s", "scrape_interval: 5s"},
		{"rule_files: [rules.yaml, costs.yaml]", fmt.Sprintf("rule_files: [%s/rules.yaml, %s/costs.yaml]", monitoring, monitoring)},
	} {
		if !bytes.Contains(config, []byte(change[0])) {
			t.Fatalf("manifests/monitoring/prometheus.yaml has no %q", change[0])
		}
		config = bytes.ReplaceAll(config, []byte(change[0]), []byte(change[1]))
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cmd := exec.Command(watch.Tool(t, "prometheus"), "--config.file="+file, "--web.listen-address="+address,
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--log.level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // it ends by a signal
		if t.Failed() {
			t.Logf("Prometheus said: %s", log.String())
		}
	})
	return address
}

// ask asks Prometheus a query.
func ask(ctx context.Context, address, query string) ([]json.RawMessage, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/api/v1/query?"+url.Values{"query": {query}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	var said struct {
		Data struct{ Result []json.RawMessage }
	}
	if err := json.Unmarshal(content, &said); err != nil || answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", answer.Status, content)
	}
	return said.Data.Result, nil
}
