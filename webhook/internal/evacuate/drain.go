package evacuate

import (
	"context"
	"errors"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubectl/pkg/drain"
)

// drain begins to empty a node, in the background, one drain a node at a time: evictions are tried again until the
// release. Protected pods are left out: they have a grace of their own and a way past a budget. The taint keeps new pods
// away.
func (l *leader) drain(ctx context.Context, n *corev1.Node, release time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := release.Sub(l.now())
	if l.draining[n.UID] || left <= 0 {
		return
	}
	l.draining[n.UID] = true
	l.drains.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		if err := l.empty(ctx, n, left); err != nil && ctx.Err() == nil {
			l.log.Warn("a node could not be drained of all pods", "node", n.Name, "error", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.draining, n.UID) // pods that came since, or were not allowed to go, are seen to in the next round
	})
}

func (l *leader) empty(ctx context.Context, n *corev1.Node, left time.Duration) error {
	h := &drain.Helper{
		Ctx: ctx, Client: l.client, Timeout: left,
		GracePeriodSeconds:  -1,   // each pod's own
		IgnoreAllDaemonSets: true, // they would come back at once
		DeleteEmptyDirData:  true, // the node goes, and its disks with it
		// Until the next try of an eviction that a budget refused. The library sleeps it through whatever happens.
		EvictErrorRetryDelay: interval,
		Out:                  io.Discard, ErrOut: io.Discard,
		AdditionalFilters: []drain.PodFilter{l.notOurs},
		OnPodDeletionOrEvictionFinished: func(pod *corev1.Pod, _ bool, err error) {
			if err == nil {
				l.metrics.pods.WithLabelValues(drained).Inc()
				l.log.Info("a pod was drained", "namespace", pod.Namespace, "pod", pod.Name, "node", n.Name)
			}
		},
	}
	list, errs := h.GetPodsForDeletion(n.Name)
	if list == nil {
		return errors.Join(errs...)
	}
	// Pods that nobody would make anew are among the errors, and stay. All others go.
	return errors.Join(append(errs, h.DeleteOrEvictPods(list.Pods()))...)
}

// notOurs leaves out what is moved on its own, and pods that have ended.
func (l *leader) notOurs(pod corev1.Pod) drain.PodDeleteStatus {
	if claims(&pod) || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return drain.MakePodDeleteStatusSkip()
	}
	return drain.MakePodDeleteStatusOkay()
}
