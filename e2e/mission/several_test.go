//go:build e2e

package mission_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestNoticeSeveral reclaims a node with three databases on it. One has a disruption budget that never lets it go.
func TestNoticeSeveral(t *testing.T) {
	takesNode(t)
	node, other := laneNodes(t)[0], laneNodes(t)[1]
	cordon(t, other.Name)
	var all []*database
	for i := range 3 {
		// Small, so that all find a place on one node.
		all = append(all, setUp(t, "testdata/orders", fmt.Sprintf("shop-%d", i+1), "cpu: 500m", "cpu: 100m"))
	}
	apply(t, fmt.Sprintf(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: orders, namespace: %s}
spec: {minAvailable: 1, selector: {matchLabels: {app: orders}}}
`, all[0].namespace))
	var stops []func()
	var first []*corev1.Pod
	for _, d := range all {
		d.untilProtected()
		stops = append(stops, d.load())
		first = append(first, d.here())
		if on := d.here().Spec.NodeName; on != node.Name {
			t.Fatalf("%s is on %s", d.namespace, on)
		}
	}
	kubectl(t, "uncordon", other.Name)
	began := time.Now()
	// The budget is respected until what is left is needed for an orderly stop.
	field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(3 * time.Minute))
	for i := len(all) - 1; i >= 0; i-- {
		all[i].moved(first[i], began)
		all[i].provenClean(1)
	}
	for i, d := range all {
		said := kubectl(t, "-n", d.namespace, "get", "events", "-o", "custom-columns=:reason,:message")
		waited, deleted := strings.Contains(said, "EvacuationWaits"), strings.Contains(said, ": deleted with")
		if budgeted := i == 0; waited != budgeted || deleted != budgeted {
			t.Errorf("%s has a budget: %v; the Events say that it was waited for: %v, and overruled: %v\n%s", d.namespace, budgeted, waited, deleted, said)
		}
	}
	replace(t, node.Name)
	for i, d := range all {
		stops[i]()
		d.nothingLost()
	}
}
