package evacuate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// Recorder writes Events. Recorders of k8s.io/client-go/tools/events and those of a controller-runtime manager are such.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Options are what New needs. Client is required.
type Options struct {
	Client     kubernetes.Interface // asks the API server; the rights are in the package's description
	Config     Config
	Recorder   Recorder              // nil for no Events
	Registerer prometheus.Registerer // nil for no metrics
	Log        *slog.Logger          // nil for none
}

// Evacuator moves protected pods away from nodes that are about to be reclaimed. It is safe for concurrent use.
type Evacuator struct {
	client   kubernetes.Interface
	cfg      Config
	spot     spotNodes
	recorder Recorder
	metrics  *metrics
	log      *slog.Logger
	limits   *limits
	now      func() time.Time
}

// New makes an Evacuator; its errors are those of Config.Validate. Nothing is asked yet.
func New(o Options) (*Evacuator, error) {
	spot, err := o.Config.compile()
	if err != nil {
		return nil, err
	}
	if o.Client == nil {
		return nil, errors.New("evacuation needs a client of the API server")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Evacuator{
		client: o.Client, cfg: o.Config, spot: spot, recorder: o.Recorder, metrics: newMetrics(o.Registerer), log: o.Log,
		limits: newLimits(), now: time.Now,
	}, nil
}

func (e *Evacuator) event(regarding, related runtime.Object, kind, reason, action, note string, args ...any) { //nolint:revive // the recorder's own arguments
	if e.recorder != nil {
		e.recorder.Eventf(regarding, related, kind, reason, action, note, args...)
	}
}

// evacuate taints the node first, so that the pod's successor is not put there again, and moves the pod also when that
// did not work: it may come back here, but is asked away again.
func (e *Evacuator) evacuate(ctx context.Context, pod *corev1.Pod, n *corev1.Node, release time.Time) (Answer, error) {
	terr := e.taintOnce(ctx, n, release, notice{"pod " + pod.Namespace + "/" + pod.Name, pod.UID})
	a, err := e.move(ctx, pod, n, release)
	if err != nil {
		return a, errors.Join(err, terr)
	}
	a.Tainted = terr == nil
	if terr != nil {
		e.log.Error("a node could not be tainted, and may get the pod again that leaves it", "node", n.Name, "namespace", pod.Namespace, "pod", pod.Name, "error", terr)
		a.Message += "; its node could not be tainted"
	}
	return a, nil
}

// taintOnce is taint, for nodes that do not get one notice after the other, and not from who was wrong before.
func (e *Evacuator) taintOnce(ctx context.Context, n *corev1.Node, release time.Time, by notice) error {
	if standing(e.now(), n) {
		return nil
	}
	if doubted(e.now(), n, by.pod) {
		return fmt.Errorf("the last notice of this pod about node %s did not come true: it is not believed again for %v (annotation %s)", n.Name, distrust, Disproved)
	}
	if !e.limits.mayTaint(e.now(), n) {
		return fmt.Errorf("node %s has had too many notices lately: it is not tainted again for %v", n.Name, nodeInterval)
	}
	_, err := e.taint(ctx, n, release, by)
	return err
}

// move does with a pod what decide says. The error is set where it could not be told whether the pod will go; its text
// says why.
func (e *Evacuator) move(ctx context.Context, pod *corev1.Pod, n *corev1.Node, release time.Time) (Answer, error) {
	p := decide(e.now(), release, pod)
	a := Answer{Node: n.Name, GraceSeconds: p.grace}
	switch p.action {
	case leave:
		a.Outcome, a.Message, a.GraceSeconds = Terminating, "the pod is already being stopped", 0
		return a, nil
	case prepare:
		a.Outcome, a.Message, a.GraceSeconds = PreparedOnly, "the pod has no controller, so nobody would make it anew: it stays, and what is committed is in the archive", 0
		return a, nil
	case shorten:
		a.Outcome, a.Message = Terminating, "the pod is already being stopped, with more time than there is: it was shortened"
		return a, e.remove(ctx, pod, p.grace)
	case evict: // below
	}
	err := e.evict(ctx, pod, p.grace)
	if err == nil {
		e.moved(pod, n, release, Evicted, p.grace)
		a.Outcome, a.Message = Evicted, fmt.Sprintf("the pod is evicted and has %d s to stop", p.grace)
		return a, nil
	}
	if over, rerr := gone(pod, err); over {
		a.Outcome, a.GraceSeconds = NoPod, 0
		return a, rerr
	}
	if e.now().Before(p.forceAt) {
		if !budget(err) {
			return a, err
		}
		if missingRight(err) {
			return e.forbidden(pod, n, p, a), nil
		}
		e.event(pod, n, corev1.EventTypeWarning, "EvacuationWaits", "Evict", "a PodDisruptionBudget keeps this pod on node %s, which is released at %s; it is deleted at %s",
			n.Name, stamp(release), stamp(p.forceAt))
		a.Outcome, a.ForcedAt = Waiting, &p.forceAt
		a.Message = fmt.Sprintf("the eviction is refused until %s at the latest, then the pod is deleted: %s", stamp(p.forceAt), reasonOf(err))
		return a, nil
	}
	if derr := e.remove(ctx, pod, p.grace); derr != nil {
		return a, errors.Join(err, derr)
	}
	e.moved(pod, n, release, Deleted, p.grace)
	a.Outcome, a.Message = Deleted, fmt.Sprintf("the pod is deleted and has %d s to stop; its eviction was refused: %s", p.grace, reasonOf(err))
	return a, nil
}

// forbidden is the answer while the webhook itself may not evict. It waits as for a budget, because the right may be given,
// and then deletes, which is another right.
func (e *Evacuator) forbidden(pod *corev1.Pod, n *corev1.Node, p plan, a Answer) Answer {
	const text = "outrider-webhook lacks the right to create pods/eviction: apply manifests/base/rbac.yaml again"
	e.log.Error("a pod could not be evicted", "namespace", pod.Namespace, "pod", pod.Name, "node", n.Name, "error", text, "deleted_at", p.forceAt)
	e.event(pod, n, corev1.EventTypeWarning, "EvacuationForbidden", "Evict", "%s; this pod is deleted at %s", text, stamp(p.forceAt))
	a.Outcome, a.ForcedAt = Waiting, &p.forceAt
	a.Message = fmt.Sprintf("%s; until then, or %s, when the pod is deleted, it stays", text, stamp(p.forceAt))
	return a
}

func (e *Evacuator) moved(pod *corev1.Pod, n *corev1.Node, release time.Time, how Outcome, grace int64) {
	e.metrics.pods.WithLabelValues(string(how)).Inc()
	e.log.Warn("a pod leaves its node", "namespace", pod.Namespace, "pod", pod.Name, "node", n.Name, "how", string(how), "grace_seconds", grace, "release_at", release)
	e.event(pod, n, corev1.EventTypeNormal, "Evacuated", "Evict", "node %s is released at %s: %s with %d s to stop", n.Name, stamp(release), how, grace)
}

// preconditions make sure that it is this pod, not another of its name.
func preconditions(pod *corev1.Pod, grace int64) *metav1.DeleteOptions {
	return &metav1.DeleteOptions{GracePeriodSeconds: &grace, Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
}

// evict asks once. The client's own retries would sleep away the time that there is, because a budget's refusal can say
// "retry after 10 s" ten times over.
func (e *Evacuator) evict(ctx context.Context, pod *corev1.Pod, grace int64) error {
	err := e.client.PolicyV1().RESTClient().Post().AbsPath("/api/v1").Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("eviction").
		Body(&policyv1.Eviction{
			TypeMeta:      metav1.TypeMeta{APIVersion: "policy/v1", Kind: "Eviction"},
			ObjectMeta:    metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name},
			DeleteOptions: preconditions(pod, grace),
		}).MaxRetries(0).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("evicting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

func (e *Evacuator) remove(ctx context.Context, pod *corev1.Pod, grace int64) error {
	err := e.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *preconditions(pod, grace))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}

// gone tells whether a pod went away, or became another one, since it was read.
func gone(pod *corev1.Pod, err error) (bool, error) {
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return true, refuse(NoPod, "the pod %s/%s with uid %s is gone", pod.Namespace, pod.Name, pod.UID)
	}
	return false, nil
}

// budget tells whether an eviction was refused by what guards pods, so that it may be allowed later: a budget's 429, or
// the 500 for a pod with two of them, which no waiting heals and only the deletion does.
func budget(err error) bool {
	var s apierrors.APIStatus
	return apierrors.IsTooManyRequests(err) || apierrors.IsForbidden(err) || errors.As(err, &s) && s.Status().Code == 500
}

// missingRight tells whether an eviction was refused because the webhook may not evict at all. Others, such as policies of
// the cluster, refuse with the same status.
func missingRight(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(reasonOf(err), `cannot create resource "pods/eviction"`)
}

// reasonOf is what the API server said, without what was being done.
func reasonOf(err error) string {
	var s apierrors.APIStatus
	if errors.As(err, &s) {
		return s.Status().Message
	}
	return err.Error()
}
