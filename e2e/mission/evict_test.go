//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// TestSizeLimit has the kubelet evict the pod because its volume holds more than it may, which leaves it two seconds. What
// fills the volume is a table that is not logged: it is empty after a restore, so that the next pod is within the limit.
func TestSizeLimit(t *testing.T) {
	sharesNodes(t)
	d := settle(t, "testdata/limited")
	stop := d.load()
	first := d.here()
	d.exec("CREATE UNLOGGED TABLE filler (content text)")
	d.durable() // or it is lost with what was not shipped yet
	ended := d.witness(first)
	began := time.Now()
	// The kubelet may be quicker than the statement.
	err := d.try("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 400000)")
	t.Logf("filling the volume ended with: %v", err)
	d.evicted(first, began, "EmptyDir volume \"data\" exceeds the limit")
	d.untilProtected()
	stop()
	d.honest(ended())
	if n := query[int](d, "SELECT count(*) FROM filler"); n != 0 {
		t.Errorf("the table that is not logged has %d rows after a restore", n)
	}
}

// evicted waits until the kubelet has evicted the pod, which it does to spare its node, and the database accepts writes in
// another one. It fails the test if the reason was another.
func (d *database) evicted(first *corev1.Pod, began time.Time, reason string) {
	d.t.Helper()
	d.until("the eviction", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		if err == nil && pod.UID == first.UID && pod.Status.Reason != "Evicted" {
			err = errors.New("it was not evicted")
		}
		return err
	})
	d.replaced(first, began)
	if events := kubectl(d.t, "-n", d.namespace, "get", "events"); !strings.Contains(events, reason) {
		d.t.Errorf("the eviction was for something else than %q:\n%s", reason, events)
	}
}

// witness has a session that does nothing and does not go through the door, so that it ends when the database does. The
// function it returns says when that was: what kills the database is somebody else, at a moment of its own choosing.
func (d *database) witness(pod *corev1.Pod) (ended func() ledger.Instant) {
	d.t.Helper()
	var c *pgx.Conn
	config, err := pgx.ParseConfig(fmt.Sprintf("postgres://postgres:change-me@%s/postgres?sslmode=disable&connect_timeout=5", pod.Status.PodIP))
	if err != nil {
		d.t.Fatal(err)
	}
	config.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return ground.Reach(ctx, pod, "5432") }
	d.until("a session", func(ctx context.Context) (err error) { c, err = pgx.ConnectConfig(ctx, config); return err })
	end := make(chan ledger.Instant, 1)
	go func() {
		defer close(end)
		_, _ = c.WaitForNotification(d.t.Context()) // there is none: it ends with the session
		if kill, err := d.ledger.MarkKill(); err == nil {
			end <- kill
		}
	}()
	after(d.t, func() {
		for range end { // until nobody uses the session any more
		}
		_ = c.Close(context.Background()) // the server has ended it long before
	})
	return func() ledger.Instant {
		d.t.Helper()
		select {
		case kill, ok := <-end:
			if ok {
				return kill
			}
			d.t.Fatal("the end of the database could not be written down")
		case <-time.After(long):
			d.t.Fatal("the session with the database has not ended")
		}
		return ledger.Instant{}
	}
}

// honest judges, once the load has ended, after an end that left no time for an orderly stop: the receipt may only say clean
// if nothing is lost, and else nothing older than the target is.
func (d *database) honest(kill ledger.Instant) {
	d.t.Helper()
	clean := d.saysClean(1)
	rpo := world.Judged()
	if clean {
		rpo = 0
	}
	report := d.judge(ledger.Options{Kill: kill, RPO: rpo})
	if clean {
		d.note("there was time for an orderly end")
	} else {
		d.note("%d of %d rows lost, %d of them older than %s", report.Lost, report.Acknowledged, report.LostOlderThan(world.RPO), world.RPO)
	}
}
