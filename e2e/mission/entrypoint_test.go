//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestEntrypoint takes the pod away while the image's entrypoint, a shell, is process 1 and has its temporary server run a
// script. It has less time than the script needs. Nothing of that may count as the database: the next pod begins anew, and
// runs the whole script.
func TestEntrypoint(t *testing.T) {
	sharesNodes(t)
	d := setUp(t, "testdata/seeded", spaceOf(t))
	d.until("the script to run", func(ctx context.Context) error {
		out, err := ground.Kubectl(ctx, "-n", d.namespace, "logs", d.pod, "-c", "postgres").CombinedOutput()
		if err == nil && !strings.Contains(string(out), "seed.sql") {
			err = fmt.Errorf("%s", out)
		}
		return err
	})
	first, err := d.object(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--grace-period=5", "--wait=false")
	d.untilGone(string(first.UID))
	d.untilProtected()
	if epoch := d.epoch(); epoch != 1 {
		t.Errorf("the first server that was protected has epoch %d: what was not finished has got into the archive", epoch)
	}
	if names := query[string](d, "SELECT string_agg(name, ' ' ORDER BY name) FROM seed"); names != "begun done" {
		t.Errorf("the script has left %q", names)
	}
	stop := d.load()
	second := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(second, began)
	d.provenClean(1)
	stop()
	d.nothingLost()
	if names := query[string](d, "SELECT string_agg(name, ' ' ORDER BY name) FROM seed"); names != "begun done" {
		t.Errorf("after a restore there is %q", names)
	}
}
