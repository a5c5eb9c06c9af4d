package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// webhookName is what the API server calls the webhook when it was denied or could not be reached.
const webhookName = `"pods.outrider.dev"`

// guardName is what it calls the guard. That one refuses also where the webhook is not asked: when a namespace has lost its
// label, or the registration is gone.
const guardName = `ValidatingAdmissionPolicy 'outrider-guard'`

// recent is how old an Event of a controller that cannot make a pod may be. Its next try can be 1000 s away.
const recent = 20 * time.Minute

// unknown is how many workloads wait where something could not be read.
const unknown = -1

// waiting counts the workloads that lack pods because of the webhook or the guard, by namespace, labelled or not, and tells
// them what to do. What keeps a pod from being made is in no status but that of ReplicaSets, so the controllers' Events
// are read. With an error the counts of some namespaces are unknown, or all are.
func (a *Auditor) waiting(ctx context.Context) (map[string]int, error) {
	last, err := a.refusals(ctx)
	if err != nil {
		return nil, err
	}
	counts, said := map[string]int{}, map[corev1.ObjectReference]bool{}
	var errs []error
	for key, e := range last {
		owner, lacks, err := a.lacking(ctx, key.Namespace, key)
		if err != nil {
			errs = append(errs, fmt.Errorf("in namespace %s: %w", key.Namespace, err))
			counts[key.Namespace] = unknown
			continue
		}
		if !lacks || said[*owner] {
			continue
		}
		said[*owner] = true
		if counts[key.Namespace] != unknown {
			counts[key.Namespace]++
		}
		a.say(owner, nil, "WaitsForProtection", fmt.Sprintf("%s. Its controller tries again ever later, up to 17 minutes apart. When the cause is gone, any change wakes it at once: kubectl -n %s annotate %s %s woken-at=\"$(date)\" --overwrite",
			cause(e.Note), key.Namespace, strings.ToLower(owner.Kind), owner.Name))
	}
	return counts, errors.Join(errs...)
}

// eventsAtOnce bounds what is held of the Events of a whole cluster.
const eventsAtOnce = 500

// refusals are the latest Events about each maker of pods that was refused one, everywhere.
func (a *Auditor) refusals(ctx context.Context) (map[corev1.ObjectReference]*eventsv1.Event, error) {
	last := map[corev1.ObjectReference]*eventsv1.Event{}
	options := metav1.ListOptions{FieldSelector: "reason=FailedCreate", Limit: eventsAtOnce}
	for {
		list, err := a.client.EventsV1().Events(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing events: %w", err)
		}
		for i := range list.Items {
			e := &list.Items[i]
			ours := strings.Contains(e.Note, webhookName) || strings.Contains(e.Note, guardName)
			if !ours || time.Since(lastSeen(e)) > recent || slices.Contains(excluded(), e.Namespace) {
				continue
			}
			o := e.Regarding
			key := corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: e.Namespace, Name: o.Name, UID: o.UID}
			if was := last[key]; was == nil || lastSeen(was).Before(lastSeen(e)) {
				last[key] = e
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return last, nil
		}
	}
}

// longestCause leaves room in an Event for what to do about it.
const longestCause = 600

// cause is what the API server said about the webhook or the guard, without the controller's words before it.
func cause(note string) string {
	if len(note) > longestCause {
		note = strings.ToValidUTF8(note[:longestCause], "") + "…"
	}
	for _, begin := range []string{"admission webhook " + webhookName, "failed calling webhook " + webhookName, guardName} {
		if i := strings.Index(note, begin); i >= 0 {
			return "no pod can be made: " + note[i:]
		}
	}
	return "no pod can be made: " + note
}

func lastSeen(e *eventsv1.Event) time.Time {
	at := e.DeprecatedLastTimestamp.Time
	if e.EventTime.After(at) {
		at = e.EventTime.Time
	}
	if e.Series != nil && e.Series.LastObservedTime.After(at) {
		at = e.Series.LastObservedTime.Time
	}
	return at
}

// lacking tells whether the owner of an Event still lacks pods, and which workload that is to people.
func (a *Auditor) lacking(ctx context.Context, namespace string, o corev1.ObjectReference) (*corev1.ObjectReference, bool, error) {
	switch o.Kind {
	case "StatefulSet":
		s, err := a.client.AppsV1().StatefulSets(namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("reading StatefulSet %s: %w", o.Name, err)
		}
		return &o, s.UID == o.UID && s.DeletionTimestamp == nil && s.Status.Replicas < wanted(s.Spec.Replicas), nil
	case "ReplicaSet":
		s, err := a.client.AppsV1().ReplicaSets(namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, fmt.Errorf("reading ReplicaSet %s: %w", o.Name, err)
		}
		lacks := s.UID == o.UID && s.DeletionTimestamp == nil && s.Status.Replicas < wanted(s.Spec.Replicas)
		if d := metav1.GetControllerOf(s); d != nil {
			return reference(namespace, d), lacks, nil
		}
		return &o, lacks, nil
	}
	return nil, false, nil // a Job, say: the webhook leaves its pods alone
}

func wanted(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

// workload is what people call the maker of a pod: the Deployment of a ReplicaSet, else the maker itself; nil without.
func (a *Auditor) workload(ctx context.Context, namespace string, o *metav1.OwnerReference) (*corev1.ObjectReference, error) {
	if o == nil {
		return nil, nil
	}
	if o.Kind == "ReplicaSet" {
		s, err := a.client.AppsV1().ReplicaSets(namespace).Get(ctx, o.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading ReplicaSet %s: %w", o.Name, err)
		}
		if err == nil && metav1.GetControllerOf(s) != nil {
			o = metav1.GetControllerOf(s)
		}
	}
	return reference(namespace, o), nil
}

func reference(namespace string, o *metav1.OwnerReference) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: o.APIVersion, Kind: o.Kind, Namespace: namespace, Name: o.Name, UID: o.UID}
}
