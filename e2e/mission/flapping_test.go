//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/metadata"
)

// flaps are the ways in which the metadata service goes wrong. "Not found" is not among them: it is how the service says that
// there is no notice.
var flaps = []metadata.Fault{
	{Kind: metadata.Status, Status: http.StatusInternalServerError},
	{Kind: metadata.Hang},
	{Kind: metadata.Status, Status: http.StatusOK, Body: "<html>please log in</html>"},
	{Kind: metadata.Reset},
	{Kind: metadata.Status, Status: http.StatusServiceUnavailable, Body: "2020-04-07T17:03:00Z"},
	{Kind: metadata.Status, Status: http.StatusForbidden},
	{Kind: metadata.Delay, Seconds: 3}, // longer than is waited for
}

// TestFlappingMetadata has a metadata service of which every second answer is wrong, late or missing. That is no notice, and
// the notice that it gives after errors is heeded.
func TestFlappingMetadata(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first := d.here()
	node := field.Node(first.Spec.NodeName)
	service := field.Cloud.Metadata(node.Name)
	service.ResetRequests()
	if err := service.SetFaults(nowAndThen()...); err != nil {
		t.Fatal(err)
	}
	after(t, func() { _ = service.SetFaults() })
	d.until("all kinds of errors", func(ctx context.Context) error {
		status, err := d.status(ctx)
		switch {
		case err != nil:
			return err
		case status["notice"] != nil || status["prepared"] != nil || tainted(ctx, node.Name) == nil:
			t.Fatalf("there was no notice, and the sidecar has seen one: %v", status)
		}
		if n := wrong(service); n < len(flaps) {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	d.advances()
	if pod := d.here(); pod.UID != first.UID {
		t.Error("the pod is another one")
	}

	// The notice comes with a series of errors, so that it is not seen at once.
	before := wrong(service)
	if err := service.SetFaults(append(faults(0, len(flaps)), nowAndThen()...)...); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	service.SetSpotTermination(began.Add(3 * time.Minute))
	until(t, "the taint of the node", func(ctx context.Context) error { return tainted(ctx, node.Name) })
	after := wrong(service) - before
	d.note("tainted after %.1f s; %d wrong answers before the notice, and %d until then", time.Since(began).Seconds(), before, after)
	if after < len(flaps)-1 {
		t.Errorf("the series had %d errors", after)
	}
	d.moved(first, began)
	d.provenClean(1)
	replace(t, node.Name)
	stop()
	d.nothingLost()
}

// nowAndThen lets every second question through, for longer than there is time.
func nowAndThen() []metadata.Fault { return faults(1, 50*len(flaps)) }

// faults are n faults of all kinds in turn, with so many right answers before each.
func faults(right, n int) (all []metadata.Fault) {
	for i := range n {
		fault := flaps[i%len(flaps)]
		fault.Prefix, fault.Skip, fault.Count = "/latest/meta-data/", right*(i+1), 1
		all = append(all, fault)
	}
	return all
}

// wrong is how many requests to the metadata service have met a fault that is over. One that only came late is known by
// what became of it in the end, and not counted.
func wrong(service *metadata.Server) (n int) {
	for _, results := range service.Requests() {
		for _, kind := range []metadata.Kind{metadata.Status, metadata.Hang, metadata.Reset} {
			n += results[string(kind)]
		}
	}
	return n
}
