//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// TestZero scales a database without a volume to zero, twice, under load. Nothing is left of it in the cluster, and later
// everything is there.
func TestZero(t *testing.T) {
	sharesNodes(t)
	d := settle(t, "testdata/orders")
	stop := d.load()
	for epoch := 1; epoch <= 2; epoch++ {
		first := d.here()
		began := time.Now()
		d.scale(0)
		d.note("no pod after %.1f s", time.Since(began).Seconds())
		d.provenClean(epoch)
		if left := d.volumes(); len(left) > 0 {
			t.Errorf("there are volumes: %v", left)
		}
		until(t, "the disk of "+first.Spec.NodeName+" to be free of it", func(ctx context.Context) error {
			if field == nil {
				return nil // nobody lets us look at it
			}
			found, err := field.Node(first.Spec.NodeName).Run(ctx, "/usr/bin/find", "/var/lib/kubelet/pods/", "-name", "PG_VERSION", "-path", "*"+string(first.UID)+"*")
			if err == nil && len(found) > 0 {
				err = fmt.Errorf("%s", found)
			}
			return err
		})
		began = time.Now()
		d.scale(1)
		d.up(began, began)
		d.untilProtected()
	}
	stop()
	d.nothingLost()
}
