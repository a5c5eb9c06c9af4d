package admit

import (
	"context"
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"outrider.dev/webhook/internal/inject"
)

// scaleOf is the subresource that kubectl scale and autoscalers write: a number, without the workload that it is for.
const scaleOf = "scale"

// scale answers about a workload that shall have more pods than it has. The pods themselves say nothing of each other:
// the second of one database would be admitted, and take it from the first.
func (h *Handlers) scale(ctx context.Context, req *admissionv1.AdmissionRequest) answer {
	if req.SubResource != scaleOf || req.Operation != admissionv1.Update || req.Resource.Group != "apps" || req.Resource.Version != "v1" {
		return notRegistered(req)
	}
	var now, before autoscalingv1.Scale
	if err := json.Unmarshal(req.Object.Raw, &now); err != nil {
		return unreadable(req, err)
	}
	if err := json.Unmarshal(req.OldObject.Raw, &before); err != nil {
		return unreadable(req, err)
	}
	if now.Spec.Replicas <= before.Spec.Replicas {
		return answer{decision: allowed, reason: unchanged} // fewer are never worse
	}
	o, err := h.scaled(ctx, req, now.Spec.Replicas)
	switch {
	case apierrors.IsNotFound(err):
		return answer{decision: allowed, reason: unchanged} // the API server says so itself
	case err != nil:
		return unjudged(workloadUnknown, fmt.Sprintf("reading what is scaled, %s %s in namespace %s: %v; if it may not be read apply manifests/base again",
			req.Resource.Resource, req.Name, req.Namespace, err))
	case o == nil:
		return notRegistered(req)
	}
	in, trouble, ok := h.input(ctx, req.Namespace)
	if !ok {
		return unjudged(trouble.reason, trouble.text)
	}
	return o.judgeScale(in)
}

// judgeScale is the answer about a workload with another number of pods. One is one writer, whatever the strategy: only the
// next rollout makes two. A database that was stopped comes back at once, and that is said.
func (o *workloadObject) judgeScale(in inject.Input) answer {
	a := o.judge(in)
	if a.decision != denied || a.reason != inject.SharedIdentity || o.replicas > 1 {
		return a
	}
	warning := "outrider: one pod may start, and the next rollout would make two: " + a.text
	return answer{decision: allowed, reason: a.reason, warnings: append([]string{warning}, a.warnings...)}
}

// unjudged lets pass what cannot be judged, with a warning: no workload of others may depend on this program, neither on
// its being there nor on what it can read. Each pod is still looked at, and of two writers the older one stops.
func unjudged(reason inject.Reason, text string) answer {
	return answer{
		decision: allowed, reason: reason, text: text,
		warnings: []string{"outrider: whether these pods would be several writers of one database could not be told: " + text},
	}
}

// scaled is the workload as it is now, with another number of pods; nil for a kind that this is not for.
func (h *Handlers) scaled(ctx context.Context, req *admissionv1.AdmissionRequest, replicas int32) (*workloadObject, error) {
	switch req.Resource.Resource {
	case "statefulsets":
		s, err := h.cfg.Workloads.StatefulSet(ctx, req.Namespace, req.Name)
		if err != nil {
			return nil, err
		}
		s.Namespace, s.Spec.Replicas = req.Namespace, &replicas
		return statefulSetObject(s), nil
	case "deployments":
		d, err := h.cfg.Workloads.Deployment(ctx, req.Namespace, req.Name)
		if err != nil {
			return nil, err
		}
		d.Namespace, d.Spec.Replicas = req.Namespace, &replicas
		return deploymentObject(d), nil
	}
	return nil, nil
}
