package report

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
)

// lookupWithin bounds the question whose pod it is: an Event is not worth more.
const lookupWithin = 2 * time.Second

// ToOwners is a Recorder that says of each Event about a pod to the pod's workload, too: a pod that is moved away takes
// its own Events out of sight.
func ToOwners(to Recorder, client kubernetes.Interface, log *slog.Logger) Recorder {
	return &owners{to: to, client: client, log: log}
}

type owners struct {
	to     Recorder
	client kubernetes.Interface
	log    *slog.Logger
}

// Eventf implements Recorder.
func (o *owners) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) { //nolint:revive // the recorder's own arguments
	o.to.Eventf(regarding, related, kind, reason, action, note, args...)
	pod, ok := regarding.(*corev1.Pod)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupWithin)
	defer cancel()
	owner, err := workload(ctx, o.client, pod)
	if err != nil {
		o.log.Warn("an Event is on the pod alone", "namespace", pod.Namespace, "pod", pod.Name, "reason", reason, "error", err)
		return
	}
	if owner != nil {
		o.to.Eventf(owner, podReference(pod), kind, reason, action, "%s: "+note, append([]any{pod.Name}, args...)...)
	}
}
