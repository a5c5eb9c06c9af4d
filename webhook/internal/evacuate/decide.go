package evacuate

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

const (
	// farthest is how long before its release a node is believed to be announced. ECS says so about five minutes ahead. It
	// bounds for how long somebody who makes a notice up can keep pods away from his node.
	farthest = 15 * time.Minute
	// afterwards is how long after the announced time a node that still lives is taken for one that lives on.
	afterwards = 15 * time.Minute
	// lostFor is how long after the announced time a node that does not answer is taken for one that was reclaimed.
	lostFor = time.Hour
	// announced is how long before the release ECS sets the notice that becomes the condition InstanceExpired, which
	// names no time ("released about 5 minutes later", ECS documentation on spot instances).
	announced = 5 * time.Minute
	// spare is what is left between the end of a grace period and the release: the kubelet has to report the pod's end.
	spare = 10 * time.Second
	// leastGrace is given even when there is less time than that: nothing is gained by killing Postgres earlier.
	leastGrace = 15 * time.Second
	// patience is how long before the last moment of an orderly stop a PodDisruptionBudget is no longer waited for.
	patience = 30 * time.Second
)

// refusal is the answer to a call that must change nothing.
type refusal struct {
	outcome Outcome
	text    string
}

func (r *refusal) Error() string { return r.text }

func refuse(o Outcome, format string, args ...any) error {
	return &refusal{outcome: o, text: fmt.Sprintf(format, args...)}
}

// checkPod refuses pods that are not ours to move. The namespace's label and the containers are looked at as they are
// now; an annotation could be anybody's word.
func checkPod(pod *corev1.Pod, namespace *corev1.Namespace) error {
	name := pod.Namespace + "/" + pod.Name
	if v := namespace.Labels[policy.Prefix+"protect"]; v != string(policy.ProtectEnabled) {
		return refuse(NotProtected, "namespace %s is not protected: it has no label %sprotect=%s", namespace.Name, policy.Prefix, policy.ProtectEnabled)
	}
	_, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]
	if o := metav1.GetControllerOf(pod); mirror || o != nil && o.Kind == "Node" {
		return refuse(NotProtected, "pod %s is a static pod: its kubelet makes it, and nobody can move it", name)
	}
	if o := metav1.GetControllerOf(pod); pod.Annotations[policy.Prefix+"protect"] == string(policy.ProtectDisabled) || o != nil && o.Kind == "Job" {
		return refuse(NotProtected, "pod %s is not protected: the webhook is not asked about pods of Jobs and those that are opted out", name)
	}
	if !claims(pod) {
		return refuse(NotProtected, "pod %s is not protected: it has no containers %s and %s", name, inject.RestoreContainer, inject.SidecarContainer)
	}
	if p := pod.Status.Phase; p == corev1.PodSucceeded || p == corev1.PodFailed {
		return refuse(Finished, "pod %s has already ended (%s)", name, p)
	}
	if pod.Spec.NodeName == "" {
		return refuse(NotSpot, "pod %s is on no node yet", name)
	}
	return nil
}

// checkNode refuses nodes that nobody reclaims. A node with the condition is one that is.
func checkNode(n *corev1.Node, spot spotNodes) error {
	if spot.match(n) || conditionOf(n, expired) == corev1.ConditionTrue {
		return nil
	}
	return refuse(NotSpot, "node %s is no spot node as far as the webhook's configuration knows: evacuation.spotNodes matches neither its labels nor its taints", n.Name)
}

// checkTime refuses announcements that cannot be true or are over.
func checkTime(now, release time.Time) error {
	switch {
	case release.After(now.Add(farthest)):
		return refuse(BadTime, "the release is announced for %s, more than %v from now: ask again when it is near", stamp(release), farthest)
	case release.Before(now.Add(-afterwards)):
		return refuse(BadTime, "the release was announced for %s, more than %v ago: the node lives on", stamp(release), afterwards)
	}
	return nil
}

// claims tells whether a pod has the containers of a protected one. The webhook takes them away from pods that it does
// not protect. Where it is not asked, in a namespace without the label or for a pod that is opted out, this proves
// nothing: anybody can write them.
func claims(pod *corev1.Pod) bool {
	has := func(name string) bool {
		return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name })
	}
	return has(inject.RestoreContainer) && has(inject.SidecarContainer)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// action is what to do with a pod.
