package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"outrider.dev/webhook/internal/inject"
)

// workload answers about a StatefulSet or a Deployment. Pods are made by controllers, which read no warnings: here a
// person is listening.
//
// Refused is only what cannot be seen at a single pod: several pods that would be one database, and a database that is
// not recognised any more. Whatever else is wrong is said as a warning; the pods are refused, and what is missing may
// follow.
func (h *Handlers) workload(ctx context.Context, req *admissionv1.AdmissionRequest) answer {
	now, before, err := workloads(req)
	if err != nil {
		return unreadable(req, err)
	}
	if now == nil {
		return notRegistered(req)
	}
	in, trouble, ok := h.input(ctx, req.Namespace)
	if !ok {
		return trouble
	}
	if before != nil {
		if now.deleted || equality.Semantic.DeepEqual(now.spec, before.spec) {
			// Controllers that take away finalizers and the like must not be stopped by what is not theirs.
			return answer{decision: allowed, reason: unchanged}
		}
		in.Former = before.former(in)
	}
	return now.judge(in)
}

func notRegistered(req *admissionv1.AdmissionRequest) answer {
	return answer{
		decision: failed, reason: badRequest, code: http.StatusBadRequest,
		text: fmt.Sprintf("this webhook is for StatefulSets and Deployments, elsewhere for their scale, and was asked about %s %s: apply its registration again",
			req.Operation, path.Join(req.Resource.Resource, req.SubResource)),
	}
}

// judge is the answer about a workload as it shall be.
func (o *workloadObject) judge(in inject.Input) answer {
	d, err := o.decide(in)
	if err == nil {
		return answer{decision: allowed, reason: d.Reason, warnings: d.Warnings}
	}
	if d.Reason == inject.PostgresVanished || d.Reason == inject.SharedIdentity && o.replicas != 0 {
		return refused(d, err)
	}
	return answer{
		decision: allowed, reason: d.Reason,
		warnings: append([]string{fmt.Sprintf("outrider: pods of this %s will be refused: %v", o.kind, err)}, d.Warnings...),
	}
}

// workloadObject is what matters of either kind.
type workloadObject struct {
	kind     string
	spec     any
	replicas int32
	deleted  bool
	decide   func(inject.Input) (inject.Decision, error)
}

// former knows the database that a workload was before this change, if it was one. Nothing needs to be remembered: the
// API server sends what was. A workload that is deleted and created again is not recognised; the annotation protect in
// its template makes that case binding.
func (o *workloadObject) former(in inject.Input) func(string) bool {
	d, err := o.decide(in)
	if err != nil && d.Reason != inject.SharedIdentity || err == nil && d.Reason != inject.Injected {
		return nil
	}
	return func(cluster string) bool { return d.Policy.Cluster == cluster }
}

// workloads reads the object as it shall be and as it was; neither of kinds that this is not for, no former at a
// creation.
func workloads(req *admissionv1.AdmissionRequest) (now, before *workloadObject, err error) {
	if req.SubResource != "" || req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return nil, nil, nil
	}
	if now, err = workloadOf(req, req.Object.Raw); err != nil || now == nil || req.Operation == admissionv1.Create {
		return now, nil, err
	}
	before, err = workloadOf(req, req.OldObject.Raw)
	return now, before, err
}

func workloadOf(req *admissionv1.AdmissionRequest, raw []byte) (*workloadObject, error) {
	if req.Resource.Group != "apps" || req.Resource.Version != "v1" {
		return nil, nil
	}
	switch req.Resource.Resource {
	case "statefulsets":
		s := &appsv1.StatefulSet{}
		if err := json.Unmarshal(raw, s); err != nil {
			return nil, err
		}
		s.Namespace = req.Namespace
		return statefulSetObject(s), nil
	case "deployments":
		d := &appsv1.Deployment{}
		if err := json.Unmarshal(raw, d); err != nil {
			return nil, err
		}
		d.Namespace = req.Namespace
		return deploymentObject(d), nil
	}
	return nil, nil
}

func statefulSetObject(s *appsv1.StatefulSet) *workloadObject {
	return &workloadObject{
		kind: "StatefulSet", spec: s.Spec, replicas: count(s.Spec.Replicas), deleted: s.DeletionTimestamp != nil,
		decide: func(in inject.Input) (inject.Decision, error) { return inject.StatefulSet(s, in) },
	}
}

func deploymentObject(d *appsv1.Deployment) *workloadObject {
	return &workloadObject{
		kind: "Deployment", spec: d.Spec, replicas: count(d.Spec.Replicas), deleted: d.DeletionTimestamp != nil,
		decide: func(in inject.Input) (inject.Decision, error) { return inject.Deployment(d, in) },
	}
}

func count(replicas *int32) int32 {
	if replicas == nil {
		return 1
	}
	return *replicas
}
