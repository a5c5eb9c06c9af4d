//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// TestSizeLimit has the kubelet evict the pod because its volume holds more than it may, which leaves it two seconds. What
// fills the volume is a table that is not logged: it is empty after a restore, so that the next pod is within the limit.
func TestSizeLimit(t *testing.T) {
	t.Parallel()
	d := settle(t, "testdata/limited")
	stop := d.load()
	first := d.here()
	began := time.Now()
	d.exec("CREATE UNLOGGED TABLE filler AS SELECT repeat('x', 1000) AS content FROM generate_series(1, 400000)")
	kill := d.evicted(first, began)
	if events := kubectl(t, "-n", d.namespace, "get", "events"); !strings.Contains(events, "EmptyDir volume \"data\" exceeds the limit") {
		t.Errorf("the eviction was for something else:\n%s", events)
	}
	d.untilProtected()
	stop()
	d.honest(kill)
	if n := query[int](d, "SELECT count(*) FROM filler"); n != 0 {
		t.Errorf("the table that is not logged has %d rows after a restore", n)
	}
}

// evicted waits until the kubelet has evicted the pod, which it does to spare its node, and the database accepts writes in
// another one. It returns when that was seen.
func (d *database) evicted(first *corev1.Pod, began time.Time) ledger.Instant {
	d.t.Helper()
	d.until("the eviction", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		if err == nil && pod.UID == first.UID && pod.Status.Reason != "Evicted" {
			err = errors.New("it was not evicted")
		}
		return err
	})
	kill, err := d.ledger.MarkKill()
	if err != nil {
		d.t.Fatal(err)
	}
	d.replaced(first, began)
	return kill
}

// honest judges, once the load has ended, after an end that left no time for an orderly stop: the receipt may only say clean
// if nothing is lost, and else nothing older than the target is.
func (d *database) honest(kill ledger.Instant) {
	d.t.Helper()
	clean := d.receipt(1)["clean"] == true
	rpo := world.Judged()
	if clean {
		rpo = 0
	}
	report := d.judge(ledger.Options{Kill: kill, RPO: rpo})
	d.t.Logf("clean: %v; %d of %d rows", clean, report.Present, report.Acknowledged)
}
