//go:build e2e

package mission_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"outrider.dev/e2e/ledger"
)

// long is enough for anything that is waited for, on a loaded machine too.
const long = 3 * time.Minute

// database is a protected StatefulSet of one pod, with a ledger for what is written to it.
type database struct {
	t              *testing.T
	namespace, pod string
	door           *door
	ledger         *ledger.Ledger
	book           string
	figures        *figures
	root           string // in the bucket

	mu      sync.Mutex
	stays   []stay
	leaving types.UID // the last pod that was seen to be going
	asked   time.Time // when it was asked to
}

// protect installs the example of README in a namespace of its own and with an archive of its own, and waits until it is
// protected. Each change is a pair: what to replace in the manifests, and by what.
func protect(t *testing.T, changes ...string) *database {
	t.Helper()
	d := setUp(t, "testdata/orders", spaceOf(t), changes...)
	d.untilProtected()
	return d
}

// setUp is protect with manifests of a directory and in that namespace, and does not wait.
func setUp(t *testing.T, dir, namespace string, changes ...string) *database {
	t.Helper()
	d := found(t, namespace, "orders-0")
	d.install(dir, append([]string{"namespace: shop", "namespace: " + namespace, "name: shop", "name: " + namespace}, changes...)...)
	d.follow()
	return d
}

// conn is how to connect to the database, wherever it is.
func (d *database) conn() string {
	return fmt.Sprintf("postgres://postgres:change-me@%s/postgres?sslmode=disable&connect_timeout=5", d.door.listener.Addr())
}

// object is the pod.
func (d *database) object(ctx context.Context) (*corev1.Pod, error) {
	client, err := ground.Client()
	if err != nil {
		return nil, err
	}
	pod, err := client.CoreV1().Pods(d.namespace).Get(ctx, d.pod, metav1.GetOptions{})
	if err == nil && pod.DeletionTimestamp != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.leaving != pod.UID {
			d.leaving, d.asked = pod.UID, pod.DeletionTimestamp.Time
			if grace := pod.DeletionGracePeriodSeconds; grace != nil {
				d.asked = d.asked.Add(-time.Duration(*grace) * time.Second)
			}
		}
	}
	return pod, err
}

// askedToGo is when the last pod that was seen to be going was asked to, in whole seconds.
func (d *database) askedToGo() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asked
}

// ready returns the pod if it is.
func (d *database) ready(ctx context.Context) (*corev1.Pod, error) {
	pod, err := d.object(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && pod.DeletionTimestamp == nil {
			d.seen(pod)
			return pod, nil
		}
	}
	return nil, fmt.Errorf("it is %s", pod.Status.Phase)
}

// status is what the sidecar says of itself.
func (d *database) status(ctx context.Context) (map[string]any, error) {
	pod := d.door.pod(ctx, 0)
	if pod == nil {
		return nil, errors.New("there is no pod")
	}
	return statusOf(ctx, pod)
}

// says is status as soon as there is an answer.
func (d *database) says() (status map[string]any) {
	d.t.Helper()
	d.until("the sidecar to say how it is", func(ctx context.Context) (err error) { status, err = d.status(ctx); return err })
	return status
}

func (d *database) untilProtected() {
	d.t.Helper()
	d.until("the pod to be ready", func(ctx context.Context) error { _, err := d.ready(ctx); return err })
	d.until("it to be protected", func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err == nil && (status["state"] != "protected" || status["last_snapshot"] == nil) {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
}

// until waits until ask has no error.
func (d *database) until(what string, ask func(context.Context) error) {
	d.t.Helper()
	until(d.t, what, ask)
}

func until(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	within(t, long, what, ask)
}

// within is until for what takes longer.
func within(t *testing.T, limit time.Duration, what string, ask func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		attempt, stop := context.WithTimeout(ctx, 5*time.Second)
		err := ask(attempt)
		stop()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v", what, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// loadRows is what has been acknowledged before anything happens to a database: three seconds' worth. If the database were lost
// sooner, nothing could be lost that is older than the promise.
const loadRows = 150

// load writes to the ledger until the function it returns is called.
func (d *database) load() (stop func()) {
	ctx, cancel := context.WithCancel(d.t.Context())
	done := make(chan error, 1)
	before := d.ledger.Stats().Acknowledged
	go func() {
		done <- d.ledger.Run(ctx, ledger.Config{ConnString: d.conn(), Rate: 50, Timeout: 10 * time.Second})
	}()
	d.until("rows to be acknowledged", func(context.Context) error {
		if n := d.ledger.Stats().Acknowledged; n < before+loadRows {
			return fmt.Errorf("%d so far", n-before)
		}
		return nil
	})
	return func() {
		d.t.Helper()
		cancel()
		if err := <-done; err != nil {
			d.t.Error(err)
		}
	}
}

// judge compares with the ledger: nothing may be missing.
func (d *database) judge(options ledger.Options) ledger.Report {
	d.t.Helper()
	report := d.compare(d.book, options)
	if err := report.Err(); err != nil {
		d.t.Errorf("the ledger: %v", err)
		tellOf(d.t) // while it is as it was found
	}
	return report
}

// compare compares with a ledger. Where that could not be done it is tried again; what was found is final.
func (d *database) compare(book string, options ledger.Options) (report ledger.Report) {
	d.t.Helper()
	d.until("a comparison with the ledger", func(context.Context) (err error) {
		report, err = ledger.Verify(d.t.Context(), d.conn(), book, options)
		return err
	})
	d.figures.judged(report)
	return report
}

// mark writes down that the database ends now. Call it directly before it does: what was acknowledged is as old as it was at
// that moment, and what comes to an end afterwards may take its time.
func (d *database) mark() ledger.Instant {
	d.t.Helper()
	kill, err := d.ledger.MarkKill()
	if err != nil {
		d.t.Fatal(err)
	}
	return kill
}

// write says when the first transaction is accepted again.
func (d *database) write() {
	d.t.Helper()
	d.until("the first write", func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, d.conn())
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		_, err = c.Exec(ctx, "CREATE TABLE IF NOT EXISTS alive (at timestamptz); INSERT INTO alive VALUES (now())")
		return err
	})
}

// receipt reads how an epoch ended, from the archive.
func (d *database) receipt(epoch int) map[string]any {
	d.t.Helper()
	receipt, err := d.findReceipt(epoch)
	if err != nil {
		d.t.Fatalf("the receipt of epoch %d: %v", epoch, err)
	}
	return receipt
}

func (d *database) findReceipt(epoch int) (receipt map[string]any, err error) {
	content, err := ground.bucket.Read(fmt.Sprintf("%s/outrider/receipts/%010d.json", d.root, epoch))
	if err == nil {
		err = json.Unmarshal(content, &receipt)
	}
	return receipt, err
}

// saysClean tells whether an epoch's receipt proves an orderly end. A writer that had no time leaves none.
func (d *database) saysClean(epoch int) bool {
	d.t.Helper()
	receipt, err := d.findReceipt(epoch)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.t.Fatalf("the receipt of epoch %d: %v", epoch, err)
	}
	return receipt["clean"] == true
}

func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := ground.Kubectl(t.Context(), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	cmd := ground.Kubectl(t.Context(), "apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}
