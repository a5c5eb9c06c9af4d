package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/inject"
)

// States that the sidecar does not know, because it is not there or does not run yet. The others are its own.
const (
	StateUnprotected = "unprotected"    // a database without a sidecar
	StateSuspected   = "suspected"      // what may be one, without a sidecar
	StateUnknown     = "unknown"        // could not be told; Reason says why
	StateRestoring   = "restoring"      // outrider-restore is at work
	StateRestoreFail = "restore_failed" // outrider-restore ended with an error and is started again
	StatePending     = "pending"        // nothing of the pod runs yet
)

// Database is one pod with a database, and what is known of it. What is unknown is absent.
type Database struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Workload  string `json:"workload,omitempty"` // TYPE/NAME
	Node      string `json:"node,omitempty"`
	State     string `json:"state"`
	Reason    string `json:"reason,omitempty"`
	// Ending tells that the pod is being deleted.
	Ending bool `json:"ending,omitempty"`
	// Sidecar is what the sidecar said.
	Sidecar *Report `json:"sidecar,omitempty"`

	pod *corev1.Pod
}

// Report is what is read of the JSON of the sidecar's /status. Times are the sidecar's.
type Report struct {
	State             string     `json:"state"`
	Reason            string     `json:"reason,omitempty"`
	Since             *time.Time `json:"since,omitempty"`
	NotProtectedSince *time.Time `json:"not_protected_since,omitempty"`
	Archive           string     `json:"archive,omitempty"`
	Epoch             uint64     `json:"epoch,omitempty"`
	Timeline          uint32     `json:"timeline,omitempty"`
	UnshippedBytes    *int64     `json:"unshipped_bytes,omitempty"`
	AgeSeconds        *float64   `json:"unshipped_age_seconds,omitempty"` // of the oldest commit that is not in the archive, at most
	Trouble           string     `json:"trouble,omitempty"`
	RecoverableFrom   *time.Time `json:"recoverable_from,omitempty"`          // begin of the recovery window
	PredictedRestore  *float64   `json:"predicted_restore_seconds,omitempty"` // until the first write
	LastSnapshot      *Snapshot  `json:"last_snapshot,omitempty"`
	SnapshotTrouble   string     `json:"snapshot_trouble,omitempty"`
	Drills            *Drills    `json:"restore_drills,omitempty"` // nil: none are expected, or nobody has looked yet
	Store             *Store     `json:"store,omitempty"`
	Slot              *Slot      `json:"slot,omitempty"`
	Notice            *Notice    `json:"notice,omitempty"`
	Version           string     `json:"version,omitempty"`
}

// Snapshot is the last one in the archive that a restore could start from, whoever took it.
type Snapshot struct {
	Name  string    `json:"name"`
	Taken time.Time `json:"taken"`
}

// Notice says when the machine will be taken away.
type Notice struct {
	At time.Time `json:"at"`
}

// Concurrency and patience when sidecars are asked.
const (
	asked    = 10
	patience = 10 * time.Second
)

// Databases finds the databases of a namespace, or with "" of all, and asks each for its state. A database that cannot
// be asked is in the answer, as unknown. The order is that of namespaces and names.
func (c *Cluster) Databases(ctx context.Context, namespace string) ([]Database, error) {
	all, err := c.find(ctx, namespace)
	if err != nil {
		return nil, err
	}
	c.ask(ctx, all)
	return all, ctx.Err()
}

// find lists the databases without asking them.
func (c *Cluster) find(ctx context.Context, namespace string) ([]Database, error) {
	places, err := c.places(ctx, namespace)
	if err != nil {
		return nil, err
	}
	pods, err := c.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("listing pods: %w", err)
	}
	return databases(places, pods.Items, c.configuration(ctx)), nil
}

// ask asks all databases that have a sidecar which runs, several at a time.
func (c *Cluster) ask(ctx context.Context, all []Database) {
	var g errgroup.Group
	g.SetLimit(asked)
	for i := range all {
		if all[i].State != "" {
			continue
		}
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			r, err := c.status(ctx, all[i].pod)
			all[i].told(r, err)
			return nil
		})
	}
	_ = g.Wait() // what went wrong is in the rows
}

// told notes the answer of a sidecar, or why there is none.
func (d *Database) told(r *Report, err error) {
	if err != nil {
		d.State, d.Reason = StateUnknown, err.Error()
		return
	}
	d.Sidecar, d.State, d.Reason = r, r.State, cmp.Or(r.Reason, r.Trouble)
	if r.SnapshotTrouble != "" && d.Reason == "" {
		d.Reason = "the last snapshot: " + r.SnapshotTrouble
	}
}

