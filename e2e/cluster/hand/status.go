package hand

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// report writes the pod's status if it is not what the cluster has. What goes wrong is tried again with the next event.
func (p *pod) report(ctx context.Context) {
	object, gone := p.state()
	if gone {
		return
	}
	p.write(ctx, object, func(status *corev1.PodStatus) {
		status.Phase = corev1.PodRunning
		p.fill(status, object, nil)
	})
}

// reportWaiting says in the status why the pod's containers are not there.
func (p *pod) reportWaiting(ctx context.Context, why error) {
	object, _ := p.state()
	p.write(ctx, object, func(status *corev1.PodStatus) {
		status.Phase = corev1.PodPending
		p.fill(status, object, why)
	})
}

func (p *pod) write(ctx context.Context, object *corev1.Pod, change func(*corev1.PodStatus)) {
	changed := object.DeepCopy()
	change(&changed.Status)
	if equality.Semantic.DeepEqual(object.Status, changed.Status) {
		return
	}
	// A conflict means that news is on its way here.
	_, _ = p.kubelets.client.CoreV1().Pods(object.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
}

// fill describes addresses, conditions and containers. why says that no container runs yet.
func (p *pod) fill(status *corev1.PodStatus, object *corev1.Pod, why error) {
	status.HostIP, status.HostIPs = "10.200.1.1", []corev1.HostIP{{IP: "10.200.1.1"}}
	status.PodIP = p.address.String()
	status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	if status.StartTime == nil {
		now := metav1.Now().Rfc3339Copy()
		status.StartTime = &now
	}
	status.InitContainerStatuses = nil
	for i := range object.Spec.InitContainers {
		c := &object.Spec.InitContainers[i]
		native := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
		status.InitContainerStatuses = append(status.InitContainerStatuses, p.played(c, why, !native))
	}
	status.ContainerStatuses = nil
	ready := why == nil
	for i := range object.Spec.Containers {
		c := p.played(&object.Spec.Containers[i], why, false)
		p.real(&c)
		ready = ready && c.Ready
		status.ContainerStatuses = append(status.ContainerStatuses, c)
	}
	condition(status, corev1.PodInitialized, why == nil)
	condition(status, corev1.ContainersReady, ready)
	condition(status, corev1.PodReady, ready)
}

// played is the status of a container in which nothing happens.
func (p *pod) played(spec *corev1.Container, why error, completed bool) corev1.ContainerStatus {
	started := why == nil && !completed
	status := corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, Ready: why == nil, Started: &started}
	switch {
	case why != nil:
		status.State.Waiting = &corev1.ContainerStateWaiting{Reason: "CreateContainerConfigError", Message: why.Error()}
	case completed:
		status.State.Terminated = &corev1.ContainerStateTerminated{Reason: "Completed", StartedAt: p.began, FinishedAt: p.began}
	default:
		status.State.Running = &corev1.ContainerStateRunning{StartedAt: p.began}
	}
	if why == nil {
		status.ContainerID = fmt.Sprintf("hand://%s/%s", p.address, spec.Name)
		status.ImageID = spec.Image
	}
	return status
}

// real puts what is known of a process, if the container has one, into its status.
func (p *pod) real(status *corev1.ContainerStatus) {
	for _, c := range p.containers() {
		if c.spec.Name != status.Name {
			continue
		}
		c.mu.Lock()
		status.Ready, status.RestartCount = c.ready, c.restarts
		if c.last != "" {
			status.LastTerminationState = corev1.ContainerState{
				Terminated: &corev1.ContainerStateTerminated{Reason: "Error", Message: c.last, ExitCode: 1},
			}
		}
		c.mu.Unlock()
	}
}

// condition sets a condition and keeps the time of its last change.
func condition(status *corev1.PodStatus, kind corev1.PodConditionType, holds bool) {
	wanted := corev1.PodCondition{Type: kind, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now().Rfc3339Copy()}
	if holds {
		wanted.Status = corev1.ConditionTrue
	}
	for i := range status.Conditions {
		if c := &status.Conditions[i]; c.Type == kind {
			if c.Status != wanted.Status {
				*c = wanted
			}
			return
		}
	}
	status.Conditions = append(status.Conditions, wanted)
}
