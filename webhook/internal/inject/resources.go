package inject

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// What the injected containers may put on the node's disk where the pod accounts for it: logs, and the WAL of a restore.
const (
	ephemeralRequest = "64Mi"
	ephemeralLimit   = "2Gi"
)

// restoreCPU bounds a restore where PostgreSQL itself is not bounded.
const restoreCPU = "4"

// sidecarResources are always complete: a namespace with a quota refuses a container without, and one container
// without costs a Guaranteed pod its class.
func (w *work) sidecarResources() corev1.ResourceRequirements {
	p := w.policy
	r := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(p.CPU.Request, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(p.Memory.Request, resource.BinarySI),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(p.CPU.Limit, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(p.Memory.Limit, resource.BinarySI),
		},
	}
	if guaranteed(w.pod) {
		r.Requests = r.Limits.DeepCopy()
	}
	pg := w.pg().Resources
	if _, ok := pg.Requests[corev1.ResourceEphemeralStorage]; ok {
		r.Requests[corev1.ResourceEphemeralStorage] = resource.MustParse(ephemeralRequest)
	}
	if _, ok := pg.Limits[corev1.ResourceEphemeralStorage]; ok {
		r.Requests[corev1.ResourceEphemeralStorage] = resource.MustParse(ephemeralRequest)
		r.Limits[corev1.ResourceEphemeralStorage] = resource.MustParse(ephemeralLimit)
	}
	w.fit(&r)
	return r
}

// restoreResources are as much as PostgreSQL's own where that is more. It costs nothing: an init container runs before
// the others, and the pod needs the larger of the two.
func (w *work) restoreResources() corev1.ResourceRequirements {
	r, pg := w.sidecarResources(), w.pg().Resources
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, ok := pg.Requests[name]
		limit, bounded := pg.Limits[name]
		if !ok {
			request = limit // which the API server makes of it
		}
		if !bounded && name == corev1.ResourceCPU && w.pod.Spec.Resources == nil {
			limit = resource.MustParse(restoreCPU)
		}
		raise(r.Requests, name, request)
		raise(r.Limits, name, limit)
		// A request of PostgreSQL's may be above a limit that is only ours.
		raise(r.Limits, name, r.Requests[name])
	}
	return r
}

func raise(list corev1.ResourceList, name corev1.ResourceName, to resource.Quantity) {
	if q := list[name]; q.Cmp(to) < 0 {
		list[name] = to.DeepCopy()
	}
}

// fit keeps the sidecar within resources of the pod as a whole, if it has them: the containers' requests may not add
// up to more, and no limit may be higher.
func (w *work) fit(r *corev1.ResourceRequirements) {
	whole := w.pod.Spec.Resources
	if whole == nil {
		return
	}
	for name := range r.Limits {
		if most, ok := whole.Limits[name]; ok && most.Cmp(r.Limits[name]) < 0 {
			r.Limits[name] = most.DeepCopy()
		}
		left, ok := whole.Requests[name]
		if !ok {
			left, ok = whole.Limits[name]
		}
		if !ok {
			continue
		}
		left = left.DeepCopy()
		for _, c := range w.pod.Spec.Containers {
			left.Sub(c.Resources.Requests[name])
		}
		for _, c := range w.pod.Spec.InitContainers {
			if isNative(c) {
				left.Sub(c.Resources.Requests[name])
			}
		}
		if left.Sign() < 0 {
			left = resource.Quantity{}
		}
		if left.Cmp(r.Requests[name]) < 0 {
			r.Requests[name] = left
		}
	}
}

// guaranteed tells whether the pod has the QoS class Guaranteed: each container has limits for both resources, and
// requests equal to them or none (Kubernetes: ComputePodQOS).
func guaranteed(pod *corev1.Pod) bool {
	if pod.Spec.Resources != nil {
		return false // the class comes from the pod as a whole, and no container changes it
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
				limit, ok := c.Resources.Limits[name]
				request, asked := c.Resources.Requests[name]
				if !ok || limit.IsZero() || asked && request.Cmp(limit) != 0 {
					return false
				}
			}
		}
	}
	return true
}