type action int

const (
	leave   action = iota // it is on its way already
	prepare               // nobody would make it anew: it stays, and has prepared itself
	evict                 // through the budget, or past it when forceAt has come
	shorten               // it stops already, with more time than there is
)

// plan is what to do with a pod whose node will be released.
type plan struct {
	action  action
	grace   int64     // seconds
	forceAt time.Time // from when on a budget is overruled
}

// decide is pure: what to do with a pod, now, when its node is released at a time.
func decide(now, release time.Time, pod *corev1.Pod) plan {
	own := corev1.DefaultTerminationGracePeriodSeconds * time.Second
	if s := pod.Spec.TerminationGracePeriodSeconds; s != nil {
		own = time.Duration(*s) * time.Second
	}
	// 0 would mean to forget the pod without asking its kubelet.
	grace := max(min(own, max(release.Sub(now)-spare, leastGrace)), time.Second)
	p := plan{action: evict, grace: int64(grace / time.Second), forceAt: release.Add(-own - patience)}
	if pod.DeletionTimestamp != nil {
		p.action = leave
		if s := pod.DeletionGracePeriodSeconds; s != nil && *s > p.grace && pod.DeletionTimestamp.After(release.Add(-spare)) {
			p.action = shorten
		}
		return p
	}
	if metav1.GetControllerOf(pod) == nil {
		p.action = prepare
	}
	return p
}

// persistent tells whether a pod has a volume that outlives it, which two nodes could then write to.
func persistent(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool {
		s := v.VolumeSource
		return s.EmptyDir == nil && s.ConfigMap == nil && s.Secret == nil && s.DownwardAPI == nil && s.Projected == nil && s.Image == nil
	})
}

// replaceable tells whether a pod of a node that was announced to be gone by now may be taken out of the API server.
func replaceable(now, release time.Time, pod *corev1.Pod, n *corev1.Node) bool {
	return now.After(release) && unreachable(n) && !persistent(pod) && metav1.GetControllerOf(pod) != nil
}

func unreachable(n *corev1.Node) bool {
	tainted := slices.ContainsFunc(n.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeUnreachable })
	return tainted && conditionOf(n, corev1.NodeReady) == corev1.ConditionUnknown
}

// expired is the condition that ACK's node-problem-detector sets on a node whose instance will be terminated.
const expired corev1.NodeConditionType = "InstanceExpired"

// conditionOf is the status of a condition; "" if the node has none of this type.
func conditionOf(n *corev1.Node, t corev1.NodeConditionType) corev1.ConditionStatus {
	for _, c := range n.Status.Conditions {
		if c.Type == t {
			return c.Status
		}
	}
	return ""
}

// noticeOf is when a node will be released, as its condition tells it.
func noticeOf(n *corev1.Node) (release time.Time, ok bool) {
	for _, c := range n.Status.Conditions {
		if c.Type == expired && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime.Add(announced), true
		}
	}
	return time.Time{}, false
}

// tasks are what there is to do about a node.
type tasks struct {
	vacate, lift, drain, replace bool
	release                      time.Time // zero if nothing says so
}

// tasksFor is pure. Without a condition, draining needs a spot node: a taint alone could be anybody's, and has been put
// there for the sake of one pod.
func tasksFor(now time.Time, n *corev1.Node, spot spotNodes, cfg Config) tasks {
	var t tasks
	release, noticed := noticeOf(n)
	t.vacate = noticed && checkTime(now, release) == nil
	at, tainted, known := taintOf(n)
	known = tainted && known
	switch {
	case noticed:
		t.release = release
	case known:
		t.release = at
	default:
		return t
	}
	if _, t.lift = lifted(now, n); t.lift {
		return t
	}
	t.drain = cfg.Drain == DrainNode && now.Before(t.release) && (noticed || spot.match(n))
	t.replace = cfg.FastReplace && now.After(t.release) && now.Before(t.release.Add(lostFor)) && unreachable(n)
	return t
}
