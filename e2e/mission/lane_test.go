//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/e2e/cluster"
)

// A scenario that takes a node away has a lane for itself, a pair of nodes that no other pod is put on. So several such scenarios
// run side by side, and beside those that leave the nodes alone. What changes the whole cluster runs before them all, alone.
const (
	lanes    = 3 // pairs of nodes
	seats    = 5 // scenarios at a time that need no node for themselves
	laneMark = "e2e.outrider.dev/lane"
)

var (
	freeLanes = make(chan string, lanes)
	freeSeats = make(chan struct{}, seats)

	laneOf = struct {
		sync.Mutex
		test map[*testing.T]string
	}{test: map[*testing.T]string{}}
)

// addLanes adds the nodes of all lanes.
func addLanes(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for i := range lanes {
		lane := fmt.Sprintf("lane-%d", i+1)
		freeLanes <- lane
		for n := range 2 {
			group.Go(func() error { return addNode(ctx, fmt.Sprintf("%s-node-%d", lane, n+1)) })
		}
	}
	return group.Wait()
}

// addNode adds a node, to the lane that its name tells.
func addNode(ctx context.Context, name string) error {
	lane, _, own := strings.Cut(name, "-node-")
	var err error
	if own {
		_, err = field.AddWorker(ctx, name, map[string]string{laneMark: lane}, corev1.Taint{Key: laneMark, Value: lane, Effect: corev1.TaintEffectNoSchedule})
	} else {
		_, err = field.AddWorker(ctx, name, nil)
	}
	return err
}

// takesNode lets a scenario run beside others, on nodes that are its own until it ends. Call it first, so that the nodes are whole
// again when they are handed on.
func takesNode(t *testing.T) {
	t.Helper()
	ours(t, "takes a node away, or out of service")
	t.Parallel()
	lane := <-freeLanes
	laneOf.Lock()
	defer laneOf.Unlock()
	laneOf.test[t] = lane
	t.Cleanup(func() {
		laneOf.Lock()
		defer laneOf.Unlock()
		delete(laneOf.test, t)
		freeLanes <- lane
	})
}

// sharesNodes lets a scenario run beside others, on nodes that it leaves alone.
func sharesNodes(t *testing.T) {
	t.Helper()
	t.Parallel()
	freeSeats <- struct{}{}
	t.Cleanup(func() { <-freeSeats })
}

// lane is the one that a scenario has, "" without one.
func lane(t *testing.T) string {
	laneOf.Lock()
	defer laneOf.Unlock()
	return laneOf.test[t]
}

// laneNodes are the nodes of a scenario's lane.
func laneNodes(t *testing.T) (all []*cluster.Node) {
	t.Helper()
	for _, n := range field.Nodes() {
		if strings.HasPrefix(n.Name, lane(t)+"-node-") {
			all = append(all, n)
		}
	}
	if len(all) != 2 {
		t.Fatalf("%s has %d nodes", lane(t), len(all))
	}
	return all
}

// place puts the pods of workloads on the scenario's own nodes, if it has any.
func place(t *testing.T, manifests string) string {
	t.Helper()
	lane := lane(t)
	if lane == "" {
		return manifests
	}
	docs := strings.Split(manifests, "\n---\n")
	for i, doc := range docs {
		var set appsv1.StatefulSet
		if err := yaml.Unmarshal([]byte(doc), &set); err != nil {
			t.Fatal(err)
		}
		if set.Kind != "StatefulSet" {
			continue
		}
		set.Spec.Template.Spec.NodeSelector = map[string]string{laneMark: lane}
		set.Spec.Template.Spec.Tolerations = []corev1.Toleration{{Key: laneMark, Operator: corev1.TolerationOpEqual, Value: lane}}
		content, err := yaml.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		docs[i] = string(content)
	}
	return strings.Join(docs, "\n---\n")
}
