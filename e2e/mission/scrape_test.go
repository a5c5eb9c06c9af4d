//go:build e2e

package mission_test

import (
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
	"slices"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/monitoring/watch"
)

// scraped has a real Prometheus with the configuration of manifests/monitoring choose the database and the webhook among all pods of
// the cluster, and scrape them where they are.
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
	dir := t.TempDir()
	targets := filepath.Join(dir, "targets.json")
	if err := writeTargets(t.Context(), targets); err != nil {
		t.Fatal(err)
	}
	config := watch.Among(t, targets, `scrape_interval: 15s`, `scrape_interval: 5s`,
		`rule_files: \[rules.yaml, costs.yaml\]`, fmt.Sprintf("rule_files: [%s/rules.yaml, %s/costs.yaml]", monitoring, monitoring))
	file := filepath.Join(dir, "prometheus.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
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

// writeTargets writes what Prometheus' own client of Kubernetes, in the role pod, says of the ports of all pods, as far as
// manifests/monitoring asks for it. Where namespaces are named it says it of theirs alone. The file is replaced as a whole.
func writeTargets(ctx context.Context, file string, namespaces ...string) error {
	client, err := ground.Client()
	if err != nil {
		return err
	}
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	type target struct {
		Targets []string          `json:"targets"`
		Labels  map[string]string `json:"labels"`
	}
	var all []target
	for _, pod := range pods.Items {
		if pod.Status.PodIP == "" || len(namespaces) > 0 && !slices.Contains(namespaces, pod.Namespace) {
			continue
		}
		for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
			for _, port := range c.Ports {
				all = append(all, target{[]string{net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(int(port.ContainerPort)))}, map[string]string{
					"__meta_kubernetes_namespace": pod.Namespace, "__meta_kubernetes_pod_name": pod.Name,
					"__meta_kubernetes_pod_phase":                             string(pod.Status.Phase),
					"__meta_kubernetes_pod_container_port_name":               port.Name,
					"__meta_kubernetes_pod_label_app_kubernetes_io_component": pod.Labels["app.kubernetes.io/component"],
				}})
			}
		}
	}
	content, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", content, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
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
