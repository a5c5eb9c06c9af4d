// Package inject decides what protecting a pod means: which container is PostgreSQL, where its data is, who it is in the
// archive, and what the pod gets. It is a function from a pod to a pod: it asks no server and reads no clock, so that
// the webhook, the command line and a review of a template give the same answer.
//
// It always takes away what is Outrider's and computes it anew. Doing it twice is doing it once, and a copy of a
// protected pod inherits nothing, least of all the identity of a database.
package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"outrider.dev/sidecar/policy"
)

// Input is what has to be known beside the pod.
type Input struct {
	// Namespace is the one of the admission request. The pod's own may be empty.
	Namespace string
	// Levels are the policy's levels above the pod, the weakest first: the configuration, then the namespace.
	Levels []policy.Level
	Image  Image
	// KubernetesCluster is the uid of the namespace kube-system: whose epochs these are.
	KubernetesCluster string
	Evacuation        Evacuation
	RRSA              RRSA
	// MetadataURL replaces the metadata service of the cloud, for tests and other clouds. "" leaves it.
	MetadataURL string
	// Former tells whether a database of this identity has been protected before. Such a pod is refused, not passed over,
	// when nothing in it looks like PostgreSQL any more. nil knows of none.
	Former func(cluster string) bool
}

// Image is the sidecar's container image. Its entry point is the program outrider.
type Image struct {
	Name string
	Pull corev1.PullPolicy // "" is IfNotPresent
}

// Evacuation says how the sidecar asks for its pod to be moved away. An empty URL leaves it out.
type Evacuation struct {
	URL string
	CA  string // PEM of the authorities that sign the webhook's certificate, old and new while they change
}

// RRSA is the identity provider of ACK's RAM roles for service accounts.
type RRSA struct {
	ProviderARN string // acs:ram::ACCOUNT:oidc-provider/NAME
	STSEndpoint string // "" is the sidecar's default
	VPC         bool   // use the endpoint inside the VPC
}

// Decision is the outcome for one pod.
type Decision struct {
	// Pod is the pod as it should be, nil if it is so already. It shares nothing with the pod that was given.
	Pod *corev1.Pod
	// Reason is set also when there is an error.
	Reason Reason
	// Policy and Sources are the effective policy, empty for a pod that is left alone.
	Policy  policy.Policy
	Sources policy.Sources
	// Warnings are for people: what will hurt, and what to do about it.
	Warnings []string
}

// Pod decides about a pod. An error means that the pod must not be admitted; its text tells a person why and what to
// do, and Decision.Reason is then one of those that Refused tells of. The given pod is not changed.
func Pod(pod *corev1.Pod, in Input) (Decision, error) {
	was := statusOf(pod)
	w := &work{in: in, pod: pod.DeepCopy(), was: was}
	strip(w.pod)
	reason, err := w.decide()
	if err != nil {
		if r, ok := reasonOf(err); ok {
			reason = r
		}
		return Decision{Reason: reason, Warnings: w.warnings}, err
	}
	d := Decision{Reason: reason, Warnings: w.warnings}
	if reason == Injected || reason == Drill {
		d.Policy, d.Sources = w.policy, w.sources
	}
	if !equality.Semantic.DeepEqual(pod, w.pod) {
		d.Pod = w.pod
	}
	return d, nil
}

// work is one pod on its way.
type work struct {
	in       Input
	was      status // what an earlier injection said of the pod that was given
	pod      *corev1.Pod
	policy   policy.Policy
	sources  policy.Sources
	postgres int // which of the pod's containers
	image    layout
	user     user
	cluster  string
	data     data
	warnings []string
}

// pg is the PostgreSQL container.
func (w *work) pg() *corev1.Container { return &w.pod.Spec.Containers[w.postgres] }

// decide changes w.pod if the answer is Injected.
func (w *work) decide() (Reason, error) {
	if reason, alone := leftAlone(w.pod); alone {
		return reason, nil
	}
	if isDrill(w.pod) {
		return w.decideDrill()
	}
	found, err := w.detect()
	if err != nil {
		return "", err
	}
	if !found {
		return w.without()
	}
	for _, step := range []func() error{
		w.free, w.identify, w.resolveUser, w.resolveData, w.resolveWAL, w.completePolicy, w.inject,
	} {
		if err := step(); err != nil {
			return "", err
		}
	}
	return Injected, nil
}

// leftAlone finds the pods that are none of ours whatever is in them.
func leftAlone(pod *corev1.Pod) (Reason, bool) {
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror {
		return MirrorPod, true
	}
	if pod.Annotations[policy.Prefix+"protect"] == string(policy.ProtectDisabled) {
		return OptedOut, true
	}
	if owner := controllerOf(pod); owner != nil && owner.Kind == "Job" && !isDrill(pod) {
		return JobPod, true
	}
	return "", false
}

// without is the answer for a pod in which nothing runs PostgreSQL.
func (w *work) without() (Reason, error) {
	if w.in.Former == nil {
		return NoPostgres, nil
	}
	name, err := identityOf(w.pod)
	if err != nil || !w.in.Former(name) {
		return NoPostgres, nil //nolint:nilerr // a pod without an identity was never a database of ours
	}
	return "", refuse(PostgresVanished, "the database %s has an archive, and no container of this pod looks like PostgreSQL any more, so it would start unprotected: "+
		"name the container in %scontainer, or set %sprotect to disabled", name, policy.Prefix, policy.Prefix)
}
