package report

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/webhook/internal/caller"
)

// Recorder writes Events, without waiting for them. Recorders of k8s.io/client-go/tools/events and those of a
// controller-runtime manager are such.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Options are what New needs. Client and Recorder are required.
type Options struct {
	Client     kubernetes.Interface // asks the API server; the rights are in the package's description
	Recorder   Recorder
	Registerer prometheus.Registerer // nil for no metrics
	Log        *slog.Logger          // nil for none
}

// Reporter makes Events of what sidecars report. It is safe for concurrent use.
type Reporter struct {
	client   kubernetes.Interface
	recorder Recorder
	metrics  *metrics
	log      *slog.Logger
	reviews  *caller.Gate
	pods     *caller.Limiter
	now      func() time.Time
}

// New makes a Reporter. Nothing is asked yet.
func New(o Options) (*Reporter, error) {
	if o.Client == nil || o.Recorder == nil {
		return nil, errors.New("reports need a client of the API server and somewhere to write Events")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Reporter{
		client: o.Client, recorder: o.Recorder, metrics: newMetrics(o.Registerer), log: o.Log,
		reviews: caller.NewGate(reviewsPerSecond, reviewsBurst), pods: caller.NewLimiter(podInterval, podBurst), now: time.Now,
	}, nil
}

// tell writes the Events: on the pod, and on its workload with the pod beside it. References have no resource version:
// with one, an Event would be another each time that the pod's status changes, and none would be counted up.
func (r *Reporter) tell(ctx context.Context, pod *corev1.Pod, e event) {
	ref := podReference(pod)
	r.recorder.Eventf(ref, nil, e.kind, e.reason, e.action, "%s", e.note)
	owner, err := workload(ctx, r.client, pod)
	if err != nil {
		r.log.WarnContext(ctx, "an Event is on the pod alone", "namespace", pod.Namespace, "pod", pod.Name, "reason", e.reason, "error", err)
		return
	}
	if owner != nil {
		r.recorder.Eventf(owner, ref, e.kind, e.reason, e.action, "%s: %s", pod.Name, e.note)
	}
}

func podReference(pod *corev1.Pod) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// workload is what people call the maker of a pod: the Deployment of a ReplicaSet, else the maker itself; nil without.
func workload(ctx context.Context, client kubernetes.Interface, pod *corev1.Pod) (*corev1.ObjectReference, error) {
	o := metav1.GetControllerOf(pod)
	if o == nil {
		return nil, nil
	}
	if o.Kind == "ReplicaSet" {
		s, err := client.AppsV1().ReplicaSets(pod.Namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading ReplicaSet %s/%s: %w", pod.Namespace, o.Name, err)
		}
		if err == nil && s.UID == o.UID && metav1.GetControllerOf(s) != nil {
			o = metav1.GetControllerOf(s)
		}
	}
	return &corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: pod.Namespace, Name: o.Name, UID: o.UID}, nil
}
