//go:build e2e

package mission_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestIdleSessions stops a PostgreSQL that waits for its clients (SIGTERM), and fifty of them do nothing.
func TestIdleSessions(t *testing.T) {
	sharesNodes(t)
	d := settle(t, "testdata/sigterm")
	for range 50 {
		c, err := pgx.Connect(t.Context(), d.conn())
		if err != nil {
			t.Fatal(err)
		}
		after(t, func() { _ = c.Close(context.Background()) }) // the server has ended it long before
	}
	stop := d.load()
	first := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.untilGone(string(first.UID))
	gone := time.Now()
	if took, grace := gone.Sub(began), *first.Spec.TerminationGracePeriodSeconds; took.Seconds() > float64(grace)/2 {
		t.Errorf("the stop took %s of a grace of %d s", took, grace)
	}
	d.provenClean(1)
	d.up(began, gone)
	stop()
	d.nothingLost()
}

// TestOwnHook has a preStop hook of the user's. It runs, and what it wrote is there afterwards.
func TestOwnHook(t *testing.T) {
	sharesNodes(t)
	d := settle(t, "testdata/hook")
	stop := d.load()
	first := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(first, began)
	d.provenClean(1)
	if n := query[int](d, "SELECT count(*) FROM hook"); n != 1 {
		t.Errorf("the hook's table has %d rows", n)
	}
	stop()
	d.nothingLost()
}
