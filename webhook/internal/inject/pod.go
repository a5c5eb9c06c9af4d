package inject

import (
	"encoding/json"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"outrider.dev/sidecar/policy"
)

// defaultContainer is what kubectl logs and exec go to.
const defaultContainer = "kubectl.kubernetes.io/default-container"

// inject puts everything into the pod.
func (w *work) inject() error {
	if err := w.checkRRSA(); err != nil {
		return err
	}
	mounts, err := w.mirrored()
	if err != nil {
		return err
	}
	if err := w.changePostgres(); err != nil {
		return err
	}
	restore, sidecar := w.restore(mounts), w.sidecar(mounts)
	spec := &w.pod.Spec
	w.warnOfPod()
	at := behindMesh(spec.InitContainers)
	spec.InitContainers = slices.Insert(spec.InitContainers, at, restore, sidecar)
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: spoolVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, w.identity())
	spec.TerminationGracePeriodSeconds = new(w.graceSeconds())
	shortenTolerations(spec.Tolerations)
	w.annotate()
	return nil
}

// behindMesh is where the injected containers go: to the front, so that the user's own see the disk that a persistent
// volume would have had; but behind the proxy of a mesh, without which they have no network, and which, as sidecars
// stop in reverse order, then outlives them.
func behindMesh(list []corev1.Container) int {
	at := 0
	for i, c := range list {
		if isNative(c) && isMeshProxy(c.Name) {
			at = i + 1
		}
	}
	return at
}

func isNative(c corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// isMeshProxy knows the containers of Istio, Linkerd, Kuma and Consul.
func isMeshProxy(name string) bool {
	return slices.Contains([]string{"istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane"}, name)
}

// graceSeconds is the time for an orderly stop: never less than the user gave.
func (w *work) graceSeconds() int64 {
	own := int64(corev1.DefaultTerminationGracePeriodSeconds)
	if s := w.pod.Spec.TerminationGracePeriodSeconds; s != nil {
		own = *s
	}
	return max(own, int64((w.policy.Grace+time.Second-1)/time.Second))
}

// shortenTolerations makes a pod leave a lost node after 30 s. 300 is what the API server sets where nothing is said,
// before any webhook sees the pod; other values are the user's.
func shortenTolerations(list []corev1.Toleration) {
	const preset, wanted = 300, 30
	for i := range list {
		t := &list[i]
		if t.Key != corev1.TaintNodeNotReady && t.Key != corev1.TaintNodeUnreachable || t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		if t.TolerationSeconds != nil && *t.TolerationSeconds == preset {
			t.TolerationSeconds = new(int64(wanted))
		}
	}
}

// changePostgres is all that happens to the user's own container.
func (w *work) changePostgres() error {
	pg := w.pg()
	pg.VolumeMounts = append(pg.VolumeMounts, spoolMount())
	if w.data.set {
		setVariable(pg, "PGDATA", literal(w.data.dir))
	}
	if err := w.keepRecoverySignal(); err != nil {
		return err
	}
	if pg.Lifecycle == nil {
		pg.Lifecycle = &corev1.Lifecycle{}
	}
	if pg.Lifecycle.PreStop == nil {
		// By number: a name is looked up among the container's own ports, and the hook would silently not be called.
		pg.Lifecycle.PreStop = &corev1.LifecycleHandler{HTTPGet: get(prestopPath, intstr.FromInt32(port))}
	}
	return nil
}

// keepRecoverySignal makes Bitnami's image leave recovery.signal alone. Its entry point otherwise removes the file at
// each start, and a restored database would come up without having replayed its WAL.
func (w *work) keepRecoverySignal() error {
	const name = "POSTGRESQL_PERFORM_RESTORE"
	if w.image.family != bitnamiImage {
		return nil
	}
	switch v, k := valueOf(w.pg(), name); {
	case k == absent:
		setVariable(w.pg(), name, "yes")
	case k == opaque || v != "yes" && v != "true" && v != "1":
		return refuse(DataUnreachable, "container %s sets %s to other than yes, so that its image removes recovery.signal and a restored database would not replay its WAL: leave the variable out", w.pg().Name, name)
	}
	return nil
}

func setVariable(c *corev1.Container, name, value string) {
	if i := lastVariable(c.Env, name); i >= 0 {
		c.Env[i] = corev1.EnvVar{Name: name, Value: value}
		return
	}
	c.Env = append(c.Env, corev1.EnvVar{Name: name, Value: value})
}

func (w *work) annotate() {
	if w.pod.Annotations == nil {
		w.pod.Annotations = map[string]string{}
	}
	if w.pod.Annotations[defaultContainer] == "" {
		w.pod.Annotations[defaultContainer] = w.pg().Name
	}
	// A struct of strings and numbers always encodes.
	s, _ := json.Marshal(status{
		Format: statusFormat, Pod: origin(w.pod), Cluster: w.cluster, Container: w.pg().Name, PGData: w.data.dir, Image: w.in.Image.Name,
	})
	w.pod.Annotations[policy.Status] = string(s)
}