// databases is pure: which pods are databases, and what their status says. State is "" where a sidecar has to be asked.
func databases(places []place, pods []corev1.Pod, conf configuration) []Database {
	byName := map[string]place{}
	for _, p := range places {
		byName[p.name] = p
	}
	var all []Database
	for i := range pods {
		pod := &pods[i]
		if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		where, known := byName[pod.Namespace]
		if !known {
			where = place{name: pod.Namespace}
		}
		d := Database{
			Namespace: pod.Namespace, Pod: pod.Name, Workload: workload(pod), Node: pod.Spec.NodeName,
			Ending: pod.DeletionTimestamp != nil, pod: pod,
		}
		if claims(pod) {
			d.State, d.Reason = progress(pod)
		} else if d.State, d.Reason = unprotected(pod, where, conf); d.State == "" {
			continue
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Database) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Pod, b.Pod))
	})
	return all
}

// unprotected judges a pod without a sidecar; "" if it is none of ours. Without the configuration it is still known to be
// a database, and not whether it would be refused.
func unprotected(pod *corev1.Pod, where place, conf configuration) (state, reason string) {
	if where.name == systemNamespace || where.name == metav1.NamespaceSystem {
		return "", ""
	}
	wanted := pod.Annotations[protectLabel] == "enabled"
	if !where.labelled() && !wanted && where.trouble == nil {
		return "", ""
	}
	d, err := inject.Pod(pod, where.input(conf))
	switch {
	case err == nil && d.Suspected() && where.labelled(): // elsewhere nobody has asked for protection
		return StateSuspected, strings.Join(d.Warnings, "; ")
	case err == nil && d.Reason != inject.Injected:
		return "", ""
	case where.trouble != nil && !wanted:
		return StateUnprotected, fmt.Sprintf("it has no sidecar; whether its namespace asks for one is unknown: %v", where.trouble)
	case !where.labelled():
		return StateUnprotected, "its annotation asks for protection, and its namespace has no label: kubectl label namespace " + pod.Namespace + " " + protectLabel + "=enabled"
	case err != nil && conf.trouble == nil:
		return StateUnprotected, fmt.Sprintf("made anew, it would be refused (%s): %v", d.Reason, err)
	}
	return StateUnprotected, "it was made before its namespace was labelled, or while nobody asked the webhook: delete the pod, so that it is made anew (take a dump first if its disk is not persistent)"
}

// progress reads from a protected pod's status how far it is; "" once its sidecar runs.
func progress(pod *corev1.Pod) (state, reason string) {
	restore, sidecar := initStatus(pod, inject.RestoreContainer), initStatus(pod, inject.SidecarContainer)
	switch {
	case sidecar != nil && sidecar.State.Running != nil:
		return "", ""
	case restore == nil || sidecar == nil:
		return StatePending, unscheduled(pod)
	case restore.State.Running != nil:
		return StateRestoring, "kubectl -n " + pod.Namespace + " logs " + pod.Name + " -c " + inject.RestoreContainer + " tells how far it is"
	case restore.State.Terminated != nil && restore.State.Terminated.ExitCode != 0:
		return StateRestoreFail, last(restore.State.Terminated)
	case restore.State.Waiting != nil && restore.LastTerminationState.Terminated != nil:
		return StateRestoreFail, last(restore.LastTerminationState.Terminated)
	case restore.State.Waiting != nil:
		return StatePending, waits(inject.RestoreContainer, restore.State.Waiting)
	case sidecar.State.Terminated != nil:
		return StateUnknown, "the sidecar has ended: " + last(sidecar.State.Terminated)
	case sidecar.LastTerminationState.Terminated != nil:
		return StateUnknown, "the sidecar does not run: " + last(sidecar.LastTerminationState.Terminated)
	case sidecar.State.Waiting != nil:
		return StatePending, waits(inject.SidecarContainer, sidecar.State.Waiting)
	}
	return StatePending, ""
}

func waits(container string, w *corev1.ContainerStateWaiting) string {
	return strings.TrimSuffix(fmt.Sprintf("container %s waits: %s: %s", container, w.Reason, w.Message), ": ")
}

// last is what a container said at its end.
func last(t *corev1.ContainerStateTerminated) string {
	text := strings.TrimSpace(t.Message)
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return strings.TrimSuffix(fmt.Sprintf("exit code %d, %s: %s", t.ExitCode, t.Reason, text), ": ")
}

// unscheduled says why a pod has no node.
func unscheduled(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status != corev1.ConditionTrue {
			return c.Message
		}
	}
	return ""
}

// deploymentOf is the Deployment of a ReplicaSet's pod: ReplicaSets of Deployments are called NAME-HASH.
func deploymentOf(pod *corev1.Pod, owner *metav1.OwnerReference) (string, bool) {
	hash := pod.Labels["pod-template-hash"]
	if owner.Kind != "ReplicaSet" || hash == "" {
		return "", false
	}
	return strings.CutSuffix(owner.Name, "-"+hash)
}

func lower(s string) string { return strings.ToLower(s) }
