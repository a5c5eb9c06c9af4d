//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/ledger"
)

// TestPartition cuts a node off whose database lives on, replaces it, and brings it back: the first writer sees that it was
// superseded, stops, and takes no more writes.
func TestPartition(t *testing.T) {
	takesNode(t)
	d := protect(t)
	stop := d.load()
	first, node := d.here(), d.node()
	renew(t, node.Name)
	began := time.Now()
	kill := d.cutOff(node)
	id := containerID(t, first, "postgres")
	psql := func(sql string) (string, error) {
		return ctr(t, node, "tasks", "exec", "--exec-id", fmt.Sprint(time.Now().UnixNano()), id, "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql)
	}
	if _, err := psql("CREATE TABLE stray (n int); INSERT INTO stray VALUES (1)"); err != nil {
		t.Fatalf("the database does not live on: %v", err)
	}
	until(t, "the node to count as lost", func(ctx context.Context) error { return notReady(ctx, node.Name) })
	if err := field.Forget(t.Context(), node.Name); err != nil {
		t.Fatal(err)
	}
	d.moved(first, began)
	// The second writer has the archive by now, and nobody has told the first one.
	if _, err := psql("INSERT INTO stray VALUES (2)"); err != nil {
		t.Fatalf("the first database does not take what nobody could forbid: %v", err)
	}
	if err := node.Connect(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	d.superseded(first, func() (string, error) { return psql("INSERT INTO stray VALUES (3)") })
	// They are where they were written, for a person to look at.
	if out, err := psql("SELECT 'strays: ' || count(*) FROM stray WHERE n < 3"); err != nil || !strings.Contains(out, "strays: 2") {
		t.Errorf("the rows of the first writer after it was cut off: %v: %s", err, out)
	}
	stop()
	d.honest(kill)
	d.noStrays()
	// Nor are they in the archive, which the first writer could reach again.
	second, epoch := d.here(), d.epoch()
	began = time.Now()
	found := *d.figures
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(second, began)
	d.provenClean(epoch)
	d.noStrays()
	d.honest(kill)
	*d.figures = found
}

// cutOff takes a node's network away. Its kubelet stands still, or it would kill the pod at once when it hears again.
func (d *database) cutOff(node *cluster.Node) ledger.Instant {
	d.t.Helper()
	if err := node.SignalKubelet(syscall.SIGSTOP); err != nil {
		d.t.Fatal(err)
	}
	kill := d.mark()
	if err := node.Connect(d.t.Context(), false); err != nil {
		d.t.Fatal(err)
	}
	after(d.t, func() {
		if err := node.Lose(); err != nil {
			d.t.Error(err)
		}
		_ = field.Forget(context.Background(), node.Name) // the new one of that name starts as new
	})
	return kill
}

// superseded waits until the first writer sees that there is another one, takes no writes, and is told of by outrider why.
func (d *database) superseded(first *corev1.Pod, write func() (string, error)) {
	d.t.Helper()
	d.until("the first writer to see that it was superseded", func(ctx context.Context) error {
		status, err := statusOf(ctx, first)
		if err == nil && status["state"] != "superseded" {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
	d.until("the first database to take no writes", func(context.Context) error {
		out, err := write()
		if err == nil {
			return errors.New("it took one")
		}
		if !strings.Contains(out, "read-only") {
			return err
		}
		return nil
	})
	d.until("outrider why to tell of it", func(ctx context.Context) error {
		said, err := d.why(ctx, "--epoch", "1")
		if err == nil && (!strings.Contains(said, "superseded") || !strings.Contains(said, "fenced_read_only")) {
			err = errors.New(said)
		}
		return err
	})
}

// noStrays fails the test if the database has rows that another one has taken after this one had begun.
func (d *database) noStrays() {
	d.t.Helper()
	if query[bool](d, "SELECT to_regclass('stray') IS NOT NULL") {
		d.t.Errorf("rows of the first writer after it was cut off are in the second one: %s", query[string](d, "SELECT string_agg(n::text, ' ') FROM stray"))
	}
}
