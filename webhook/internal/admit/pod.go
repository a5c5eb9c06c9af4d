package admit

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/inject"
)

// pod answers about one pod. The namespace is that of the request: the object's may be empty.
//
// Input.Former stays nil here: that a pod's database was protected before is written nowhere that could be relied on. The
// pod that it replaces is gone, Events expire, and a mark on its owner would need the right to change every workload. Where
// Postgres disappears from a workload, the API server sends what it was before, and workload refuses; where it does so in
// another way, the annotation protect in the template is what holds.
func (h *Handlers) pod(ctx context.Context, req *admissionv1.AdmissionRequest) answer {
	if req.Operation != admissionv1.Create || req.SubResource != "" || req.Resource != (metav1.GroupVersionResource{Version: "v1", Resource: "pods"}) {
		return answer{
			decision: failed, reason: badRequest, code: http.StatusBadRequest,
			text: fmt.Sprintf("this webhook is for the creation of pods and was asked about %s of %s: apply its registration again", req.Operation, req.Resource.Resource),
		}
	}
	pod := &corev1.Pod{}
	if err := json.Unmarshal(req.Object.Raw, pod); err != nil {
		return unreadable(req, err)
	}
	in, trouble, ok := h.input(ctx, req.Namespace)
	if !ok {
		return trouble
	}
	d, err := inject.Pod(pod, in)
	if err != nil {
		return refused(d, err)
	}
	a := answer{decision: allowed, reason: d.Reason, warnings: d.Warnings}
	if d.Pod == nil {
		return a
	}
	ops, err := inject.Patch(pod, d.Pod)
	if err == nil && len(ops) > 0 {
		a.decision = changed
		a.patch, err = json.Marshal(ops)
	}
	if err != nil {
		return answer{decision: failed, reason: mistake, code: http.StatusInternalServerError, text: err.Error()}
	}
	return a
}

// nameOf is the name of the object of a request, or the beginning of one that is yet to be made.
func nameOf(req *admissionv1.AdmissionRequest) string {
	if req.Name != "" {
		return req.Name
	}
	var o struct {
		Metadata struct {
			Name         string `json:"name"`
			GenerateName string `json:"generateName"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(req.Object.Raw, &o) // for the log alone
	return cmp.Or(o.Metadata.Name, o.Metadata.GenerateName)
}
