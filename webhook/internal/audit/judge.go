package audit

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"outrider.dev/webhook/internal/inject"
)

// State is what a pod of a protected namespace is. Pods that are none of ours have none.
type State string

// The states.
const (
	// Protected as it would be if it were made now.
	Protected State = "protected"
	// Outdated is protected with another image or policy than it would get now.
	Outdated State = "outdated"
	// Unprotected is a database without what protects it.
	Unprotected State = "unprotected"
	// Suspected may be such a database: it looks like one, and whether it is cannot be told.
	Suspected State = "suspected"
	// Refused is a pod that runs and would not be admitted now, be it protected or not: it cannot be made anew.
	Refused State = "refused"
)

// States are all of them.
func States() []State { return []State{Protected, Outdated, Unprotected, Suspected, Refused} }

// verdict is what there is to say about one pod.
type verdict struct {
	state    State  // "" for a pod that is none of ours
	text     string // why, and what to do; "" if all is well
	warnings []string
}

// judge is pure: what a pod is, compared with what the webhook would make of it now.
func judge(pod *corev1.Pod, in inject.Input) verdict {
	if pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return verdict{}
	}
	d, err := inject.Pod(pod, in)
	switch {
	case err != nil:
		return verdict{state: Refused, text: fmt.Sprintf("this pod could not be made anew: the webhook would refuse it (%s): %v", d.Reason, err)}
	case d.Suspected():
		// Whoever applied the workload read it once, if at all. It wakes nobody: a name is not a database.
		return verdict{state: Suspected, text: strings.Join(d.Warnings, "; ")}
	case d.Reason != inject.Injected:
		return verdict{}
	case !claims(pod):
		return verdict{
			state: Unprotected, warnings: d.Warnings,
			text: "this pod holds a database that is not protected: it was made before its namespace was, or while nobody asked the webhook. Take a dump if its disk is not persistent, then delete the pod, so that it is made anew",
		}
	case d.Pod == nil:
		return verdict{state: Protected, warnings: d.Warnings}
	}
	diff := differences(pod, d.Pod)
	if len(diff) == 0 {
		return verdict{state: Protected, warnings: d.Warnings}
	}
	return verdict{
		state: Outdated, warnings: d.Warnings,
		text: "this pod is protected otherwise than it would be now (" + strings.Join(diff, ", ") + "): it takes over what is new when it is made anew" + renewal(diff),
	}
}

// renewal tells what can be had without stopping PostgreSQL.
func renewal(diff []string) string {
	if !slices.Contains(diff, imageOf(inject.SidecarContainer)) {
		return ""
	}
	return ". The image of the init container " + inject.SidecarContainer + " can be changed in the running pod: only the sidecar starts again"
}

func imageOf(container string) string { return "image of " + container }

func claims(pod *corev1.Pod) bool {
	return ours(pod, inject.RestoreContainer) != nil && ours(pod, inject.SidecarContainer) != nil
}

func ours(pod *corev1.Pod, name string) *corev1.Container {
	for i, c := range pod.Spec.InitContainers {
		if c.Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

// differences names what a pod lacks of what it would get. What others have added to our containers is theirs.
func differences(have, want *corev1.Pod) (diff []string) {
	for _, name := range []string{inject.SidecarContainer, inject.RestoreContainer} {
		h, w := ours(have, name), ours(want, name)
		if h == nil || w == nil {
			continue
		}
		if h.Image != w.Image {
			diff = append(diff, imageOf(name))
		}
		if !slices.Equal(h.Args, w.Args) {
			diff = append(diff, "arguments of "+name)
		}
		diff = append(diff, variables(h, w)...)
	}
	if h, w := have.Spec.TerminationGracePeriodSeconds, want.Spec.TerminationGracePeriodSeconds; h != nil && w != nil && *h < *w {
		diff = append(diff, "grace period")
	}
	slices.Sort(diff)
	return slices.Compact(diff)
}

func variables(have, want *corev1.Container) (diff []string) {
	names := map[string]bool{}
	for _, w := range want.Env {
		names[w.Name] = true
		i := slices.IndexFunc(have.Env, func(h corev1.EnvVar) bool { return h.Name == w.Name })
		switch {
		case i < 0:
			diff = append(diff, w.Name)
		case equality.Semantic.DeepEqual(have.Env[i], w), w.Name == authorities && shared(have.Env[i].Value, w.Value):
		default:
			diff = append(diff, w.Name)
		}
	}
	for _, h := range have.Env {
		if !names[h.Name] && strings.HasPrefix(h.Name, "OUTRIDER_") {
			diff = append(diff, h.Name)
		}
	}
	return diff
}

// authorities is the variable with the certificates that a sidecar believes. They are changed with an overlap: a pod
// that knows one of those in use is not outdated.
const authorities = "OUTRIDER_EVACUATION_CA"

func shared(a, b string) bool {
	const end = "-----END CERTIFICATE-----"
	known := map[string]bool{}
	for c := range strings.SplitSeq(a, end) {
		known[strings.TrimSpace(c)] = true
	}
	for c := range strings.SplitSeq(b, end) {
		if c = strings.TrimSpace(c); c != "" && known[c] {
			return true
		}
	}
	return false
}

// blocking names the budgets that no eviction of a pod can satisfy, with the reason. A budget that allows nothing only
// while a pod is not ready is none of them.
func blocking(pod *corev1.Pod, budgets []policyv1.PodDisruptionBudget) (found []policyv1.PodDisruptionBudget, text string) {
	var all []policyv1.PodDisruptionBudget
	for _, b := range budgets {
		s, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || !s.Matches(labels.Set(pod.Labels)) {
			continue
		}
		all = append(all, b)
		if b.Status.ObservedGeneration == b.Generation && b.Status.ExpectedPods > 0 && b.Status.DesiredHealthy >= b.Status.ExpectedPods {
			found = append(found, b)
		}
	}
	const then = "an evacuation of this pod waits as long as it can and then deletes it"
	if len(all) > 1 {
		names := make([]string, len(all))
		for i, b := range all {
			names[i] = b.Name
		}
		return all, fmt.Sprintf("the disruption budgets %s all apply, which the eviction API does not support: %s; leave one of them", strings.Join(names, ", "), then)
	}
	if len(found) == 0 {
		return nil, ""
	}
	return found, fmt.Sprintf("disruption budget %s never allows a disruption (%d of %d pods have to be healthy): %s, and a drain of its node never ends; a database with one replica is better off without it",
		found[0].Name, found[0].Status.DesiredHealthy, found[0].Status.ExpectedPods, then)
}
