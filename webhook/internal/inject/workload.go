package inject

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// StatefulSet decides about the first pod that a StatefulSet makes, and whether its pods can live beside each other.
// Results are those of Pod.
func StatefulSet(s *appsv1.StatefulSet, in Input) (Decision, error) {
	d, err := Pod(StatefulSetPod(s), in)
	if err != nil || d.Reason != Injected {
		return d, err
	}
	if n := replicas(s.Spec.Replicas); n > 1 && d.Sources["cluster"] == podLevel {
		d.Reason, d.Pod = SharedIdentity, nil
		return d, refuse(SharedIdentity, "the template of StatefulSet %s gives all of its %d pods the identity %s: leave out %scluster, so that each has its own, or set replicas to 1",
			s.Name, n, d.Policy.Cluster, policy.Prefix)
	}
	return d, nil
}

// Deployment decides about the pods that a Deployment makes, all of which are one database. Results are those of Pod.
func Deployment(dep *appsv1.Deployment, in Input) (Decision, error) {
	d, err := Pod(DeploymentPod(dep), in)
	if err != nil || d.Reason != Injected {
		return d, err
	}
	if n := replicas(dep.Spec.Replicas); n > 1 {
		err = refuse(SharedIdentity, "the %d pods of Deployment %s would all be the database %s: set replicas to 1", n, dep.Name, d.Policy.Cluster)
	} else if surges(dep.Spec.Strategy) {
		err = refuse(SharedIdentity, "Deployment %s starts a new pod before the old one is gone, and both would be the database %s: set strategy.type to Recreate", dep.Name, d.Policy.Cluster)
	}
	if err != nil {
		d.Reason, d.Pod = SharedIdentity, nil
	}
	return d, err
}

func replicas(n *int32) int32 {
	if n == nil {
		return 1
	}
	return *n
}

func surges(s appsv1.DeploymentStrategy) bool {
	if s.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	if s.RollingUpdate == nil || s.RollingUpdate.MaxSurge == nil {
		return true // 25 %, rounded up
	}
	surge := s.RollingUpdate.MaxSurge.String()
	return surge != "0" && surge != "0%"
}

// StatefulSetPod is the first pod of a StatefulSet as its controller makes it.
func StatefulSetPod(s *appsv1.StatefulSet) *corev1.Pod {
	first := int32(0)
	if s.Spec.Ordinals != nil {
		first = s.Spec.Ordinals.Start
	}
	name := fmt.Sprintf("%s-%d", s.Name, first)
	pod := templatePod(s.Namespace, s.Spec.Template, "StatefulSet", s.Name)
	pod.Name, pod.GenerateName = name, s.Name+"-"
	pod.Labels["statefulset.kubernetes.io/pod-name"] = name
	for _, claim := range s.Spec.VolumeClaimTemplates {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name},
		}})
	}
	return pod
}

// DeploymentPod is a pod of a Deployment as its ReplicaSet makes it. The hash is not the one that the cluster computes.
func DeploymentPod(d *appsv1.Deployment) *corev1.Pod {
	const hash = "template"
	pod := templatePod(d.Namespace, d.Spec.Template, "ReplicaSet", d.Name+"-"+hash)
	pod.GenerateName = d.Name + "-" + hash + "-"
	pod.Labels["pod-template-hash"] = hash
	return pod
}

// PodOfJob is a pod of a Job as its controller makes it.
func PodOfJob(j *batchv1.Job) *corev1.Pod {
	name := j.Name
	if name == "" {
		name = j.GenerateName + "job"
	}
	pod := templatePod(j.Namespace, j.Spec.Template, "Job", name)
	pod.OwnerReferences[0].APIVersion = "batch/v1"
	pod.GenerateName = name + "-"
	return pod
}

func templatePod(namespace string, t corev1.PodTemplateSpec, kind, owner string) *corev1.Pod {
	pod := &corev1.Pod{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: *t.ObjectMeta.DeepCopy(), Spec: *t.Spec.DeepCopy()}
	pod.Namespace = namespace
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: owner, Controller: new(true), BlockOwnerDeletion: new(true)}}
	return pod
}
