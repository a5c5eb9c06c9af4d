//go:build e2e

package mission_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/ledger"
)

// timelineOf asks for the timeline that the server writes.
const timelineOf = "SELECT timeline_id FROM pg_control_checkpoint()"

// settle installs a variant of the example of README, with an archive of its own, and waits until it is protected.
func settle(t *testing.T, dir string) *database {
	t.Helper()
	d := setUp(t, dir, spaceOf(t))
	d.untilProtected()
	return d
}

// spaceOf is the namespace of a test, which others may run beside.
func spaceOf(t *testing.T) string {
	t.Helper()
	return "shop-" + strings.ToLower(strings.TrimPrefix(t.Name(), "Test"))
}

// found is a database that is not installed yet. Its namespace goes with the test.
func found(t *testing.T, namespace, pod string) *database {
	t.Helper()
	claim(t, namespace)
	d := &database{t: t, namespace: namespace, pod: pod, book: filepath.Join(t.TempDir(), "journal")}
	d.root = d.prefix() + "/" + d.namespace + "/" + d.pod
	d.figures = &figures{scenario: strings.TrimPrefix(t.Name(), "Test")}
	closing.add(d.figures)
	d.testify()
	asked := d.requests()
	after(t, func() {
		d.figures.failed = t.Failed()
		d.figures.requests = d.requests() - asked
		_ = ground.Kubectl(context.Background(), "delete", "namespace", d.namespace, "--wait=true", "--timeout=180s", "--ignore-not-found").Run()
	})
	// The scenario before may have taken the node of one of its pods.
	kubectl(t, "-n", "outrider-system", "rollout", "status", "deployment/outrider-webhook", "--timeout=180s")
	return d
}

