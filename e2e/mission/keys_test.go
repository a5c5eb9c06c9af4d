//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/devcloud/keys"
)

// The sidecar has the keys of a Secret as environment variables, which a container reads when it starts. So a changed
// Secret has to be followed by a new start of the sidecar, and the old key lives until then:
//
//  1. make the new key, and write it into the Secret;
//  2. `kubectl rollout restart`, or start the sidecar alone anew, as an upgrade does (`kubectl set image pod/…`, with
//     another name of the same image, such as its digest), which does not stop the database;
//  3. revoke the old key.
//
// Where that was done in another order the database runs on and keeps its WAL, and nothing may be restarted but the sidecar:
// a pod that is deleted then could not ship the rest. The sidecar's new start takes its time, as the old one tries to ship
// until the end of its grace.

// TestRotatedKeys changes the key in that order. Nothing is lost, and nothing is said to be wrong.
func TestRotatedKeys(t *testing.T) {
	sharesNodes(t)
	d := protectWithKey(t)
	stop := d.load()
	d.useKey("second")
	first := d.here()
	began := time.Now()
	kubectl(t, "-n", d.namespace, "rollout", "restart", "statefulset/orders")
	d.replaced(first, began)
	d.provenClean(1)
	d.untilProtected()

	if err := ground.cloud.Revoke(d.keyID("first")); err != nil {
		t.Fatal(err)
	}
	d.advances()
	d.durable()
	if status := d.says(); status["trouble"] != nil {
		t.Errorf("the sidecar says that there is trouble: %v", status["trouble"])
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.provenClean(2)
	stop()
	d.nothingLost()
}

// TestRevokedKey revokes the key that is in use, as after a leak, and changes the Secret and the sidecar afterwards. The
// database does not notice, and what was written meanwhile is shipped.
func TestRevokedKey(t *testing.T) {
	sharesNodes(t)
	d := protectWithKey(t)
	stop := d.load()
	first := d.here()
	if err := ground.cloud.Revoke(d.keyID("first")); err != nil {
		t.Fatal(err)
	}
	d.until("the sidecar to say that it is in trouble", func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err == nil && (status["trouble"] == nil && status["state"] == "protected") {
			err = fmt.Errorf("%v", status)
		}
		return err
	})
	d.advances()
	said, err := ground.Kubectl(t.Context(), "-n", d.namespace, "exec", d.pod, "-c", "outrider", "--", "outrider", "status").CombinedOutput()
	t.Logf("outrider status, with %v: its exit code speaks of being superseded only:\n%s", err, said)
	d.useKey("second")
	d.restartSidecar()
	d.untilProtected()
	d.advances()
	d.durable()
	if pod := d.here(); pod.UID != first.UID || restarts(pod, "postgres") != 0 {
		t.Error("the database was started again")
	}
	if epoch := d.epoch(); epoch != 1 {
		t.Errorf("the epoch is %d, not 1", epoch)
	}
	kubectl(t, "-n", d.namespace, "delete", "pod", d.pod, "--wait=true")
	d.write()
	d.provenClean(1)
	stop()
	d.nothingLost()
}

// keyID is that of one of the test's own keys.
func (d *database) keyID(name string) string { return d.prefix() + "-" + name }

// issue makes a key. It stays when the test ends: a pod whose key is revoked before it is deleted keeps on trying to ship.
func (d *database) issue(name string) {
	d.t.Helper()
	if err := ground.cloud.Issue(keys.Key{ID: d.keyID(name), Secret: d.keyID(name) + "-secret"}); err != nil {
		d.t.Fatal(err)
	}
}

// protectWithKey is protect with a key of the test's own.
func protectWithKey(t *testing.T) *database {
	t.Helper()
	d := found(t, spaceOf(t), "orders-0")
	d.issue("first")
	d.install("testdata/orders", "namespace: shop", "namespace: "+d.namespace, "name: shop", "name: "+d.namespace, "OSS_ACCESS_KEY_ID: devcloud", "OSS_ACCESS_KEY_ID: "+d.keyID("first"),
		"OSS_ACCESS_KEY_SECRET: devcloud-secret", "OSS_ACCESS_KEY_SECRET: "+d.keyID("first")+"-secret")
	d.follow()
	d.untilProtected()
	return d
}

// useKey makes a key and writes it into the Secret.
func (d *database) useKey(name string) {
	d.t.Helper()
	d.issue(name)
	kubectl(d.t, "-n", d.namespace, "patch", "secret", "outrider-oss", "-p",
		fmt.Sprintf(`{"stringData": {"OSS_ACCESS_KEY_ID": %q, "OSS_ACCESS_KEY_SECRET": %q}}`, d.keyID(name), d.keyID(name)+"-secret"))
}

// restartSidecar starts the sidecar anew and nothing else, by giving its image another name.
func (d *database) restartSidecar() {
	d.t.Helper()
	pod := d.here()
	before := restarts(pod, "outrider")
	kubectl(d.t, "-n", d.namespace, "set", "image", "pod/"+d.pod, "outrider="+renamed(d.t, pod))
	// The old one may use all of its grace, which is 120 s.
	within(d.t, 2*long, "the sidecar to be started again", func(ctx context.Context) error {
		pod, err := d.ready(ctx)
		if err == nil && restarts(pod, "outrider") == before {
			err = errors.New("it was not yet")
		}
		return err
	})
}

// renamed is another name of the image that a pod's sidecar has: the same in full, or the digest where it is full already. For
// a kubelet it is another image.
func renamed(t *testing.T, pod *corev1.Pod) string {
	t.Helper()
	s := initStatus(pod, "outrider")
	for _, c := range pod.Spec.InitContainers {
		switch {
		case c.Name != "outrider":
		case !strings.Contains(c.Image, "/"):
			return "docker.io/library/" + c.Image
		case strings.Contains(s.ImageID, "@"):
			return s.ImageID
		}
	}
	t.Fatalf("the image of the sidecar, %+v, has no other name", s)
	return ""
}

// durable waits until what is in the server's WAL now is in the archive.
func (d *database) durable() {
	d.t.Helper()
	position := query[string](d, "SELECT pg_current_wal_flush_lsn()::text")
	d.until("the archive to have everything up to "+position, func(ctx context.Context) error {
		status, err := d.status(ctx)
		if err != nil {
			return err
		}
		if !query[bool](d, fmt.Sprintf("SELECT '%s'::pg_lsn >= '%s'::pg_lsn", status["durable"], position)) {
			err = fmt.Errorf("it has everything up to %v", status["durable"])
		}
		return err
	})
}
