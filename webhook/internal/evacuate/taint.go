package evacuate

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
)

// Taint is the key of the taint of a node that is about to be reclaimed, and of the annotation beside it. The taint's
// value is the announced time in UTC, as ValueForm: a label value may hold no colon.
const Taint = "outrider.dev/reclaimed"

// ValueForm is the layout of the taint's value: basic format of ISO 8601.
const ValueForm = "20060102T150405Z"

// record is the annotation: which machine the notice was about, since a Node object can outlive it.
type record struct {
	ReleaseAt  time.Time `json:"release_at"`
	ProviderID string    `json:"provider_id,omitempty"`
	BootID     string    `json:"boot_id,omitempty"`
	Source     string    `json:"source"` // who said so
	PodUID     types.UID `json:"pod_uid,omitempty"`
}

// recordOf is the annotation that belongs to the taint of a node; an empty one if there is none.
func recordOf(n *corev1.Node, release time.Time) record {
	var r record
	if json.Unmarshal([]byte(n.Annotations[Taint]), &r) != nil || !r.ReleaseAt.Equal(release) {
		return record{} // nobody else may write it; whoever did told us nothing
	}
	return r
}

// notice is who said that a node will be released. pod is "" where it was not a pod.
type notice struct {
	source string
	pod    types.UID
}

// taintOf finds our taint; known is false when its value is none of ours.
func taintOf(n *corev1.Node) (release time.Time, tainted, known bool) {
	for _, t := range n.Spec.Taints {
		if t.Key == Taint && t.Effect == corev1.TaintEffectNoSchedule {
			release, err := time.Parse(ValueForm, t.Value)
			return release, true, err == nil
		}
	}
	return time.Time{}, false, false
}

// standing tells whether a taint says enough already: a node gets one notice, and the next when that one is over.
func standing(now time.Time, n *corev1.Node) bool {
	release, tainted, known := taintOf(n)
	return tainted && (!known || now.Before(release.Add(afterwards)))
}

// lifted tells whether a taint has to go, and why: the node lives on, or it is another machine by now.
func lifted(now time.Time, n *corev1.Node) (why string, lift bool) {
	release, tainted, known := taintOf(n)
	if !tainted || !known || conditionOf(n, corev1.NodeReady) != corev1.ConditionTrue || conditionOf(n, expired) == corev1.ConditionTrue {
		return "", false
	}
	r := recordOf(n, release)
	over := !now.Before(release.Add(afterwards))
	switch {
	case r.ProviderID != "" && n.Spec.ProviderID != "" && r.ProviderID != n.Spec.ProviderID:
		return "it is another machine than the one that was to be released", true
	case r.BootID != "" && n.Status.NodeInfo.BootID != "" && r.BootID != n.Status.NodeInfo.BootID && now.After(release):
		return "it was started again after its release", true
	case over:
		return fmt.Sprintf("it lives on %v after its announced release", afterwards), true
	}
	return "", false
}

// taint puts the taint on a node unless one stands. It tells whether it changed anything.
func (e *Evacuator) taint(ctx context.Context, n *corev1.Node, release time.Time, by notice) (changed bool, err error) {
	release = release.UTC().Truncate(time.Second)
	err = e.patchNode(ctx, n, func(n *corev1.Node) (map[string]any, bool) {
		if changed = !standing(e.now(), n); !changed {
			return nil, false
		}
		note, _ := json.Marshal(record{ // times and strings always encode
			ReleaseAt: release, ProviderID: n.Spec.ProviderID, BootID: n.Status.NodeInfo.BootID, Source: by.source, PodUID: by.pod,
		})
		added := metav1.NewTime(e.now().UTC().Truncate(time.Second))
		taints := append(withoutTaint(n), corev1.Taint{Key: Taint, Value: release.Format(ValueForm), Effect: corev1.TaintEffectNoSchedule, TimeAdded: &added})
		return nodePatch(n, taints, map[string]any{Taint: string(note)}), true
	})
	if err != nil {
		return false, fmt.Errorf("tainting node %s with %s: %w", n.Name, Taint, err)
	}
	if changed {
		e.metrics.taints.WithLabelValues("set").Inc()
		e.log.Warn("a node will be reclaimed", "node", n.Name, "release_at", release, "source", by.source)
		e.event(n, nil, corev1.EventTypeWarning, "NodeReclaimed", "Taint", "this node is announced to be released at %s (%s): no new pods", stamp(release), by.source)
	}
	return changed, nil
}

// lift takes the taint away if that is still right when the node is read anew.
func (e *Evacuator) lift(ctx context.Context, n *corev1.Node) error {
	var why string
	changed := false
	err := e.patchNode(ctx, n, func(n *corev1.Node) (map[string]any, bool) {
		if why, changed = lifted(e.now(), n); !changed {
			return nil, false
		}
		annotations := map[string]any{Taint: nil, Disproved: nil}
		if d := disproof(e.now(), n); d != "" {
			annotations[Disproved] = d
		}
		return nodePatch(n, withoutTaint(n), annotations), true
	})
	if err != nil {
		return fmt.Errorf("taking the taint %s from node %s: %w", Taint, n.Name, err)
	}
	if changed {
		e.metrics.taints.WithLabelValues("lifted").Inc()
		e.log.Info("a node takes pods again", "node", n.Name, "reason", why)
		e.event(n, nil, corev1.EventTypeNormal, "NodeKept", "Untaint", "this node takes pods again: %s", why)
	}
	return nil
}

func withoutTaint(n *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(t corev1.Taint) bool {
		return t.Key == Taint && t.Effect == corev1.TaintEffectNoSchedule
	})
}

// nodePatch replaces the whole list of taints, as the API has it, and holds only for the node as it was read.
// An annotation that is nil goes.
func nodePatch(n *corev1.Node, taints []corev1.Taint, annotations map[string]any) map[string]any {
	return map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion, "annotations": annotations},
		"spec":     map[string]any{"taints": taints},
	}
}

// patchNode applies what change makes of a node, of the given one first, then of what the API server has by then.
func (e *Evacuator) patchNode(ctx context.Context, n *corev1.Node, change func(*corev1.Node) (map[string]any, bool)) error {
	nodes := e.client.CoreV1().Nodes()
	fresh := n
	return retry.OnError(retry.DefaultRetry, apierrors.IsConflict, func() error {
		if fresh == nil {
			var err error
			if fresh, err = nodes.Get(ctx, n.Name, metav1.GetOptions{}); err != nil {
				return err
			}
		}
		patch, wanted := change(fresh)
		fresh = nil
		if !wanted {
			return nil
		}
		body, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		_, err = nodes.Patch(ctx, n.Name, types.MergePatchType, body, metav1.PatchOptions{})
		return err
	})
}
