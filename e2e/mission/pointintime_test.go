//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"outrider.dev/e2e/ledger"
)

// moment is a point in the life of a database: by its clock, and what had been written to it.
type moment struct {
	at   time.Time
	book string
}

// moment loads the database for a while and remembers what it then holds.
func (d *database) moment(name string) moment {
	d.t.Helper()
	d.load()()
	m := moment{at: query[time.Time](d, "SELECT clock_timestamp()"), book: filepath.Join(d.t.TempDir(), name)}
	content, err := os.ReadFile(d.book)
	if err == nil {
		err = os.WriteFile(m.book, content, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return m
}

// holds fails the test unless the database has exactly what had been written by then.
func (d *database) holds(m moment) {
	d.t.Helper()
	report := d.compare(m.book, ledger.Options{})
	if err := report.Err(); err != nil {
		d.t.Errorf("as it was at %s: %v", m.at.Format(time.RFC3339Nano), err)
	}
	d.t.Logf("as it was at %s: %d of %d rows, and none that came later", m.at.Format(time.RFC3339Nano), report.Present, report.Acknowledged)
}

// goBack has the database restored to a point in its own past: a line in its template, and its pod is made anew.
func (d *database) goBack(m moment) {
	d.t.Helper()
	first := d.here()
	began := time.Now()
	kubectl(d.t, "-n", d.namespace, "patch", "statefulset/orders", "-p", fmt.Sprintf(
		`{"spec":{"template":{"metadata":{"annotations":{"outrider.dev/restore-target":%q}}}}}`, m.at.UTC().Format(time.RFC3339Nano)))
	d.back(first, began)
	d.t.Logf("went back to %s, on timeline %d now", m.at.Format(time.RFC3339Nano), query[int](d, timelineOf))
}

// TestPointInTime makes a clone of a past moment beside the original, which goes on under load, and then takes the original
// itself back, twice. Between the two it loses its pod once more, and what was written since the first is kept.
func TestPointInTime(t *testing.T) {
	sharesNodes(t)
	d := setUp(t, "testdata/orders", "shop") // as the clone's manifest says
	d.untilProtected()
	early := d.moment("early")
	d.untilShipped()
	late := d.moment("late")

	stop := d.load()
	c := found(t, "shop-clone", "orders-0")
	c.figures.scenario += ", the clone"
	began := time.Now()
	c.install("testdata/clone", "2026-11-20T09:30:00Z", late.at.UTC().Format(time.RFC3339Nano))
	c.door = open(t, c.namespace, c.pod, "5432")
	c.up(began, began)
	c.holds(late)
	if status := c.says(); status["state"] != "not_archived" {
		t.Errorf("the clone's status is %v", status)
	}
	if written, err := ground.bucket.Keys(c.root); err != nil || len(written) > 0 {
		t.Errorf("the clone has written %v, %v", written, err)
	}
	kubectl(t, "delete", "namespace", c.namespace, "--wait=true", "--timeout=120s")
	stop()
	d.nothingLost()

	d.goBack(late)
	d.holds(late)
	d.exec("CREATE TABLE since (at timestamptz)")
	d.untilProtected()
	first := d.here()
	began = time.Now()
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=false")
	d.back(first, began)
	d.holds(late)
	if query[string](d, "SELECT coalesce(to_regclass('since')::text, '')") == "" {
		t.Error("what was written since the recovery is gone")
	}
	d.untilProtected()

	d.goBack(early)
	d.holds(early)
	if query[string](d, "SELECT coalesce(to_regclass('since')::text, '')") != "" {
		t.Error("what was written later is there")
	}
	d.untilProtected()
}

// untilShipped waits until everything that is written now is in the archive.
func (d *database) untilShipped() {
	d.t.Helper()
	d.until("everything to be shipped", func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err == nil && status["unshipped_bytes"] != float64(0) {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
}
