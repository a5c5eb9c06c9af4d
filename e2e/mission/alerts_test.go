//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	batchv1 "k8s.io/api/batch/v1"

	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/monitoring/watch"
)

// alarmed is a database whose alerts somebody looks at.
type alarmed struct {
	*database
	*watch.Prometheus
}

// TestAlerts has each alert on databases, and on what they cost, fire and resolve: one database goes through everything that
// they are about, while a real Prometheus looks on. Nothing of what was acknowledged is lost by all that.
func TestAlerts(t *testing.T) {
	ours(t, "switches a node's metadata service off")
	sharesNodes(t)
	d := alarmed{setUp(t, "testdata/alerts", spaceOf(t)), look(t, spaceOf(t))}
	d.firstStart()
	page := d.standby()
	d.Fires("OutriderBadPages")
	d.Fires("OutriderRestoreTooSlow") // nothing is restored within ten seconds
	d.exec("DROP TABLE " + page)
	d.overspend()
	d.badDrill()
	d.outage()
	d.Resolves("OutriderBadPages")
	d.goodDrill()
	d.rival()
	d.goneForAWhile()
	d.AllHaveResolved(ofDatabases)
	d.nothingLost()
}

// firstStart takes so long that the sidecar has waited, and its first snapshot fails.
func (d alarmed) firstStart() {
	d.t.Helper()
	setFaults(d.t, oss.Fault{Op: "put", Prefix: d.root + "/basebackups_005/", Kind: oss.Status, Status: 403})
	d.Fires("OutriderNotShipping", `severity="critical"`)
	d.inPostgres("touch /tmp/done")
	d.until("the pod to be ready", func(ctx context.Context) error { _, err := d.ready(ctx); return err })
	d.Fires("OutriderNotProtected", `severity="warning"`)
	d.Fires("OutriderSnapshotsFail")
	d.Resolves("OutriderNotShipping")
}

// standby makes the server one for a while. Meanwhile the disk damages a page, of a table that it names, and the snapshots'
// folder takes objects again: the first one is taken of the damaged page when the server is promoted.
func (d alarmed) standby() (table string) {
	d.t.Helper()
	table = "damaged"
	d.exec("CREATE TABLE " + table + " AS SELECT generate_series(1, 1000) AS n")
	d.exec("CHECKPOINT")
	file := query[string](d.database, "SELECT pg_relation_filepath('"+table+"')")
	d.inPostgres("touch $PGDATA/standby.signal && printf damaged | dd of=$PGDATA/" + file + " bs=1 seek=8000 conv=notrunc")
	d.restartServer()
	d.Fires("OutriderNotShipping", `severity="warning"`)
	setFaults(d.t)
	d.exec("SELECT pg_promote()")
	d.Resolves("OutriderNotShipping", "OutriderNotProtected", "OutriderSnapshotsFail")
	return table
}

// restartServer stops the server, and the kubelet starts it again.
func (d alarmed) restartServer() {
	d.t.Helper()
	d.inPostgres("gosu postgres pg_ctl -D $PGDATA -m fast -W stop")
}

// inPostgres executes a script in the container of the server, as soon as there is one.
func (d alarmed) inPostgres(script string) {
	d.t.Helper()
	d.until("a script in the container of PostgreSQL", func(ctx context.Context) error {
		out, err := field.Kubectl(ctx, "-n", d.namespace, "exec", d.pod, "-c", "postgres", "--", "sh", "-c", script).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", script, err, out)
		}
		return err
	})
}

// overspend has no budget for a while.
func (d alarmed) overspend() {
	d.Spend("0")
	d.Fires("OutriderOverBudget")
	d.Spend("1000")
	d.Resolves("OutriderOverBudget")
}

// badDrill holds a drill while a bit of the snapshot is flipped.
func (d alarmed) badDrill() {
	d.t.Helper()
	back := d.flipBit("/basebackups_005/")
	if v, said := d.drill("bad", batchv1.JobFailed); v.Passed {
		d.t.Errorf("with a flipped bit in the snapshot the verdict is %+v\n%s", v, said)
	}
	back()
}

// goodDrill holds a drill when it is overdue, and passes it. The sidecar looks for verdicts four times an hour, and when it begins to
// ship: that it does after the outage, and when the server has been started again.
func (d alarmed) goodDrill() {
	d.t.Helper()
	d.Fires("OutriderDrillFailed")
	d.Fires("OutriderDrillOverdue")
	if v, said := d.drill("good", batchv1.JobComplete); !v.Passed {
		d.t.Errorf("the verdict is %+v\n%s", v, said)
	}
	d.restartServer()
	d.until("the sidecar to have read the verdict", func(context.Context) error {
		if len(d.Now("outrider_drill_last_passed == 1")) == 0 {
			return errors.New("it has not")
		}
		return nil
	})
	d.Resolves("OutriderDrillFailed", "OutriderDrillOverdue")
}

// outage takes OSS and the metadata service away from a database that is written to, until it has more WAL than it may keep.
func (d alarmed) outage() {
	t := d.t
	t.Helper()
	stop := d.load()
	node := field.Cloud.Metadata(d.node().Name)
	silent := func(faults ...metadata.Fault) {
		if err := node.SetFaults(faults...); err != nil {
			t.Error(err)
		}
	}
	after(t, func() { silent() })
	silent(metadata.Fault{Prefix: "/latest/meta-data/instance/spot", Kind: metadata.Status})
	setFaults(t, oss.Fault{Prefix: d.prefix() + "/", Kind: oss.Status})
	d.Fires("OutriderCommitsNotDurable")
	d.Fires("OutriderDiskFillsUp")
	d.Fires("OutriderNoticesUnseen")
	silent()
	d.exec("SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1000000))) FROM generate_series(1, 80)")
	d.Fires("OutriderNotProtected", `severity="critical"`)
	stop()
	d.exec("CHECKPOINT") // nothing keeps the WAL any more: there has to be another snapshot
	setFaults(t)
	d.untilProtected()
	d.Resolves("OutriderCommitsNotDurable", "OutriderDiskFillsUp", "OutriderNoticesUnseen", "OutriderNotProtected")
}

// rival is somebody's copy of the pod that has kept the name of the database: it is restored, and takes the archive over.
func (d alarmed) rival() {
	t := d.t
	t.Helper()
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata:
  name: rival
  namespace: %s
  annotations: {outrider.dev/cluster: %s}
spec:
  containers:
  - name: postgres
    image: postgres:17
    env:
    - name: POSTGRES_PASSWORD
      valueFrom: {secretKeyRef: {name: orders, key: password}}
    resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {memory: 1Gi}}
`, d.namespace, d.pod))
	d.Fires("OutriderSuperseded", `pod="`+d.pod+`"`)
	kubectl(t, "-n", d.namespace, "delete", "pod", "rival", "--wait=true")
}

// goneForAWhile has nobody hear of the database, until it is made anew with a policy that can be kept.
func (d alarmed) goneForAWhile() {
	t := d.t
	t.Helper()
	d.scale(0)
	d.Resolves("OutriderSuperseded")
	d.Fires("OutriderDatabaseGone")
	kubectl(t, "annotate", "namespace", d.namespace, "outrider.dev/rto=5m", "--overwrite")
	d.scale(1)
	d.untilProtected()
	d.Resolves("OutriderDatabaseGone", "OutriderRestoreTooSlow")
}
