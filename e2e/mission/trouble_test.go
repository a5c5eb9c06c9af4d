//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/oss"
)

// TestStorageAway takes OSS away under load. The database does not notice, and is protected again soon after.
func TestStorageAway(t *testing.T) {
	t.Parallel()
	storageAway(t, 90*time.Second)
}

func storageAway(t *testing.T, while time.Duration) {
	t.Helper()
	d := protect(t)
	stop := d.load()
	first := d.here()
	if err := field.Cloud.OSS.SetFaults(oss.Fault{Prefix: d.prefix() + "/", Kind: oss.Status}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = field.Cloud.OSS.SetFaults() })
	until(t, "the sidecar to say that it is in trouble", func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err == nil && status["trouble"] == nil {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
	timer := time.NewTimer(while)
	defer timer.Stop()
	<-timer.C
	d.advances()
	if err := field.Cloud.OSS.SetFaults(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d.untilProtected()
	t.Logf("protected again %.1f s after OSS came back", time.Since(began).Seconds())
	if pod := d.here(); restarts(pod, "postgres") != 0 || restarts(pod, "outrider") != 0 || pod.UID != first.UID {
		t.Error("something was started again")
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// TestPressure has the kubelet evict the pod for want of memory, which leaves it two seconds.
func TestPressure(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first, node := d.here(), d.node()
	available, err := memoryAvailable()
	if err != nil {
		t.Fatal(err)
	}
	cordon(t, node.Name)
	began := time.Now()
	err = node.RestartKubelet(map[string]any{"evictionHard": map[string]string{"memory.available": fmt.Sprintf("%dMi", available+2048)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.RestartKubelet(nil); err != nil {
			t.Error(err)
		}
		// Nothing is to be put there by the next scenario before the pressure is over.
		out, err := field.Kubectl(context.Background(), "wait", "--for=condition=MemoryPressure=False", "node/"+node.Name, "--timeout=60s").CombinedOutput()
		if err != nil {
			t.Errorf("kubectl wait: %v: %s", err, out)
		}
	})
	kill := d.evicted(first, began)
	stop()
	d.honest(kill)
}

// memoryAvailable is how much memory the host has left, in MiB.
func memoryAvailable() (int, error) {
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(content)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); n == 1 {
			return kib / 1024, nil
		}
	}
	return 0, errors.New("/proc/meminfo does not say what is available")
}
