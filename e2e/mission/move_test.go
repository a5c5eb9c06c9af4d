//go:build e2e

package mission_test

import (
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
)

// TestOrders is a database without a volume: it starts, is deleted, is reclaimed with its node, and has everything each time.
func TestOrders(t *testing.T) {
	d := protect(t, "testdata/orders", "shop", "orders-0", "prod/shop/orders-0")
	stop := d.load()
	first, err := d.ready(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	t.Log("the pod is deleted on", first.Spec.NodeName)
	began := time.Now()
	kubectl(t, "cordon", first.Spec.NodeName)
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	gone := time.Now()
	d.write()
	t.Logf("gone after %.1f s, first write %.1f s later", gone.Sub(began).Seconds(), time.Since(gone).Seconds())
	second, err := d.object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if second.Spec.NodeName == first.Spec.NodeName || second.UID == first.UID {
		t.Errorf("it came back on %s", second.Spec.NodeName)
	}
	if receipt := d.receipt(1); receipt["clean"] != true {
		t.Errorf("the receipt of an orderly stop: %v", receipt)
	}
	stop()
	report := d.judge(ledger.Options{})
	t.Logf("%d of %d rows", report.Present, report.Acknowledged)
}
