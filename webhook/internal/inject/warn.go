package inject

import (
	"regexp"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// warnOfPod says what will hurt in a pod that is injected.
func (w *work) warnOfPod() {
	w.warnOfNodeDisk()
	if w.pod.Spec.HostNetwork {
		w.warn("the pod is on the node's network, so that port %d is the node's too: only one such pod can run on a node", port)
	}
	for _, c := range w.pod.Spec.Containers {
		if isMeshProxy(c.Name) {
			w.warn("the proxy %s ends together with PostgreSQL, and the sidecar then has no network for what the shutdown wrote: let the mesh use native sidecars, or exclude port %d and OSS from it (Istio: traffic.sidecar.istio.io/excludeInboundPorts and excludeOutboundIPRanges; Linkerd: config.linkerd.io/skip-inbound-ports and skip-outbound-ports)",
				c.Name, port)
		}
	}
	if w.image.family == bitnamiImage && !keepsSignal(parseReference(w.pg().Image).tag) {
		w.warn("the image %s may be older than March 2025: such images of Bitnami remove recovery.signal at each start, and what is restored cannot be started with them; use a later one", w.pg().Image)
	}
}

// keepsSignal tells whether a tag of Bitnami's is late enough for POSTGRESQL_PERFORM_RESTORE, which came between two
// minor releases of PostgreSQL. A tag without a minor is taken for a late one.
func keepsSignal(tag string) bool {
	m := regexp.MustCompile(`^(\d+)\.(\d+)`).FindStringSubmatch(tag)
	if m == nil {
		return true
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	first, known := map[int]int{13: 21, 14: 18, 15: 13, 16: 9, 17: 5}[major] // May 2025
	return !known && major > 17 || known && minor >= first
}

// warnOfNodeDisk is about databases on an emptyDir.
func (w *work) warnOfNodeDisk() {
	v := volumeNamed(w.pod, w.data.volume)
	if v == nil || v.EmptyDir == nil {
		return
	}
	pg := w.pg()
	if v.EmptyDir.Medium != corev1.StorageMediumDefault {
		w.warn("the database is in memory (volume %s): it counts against the memory limits, those of the restore included", v.Name)
		return
	}
	if v.EmptyDir.SizeLimit != nil {
		w.warn("the volume %s has a sizeLimit: when it is reached the kubelet ends the pod within about two seconds, which is no orderly stop", v.Name)
	}
	if _, ok := pg.Resources.Limits[corev1.ResourceEphemeralStorage]; ok {
		w.warn("container %s has a limit for ephemeral-storage, which the database on the volume %s counts against: when it is reached the kubelet ends the pod within about two seconds", pg.Name, v.Name)
	}
	if q, ok := pg.Resources.Requests[corev1.ResourceEphemeralStorage]; !ok || q.IsZero() {
		w.warn("container %s requests no ephemeral-storage, and its database is on the node's disk: it is among the first to go when that fills up", pg.Name)
	}
}
