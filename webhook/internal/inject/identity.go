package inject

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// controllerOf is the owner that made the pod, or nil.
func controllerOf(pod *corev1.Pod) *metav1.OwnerReference {
	for i, o := range pod.OwnerReferences {
		if o.Controller != nil && *o.Controller {
			return &pod.OwnerReferences[i]
		}
	}
	return nil
}

// identify sets the name of the database in the archive.
func (w *work) identify() error {
	w.cluster = w.policy.Cluster
	if w.cluster == "" {
		var err error
		w.cluster, err = identityOf(w.pod)
		return err
	}
	if w.was.Pod != "" && w.was.Pod != origin(w.pod) && w.was.Cluster == w.cluster {
		return refuse(CopiedIdentity, "this pod is a copy of %s and would write as the same database %s: give it another %scluster, set %sprotect to disabled, or, if it is to replace the other, remove the annotation %s",
			w.was.Pod, w.cluster, policy.Prefix, policy.Prefix, policy.Status)
	}
	o := controllerOf(w.pod)
	if o == nil {
		return nil
	}
	// Of a Deployment the replicas are looked at.
	if _, looked := deploymentOf(w.pod, o); !looked {
		w.warn("the annotation cluster in the template of %s %s gives all of its pods the identity %s: with more than one replica they take it from each other",
			o.Kind, o.Name, w.cluster)
	}
	return nil
}

// deploymentOf is the Deployment of a pod. Its ReplicaSet is called NAME-HASH, and its pods carry the hash as a label.
func deploymentOf(pod *corev1.Pod, owner *metav1.OwnerReference) (name string, ok bool) {
	hash := pod.Labels["pod-template-hash"]
	name, ok = strings.CutSuffix(owner.Name, "-"+hash)
	return name, ok && owner.Kind == "ReplicaSet" && hash != "" && name != ""
}

// identityOf is the identity that a pod has by itself. A name that is made anew with each pod, or with each change of a
// template, is none: the archive would be empty each time, and an empty archive lets initdb run.
func identityOf(pod *corev1.Pod) (string, error) {
	owner := controllerOf(pod)
	switch {
	case isStateful(pod, owner) && pod.Name != "":
		return pod.Name, nil
	case owner == nil && pod.Name != "":
		return pod.Name, nil
	case owner == nil:
		return "", refuse(NoIdentity, "the pod has no name, only the beginning %q of one, so it would be another database each time: give it a name, or set the annotation %scluster",
			pod.GenerateName, policy.Prefix)
	}
	if name, ok := deploymentOf(pod, owner); ok {
		return name, nil
	}
	return "", refuse(NoIdentity, "pods of the %s %s have generated names, so each would be another database: use a StatefulSet or a Deployment, or set the annotation %scluster in the template",
		owner.Kind, owner.Name, policy.Prefix)
}

// isStateful tells whether the pod's name is given by a StatefulSet, be it that of Kubernetes or of OpenKruise.
func isStateful(pod *corev1.Pod, owner *metav1.OwnerReference) bool {
	if owner == nil {
		return false
	}
	name := pod.Labels["statefulset.kubernetes.io/pod-name"]
	return owner.Kind == "StatefulSet" || name != "" && name == pod.Name
}

// origin is what tells a pod from a copy of it. The pods of a Deployment have no name yet when they are admitted.
func origin(pod *corev1.Pod) string {
	if o := controllerOf(pod); o != nil && o.Kind == "ReplicaSet" || pod.Name == "" {
		return pod.GenerateName
	}
	return pod.Name
}
