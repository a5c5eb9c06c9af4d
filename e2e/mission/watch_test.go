//go:build e2e

package mission_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"outrider.dev/e2e/monitoring/watch"
)

// look starts a Prometheus that is in haste and follows the pods of these namespaces until the test's end.
func look(t *testing.T, namespaces ...string) *watch.Prometheus {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pods.json")
	if err := writeTargets(t.Context(), file, namespaces...); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var following sync.WaitGroup
	following.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(500 * time.Millisecond):
			}
			attempt, stop := context.WithTimeout(ctx, 5*time.Second)
			err := writeTargets(attempt, file, namespaces...)
			stop()
			if err != nil && ctx.Err() == nil {
				t.Logf("Prometheus is not told of pods that came and went, it is tried again: %v", err)
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		following.Wait()
	})
	return watch.StartAmong(t, file)
}

// audited tells whether an alert is about what the audit found, so that TestAuditAlerts has to provoke it. Others of the
// webhook's are for TestWebhookAlerts, and all the rest is for TestAlerts: there is none that nobody has to provoke.
func audited(a watch.Alert) bool { return strings.Contains(a.Expr, "outrider_audit_") }

func ofTheWebhook(a watch.Alert) bool { return a.Group == "outrider-webhook" && !audited(a) }

func ofDatabases(a watch.Alert) bool { return !audited(a) && !ofTheWebhook(a) }
