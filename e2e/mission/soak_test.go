//go:build e2e && soak

package mission_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"outrider.dev/e2e/world"
)

// TestManyNotices moves a loaded database from one reclaimed node to the next. OUTRIDER_CYCLES says how often, 20 times
// otherwise.
func TestManyNotices(t *testing.T) {
	ours(t, "takes nodes away")
	d := protect(t)
	stop := d.load()
	for cycle := range world.Number(t, "OUTRIDER_CYCLES", 20) {
		first, node := d.here(), d.node()
		began := time.Now()
		field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(2 * time.Minute))
		d.moved(first, began)
		// One epoch a move: a pod that is put on a reclaimed node claims one more.
		d.provenClean(int(cycle) + 1)
		renewNow(t, node.Name)
		d.untilProtected()
	}
	stop()
	d.nothingLost()
}

// TestLargeNotice reclaims the node of a database of 1 GiB that is being written to.
func TestLargeNotice(t *testing.T) {
	ours(t, "takes a node away")
	d := protect(t, "memory: 1Gi", "memory: 2Gi")
	d.exec(`CREATE TABLE large AS SELECT n, repeat(md5(n::text), 30) AS filler FROM generate_series(1, 1000000) n`)
	t.Logf("the database has %d MiB", query[int64](d, "SELECT pg_database_size('postgres')")>>20)
	d.untilShipped()
	stop := d.load()
	first, node := d.here(), d.node()
	began := time.Now()
	field.Cloud.Metadata(node.Name).SetSpotTermination(began.Add(2 * time.Minute))
	d.moved(first, began)
	d.provenClean(1)
	replace(t, node.Name)
	stop()
	d.nothingLost()
}

// TestStorageLongAway takes OSS away for ten minutes.
func TestStorageLongAway(t *testing.T) { storageAway(t, 10*time.Minute) }

// renewNow takes a node away and brings a new one of that name.
func renewNow(t *testing.T, name string) {
	t.Helper()
	if err := field.Node(name).Lose(); err != nil {
		t.Fatal(err)
	}
	if err := field.Forget(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), long)
	defer cancel()
	if err := addNode(ctx, name); err != nil {
		t.Fatal(fmt.Errorf("bringing a new node: %w", err))
	}
}
