package inject

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

func (w *work) warn(format string, args ...any) {
	w.warnings = append(w.warnings, fmt.Sprintf(format, args...))
}

// podLevel is the name of the pod's own level in policy.Sources.
const podLevel = "pod"

// detect finds the PostgreSQL container and the policy. A wrong policy matters only to a pod that has such a container, be
// it by its image or by the name that the policy gives, or that has annotations of ours itself: a mistake on a namespace
// must not keep its other pods from starting.
func (w *work) detect() (bool, error) {
	levels := append(slices.Clone(w.in.Levels), policy.Pod(w.pod.Annotations))
	p, sources, perr := policy.Resolve(levels...)
	w.policy, w.sources = p, sources
	servers, native := w.servers(), w.nativeServer()
	if perr != nil {
		if len(servers) > 0 || native != nil || w.annotated() || w.named(containerSaid(levels)) >= 0 {
			return false, refuse(BadPolicy, "%w", perr)
		}
		w.lookalikes()
		return false, nil
	}
	if p.Container != "" {
		if i := w.named(p.Container); i >= 0 {
			w.choose(i)
			return true, nil
		}
		if native != nil && native.Name == p.Container {
			return false, refuseNative(native)
		}
		if sources["container"] == podLevel {
			return false, refuse(NoContainer, "the annotation %scontainer names %s, and the pod has no such container: it has %s",
				policy.Prefix, p.Container, names(w.pod.Spec.Containers))
		}
	}
	switch {
	case len(servers) == 1:
		if native != nil {
			w.warn("container %s is protected; the init container %s (%s), which runs PostgreSQL too, is not", w.pod.Spec.Containers[servers[0]].Name, native.Name, native.Image)
		}
		w.choose(servers[0])
		return true, nil
	case len(servers) > 1:
		var found []corev1.Container
		for _, i := range servers {
			found = append(found, w.pod.Spec.Containers[i])
		}
		return false, refuse(ManyContainers, "the containers %s all look like PostgreSQL: name the one to protect in %scontainer", names(found), policy.Prefix)
	case native != nil:
		return false, refuseNative(native)
	case p.Protect == policy.ProtectEnabled:
		return false, refuse(NoContainer, "protection is asked for, and none of the containers %s has an image that is known to run PostgreSQL: name it in %scontainer, and its data directory in %spgdata",
			names(w.pod.Spec.Containers), policy.Prefix, policy.Prefix)
	}
	w.lookalikes()
	return false, nil
}

// named is the index of the container of a name, -1 if there is none.
func (w *work) named(name string) int {
	return slices.IndexFunc(w.pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == name })
}

// containerSaid is the container that a policy names in which something else is wrong.
func containerSaid(levels []policy.Level) (name string) {
	for _, l := range levels {
		name = cmp.Or(l.Said("container"), name)
	}
	return name
}

func (w *work) choose(i int) {
	w.postgres, w.image = i, layoutOf(&w.pod.Spec.Containers[i])
	if m := w.image.major; m > 0 && (m < oldest || m > newest) {
		w.warn("container %s runs PostgreSQL %d by its image's tag: %d to %d are supported", w.pg().Name, m, oldest, newest)
	}
}

// The majors that the sidecar knows.
const oldest, newest = 14, 18

// servers are the indexes of containers that run PostgreSQL from a known image.
func (w *work) servers() (found []int) {
	for i := range w.pod.Spec.Containers {
		if c := &w.pod.Spec.Containers[i]; layoutOf(c).family != unknownImage && runsServer(c) == server {
			found = append(found, i)
		}
	}
	return found
}

// annotated tells whether the pod itself carries an annotation of ours, so that somebody meant it.
func (w *work) annotated() bool {
	for name := range w.pod.Annotations {
		if strings.HasPrefix(name, policy.Prefix) {
			return true
		}
	}
	return false
}

func names(containers []corev1.Container) string {
	list := make([]string, len(containers))
	for i, c := range containers {
		list[i] = c.Name
	}
	return strings.Join(list, ", ")
}
