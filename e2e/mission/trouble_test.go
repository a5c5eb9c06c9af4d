//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/oss"
)

// TestStorageAway takes OSS away under load. The database does not notice, and is protected again soon after.
func TestStorageAway(t *testing.T) {
	sharesNodes(t)
	storageAway(t, 90*time.Second)
}

func storageAway(t *testing.T, while time.Duration) {
	t.Helper()
	d := protect(t)
	stop := d.load()
	first := d.here()
	setFaults(t, oss.Fault{Prefix: d.prefix() + "/", Kind: oss.Status})
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
	setFaults(t)
	began := time.Now()
	d.untilProtected()
	d.note("protected again %.1f s after OSS came back", time.Since(began).Seconds())
	if pod := d.here(); restarts(pod, "postgres") != 0 || restarts(pod, "outrider") != 0 || pod.UID != first.UID {
		t.Error("something was started again")
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// faulty has what is wrong with OSS for each test: the stand-in takes all of it at once, and tests run side by side.
var faulty = struct {
	sync.Mutex
	by map[string][]oss.Fault
}{by: map[string][]oss.Fault{}}

// setFaults replaces what is wrong with OSS for this test, until it ends.
func setFaults(t *testing.T, faults ...oss.Fault) {
	t.Helper()
	if err := arm(t.Name(), faults); err != nil {
		t.Fatal(err)
	}
	after(t, func() {
		if err := arm(t.Name(), nil); err != nil {
			t.Error(err)
		}
	})
}

func arm(name string, faults []oss.Fault) error {
	faulty.Lock()
	defer faulty.Unlock()
	faulty.by[name] = faults
	return ground.cloud.SetFaults(slices.Concat(slices.Collect(maps.Values(faulty.by))...)...)
}

// TestPressure has the kubelet evict the pod for want of memory, which leaves it two seconds.
func TestPressure(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first, node := d.here(), d.node()
	available, err := memoryAvailable()
	if err != nil {
		t.Fatal(err)
	}
	cordon(t, node.Name)
	ended := d.witness(first)
	began := time.Now()
	err = node.RestartKubelet(map[string]any{"evictionHard": map[string]string{"memory.available": fmt.Sprintf("%dMi", available+2048)}})
	if err != nil {
		t.Fatal(err)
	}
	after(t, func() {
		if err := node.RestartKubelet(nil); err != nil {
			t.Error(err)
		}
		// Nothing is to be put there by the next scenario before the pressure is over.
		out, err := field.Kubectl(context.Background(), "wait", "--for=condition=MemoryPressure=False", "node/"+node.Name, "--timeout=180s").CombinedOutput()
		if err != nil {
			t.Errorf("kubectl wait: %v: %s", err, out)
		}
	})
	d.evicted(first, began, "The node was low on resource: memory")
	stop()
	d.honest(ended())
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
