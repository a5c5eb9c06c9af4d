//go:build e2e

package mission_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/ledger"
	"outrider.dev/e2e/world"
)

// TestPartition cuts a node off whose database lives on, replaces it, and brings it back: the first writer sees that it was
// superseded, stops, and takes no more writes.
func TestPartition(t *testing.T) {
	d := protect(t)
	stop := d.load()
	first, node := d.here(), d.node()
	renew(t, node.Name)
	began := time.Now()
	if err := node.SignalKubelet(syscall.SIGSTOP); err != nil { // or it would kill the pod at once when it hears again
		t.Fatal(err)
	}
	kill := d.mark()
	if err := node.Connect(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	after(t, func() {
		if err := node.Lose(); err != nil {
			t.Error(err)
		}
		_ = field.Forget(context.Background(), node.Name) // the new one of that name starts as new
	})
	id := containerID(t, first, "postgres")
	psql := func(sql string) (string, error) {
		return ctr(t, node, "tasks", "exec", "--exec-id", fmt.Sprint(time.Now().UnixNano()), id, "psql", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-c", sql)
	}
	if _, err := psql("CREATE TABLE stray (n int); INSERT INTO stray VALUES (1)"); err != nil {
		t.Fatalf("the database does not live on: %v", err)
	}
	until(t, "the node to count as lost", func(ctx context.Context) error { return notReady(ctx, node.Name) })
	client, err := field.Client()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Nodes().Delete(t.Context(), node.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	d.moved(first, began)
	if err := node.Connect(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	until(t, "the first writer to see that it was superseded", func(ctx context.Context) error {
		status, err := statusAt(ctx, first.Status.PodIP)
		if err == nil && status["state"] != "superseded" {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
	until(t, "the first database to take no writes", func(context.Context) error {
		out, err := psql("INSERT INTO stray VALUES (2)")
		if err == nil {
			return errors.New("it took one")
		}
		if !strings.Contains(out, "read-only") {
			return err
		}
		return nil
	})
	stop()
	report := d.judge(ledger.Options{Kill: kill, RPO: world.Judged()})
	t.Logf("%d of %d rows, %d older than %s are lost", report.Present, report.Acknowledged, report.LostOlderThan(world.RPO), world.RPO)
	c, err := pgx.Connect(t.Context(), d.conn())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	var strays bool
	if err := c.QueryRow(t.Context(), "SELECT to_regclass('stray') IS NOT NULL").Scan(&strays); err != nil || strays {
		t.Errorf("rows of the first writer after it was cut off are in the second one: %v, %v", strays, err)
	}
}

// statusAt is what the sidecar at an address says of itself.
func statusAt(ctx context.Context, address string) (map[string]any, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+":9850/status", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var status map[string]any
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		return nil, fmt.Errorf("%s: %w", answer.Status, err)
	}
	return status, nil
}