// claim makes a namespace the scenarios' own.
func claim(t *testing.T, namespace string) {
	t.Helper()
	if err := ground.Claim(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
}

// requests are those to OSS about this test's archives.
func (d *database) requests() int64 { return ground.cloud.Asked(d.prefix()) }

// prefix is where this test's archives are.
func (d *database) prefix() string { return strings.ToLower(d.t.Name()) }

// install applies a directory, with an archive of the test's own and whatever else is to be replaced, in pairs.
func (d *database) install(dir string, replace ...string) {
	d.t.Helper()
	replace = append(replace, "oss://"+local.Bucket+"/prod", "oss://"+local.Bucket+"/"+d.prefix())
	manifests := ground.images(strings.NewReplacer(replace...).Replace(kubectl(d.t, "kustomize", dir)))
	apply(d.t, place(d.t, manifests))
}

// follow opens a way to the database, and a ledger.
func (d *database) follow() {
	d.t.Helper()
	d.door = open(d.t, d.namespace, d.pod, "5432")
	var err error
	if d.ledger, err = ledger.Open(d.book); err != nil {
		d.t.Fatal(err)
	}
	after(d.t, func() {
		if err := d.ledger.Close(); err != nil {
			d.t.Error(err)
		}
	})
}

// scale changes how many pods there shall be. With none it waits until there is none.
func (d *database) scale(replicas int) {
	d.t.Helper()
	kubectl(d.t, "-n", d.namespace, "scale", "statefulset/orders", fmt.Sprintf("--replicas=%d", replicas))
	if replicas == 0 {
		d.untilGone("")
	}
}

// untilGone waits until the pod of that uid, or any pod if that is empty, is not there any more.
func (d *database) untilGone(uid string) {
	d.t.Helper()
	d.until("the pod to be gone", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		switch {
		case apierrors.IsNotFound(err), err == nil && uid != "" && string(pod.UID) != uid:
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("it is %s, to be deleted since %v", pod.Status.Phase, pod.DeletionTimestamp)
	})
}

// back waits until the database accepts writes in a pod other than the first one, which is being taken away since began,
// and says what took how long.
func (d *database) back(first *corev1.Pod, began time.Time) *corev1.Pod {
	d.t.Helper()
	d.untilGone(string(first.UID))
	return d.up(began, time.Now())
}

// up waits until the database accepts writes, and says what took how long since began; there was no pod at gone.
func (d *database) up(began, gone time.Time) *corev1.Pod {
	d.t.Helper()
	d.write()
	written := time.Now()
	pod := &corev1.Pod{}
	d.until("the pod to be ready", func(ctx context.Context) (err error) { pod, err = d.ready(ctx); return err })
	d.figures.split(began, d.askedToGo(), gone, written, pod)
	d.t.Logf("RTO %.1f s: %.1f s until the old pod was gone, %s", written.Sub(began).Seconds(), gone.Sub(began).Seconds(), course(pod, gone, written))
	return pod
}

// course tells how a pod came up. Kubernetes tells whole seconds.
func course(pod *corev1.Pod, gone, written time.Time) string {
	restore := initStatus(pod, "outrider-restore").State.Terminated
	if restore == nil {
		return "and nobody knows when it was restored"
	}
	return fmt.Sprintf("%.0f s of Kubernetes until the restore began, %.0f s of restore, %.0f s until the first write",
		restore.StartedAt.Sub(gone).Seconds(), restore.FinishedAt.Sub(restore.StartedAt.Time).Seconds(), written.Sub(restore.FinishedAt.Time).Seconds())
}

// initStatus is that of an init container, empty if there is none.
func initStatus(pod *corev1.Pod, name string) corev1.ContainerStatus {
	for _, s := range pod.Status.InitContainerStatuses {
		if s.Name == name {
			return s
		}
	}
	return corev1.ContainerStatus{}
}

// provenClean fails the test unless the epoch ended with the proof that nothing was lost.
func (d *database) provenClean(epoch int) {
	d.t.Helper()
	if receipt := d.receipt(epoch); receipt["clean"] != true {
		d.t.Errorf("the receipt of an orderly stop: %v", receipt)
	}
}

// query asks the database for one value.
func query[T any](d *database, question string) T {
	d.t.Helper()
	var answer T
	d.until("an answer to "+question, func(ctx context.Context) error {
		c, err := pgx.Connect(ctx, d.conn())
		if err != nil {
			return err
		}
		defer c.Close(ctx)
		return c.QueryRow(ctx, question).Scan(&answer)
	})
	return answer
}

// exec executes a statement once.
func (d *database) exec(statement string) {
	d.t.Helper()
	if err := d.try(statement); err != nil {
		d.t.Fatalf("%s: %v", statement, err)
	}
}

// try executes a statement once, as soon as there is a connection, and says how that ended.
func (d *database) try(statement string) error {
	d.t.Helper()
	var c *pgx.Conn
	d.until("a connection", func(ctx context.Context) (err error) { c, err = pgx.Connect(ctx, d.conn()); return err })
	ctx, cancel := context.WithTimeout(d.t.Context(), long)
	defer cancel()
	_, err := c.Exec(ctx, statement)
	return errors.Join(err, c.Close(ctx))
}

// refused waits until the restore has refused with all of these words, where `kubectl describe pod` shows them too, and
// sees to it that PostgreSQL was not started.
func (d *database) refused(words ...string) string {
	d.t.Helper()
	var end *corev1.ContainerStateTerminated
	d.until("the restore to refuse", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		if err != nil {
			return err
		}
		s := initStatus(pod, "outrider-restore")
		if end = cmp.Or(s.State.Terminated, s.LastTerminationState.Terminated); end == nil {
			return fmt.Errorf("its state is %+v", s.State)
		}
		for _, c := range pod.Status.ContainerStatuses {
			if c.State.Waiting == nil || c.RestartCount > 0 {
				d.t.Errorf("container %s was started: %+v", c.Name, c)
			}
		}
		return nil
	})
	if end.ExitCode != 7 {
		d.t.Errorf("the restore has ended with code %d", end.ExitCode)
	}
	for _, word := range words {
		if !strings.Contains(end.Message, word) {
			d.t.Errorf("the refusal does not say %q:\n%s", word, end.Message)
		}
	}
	return end.Message
}

// volumes are the persistent ones that the namespace has, and its claims.
func (d *database) volumes() []string {
	d.t.Helper()
	client, err := ground.Client()
	if err != nil {
		d.t.Fatal(err)
	}
	var names []string
	volumes, err := client.CoreV1().PersistentVolumes().List(d.t.Context(), metav1.ListOptions{})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, v := range volumes.Items {
		if c := v.Spec.ClaimRef; c == nil || c.Namespace != d.namespace {
			continue // another scenario's
		}
		names = append(names, v.Name)
	}
	claims, err := client.CoreV1().PersistentVolumeClaims(d.namespace).List(d.t.Context(), metav1.ListOptions{})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range claims.Items {
		names = append(names, c.Namespace+"/"+c.Name)
	}
	return names
}
