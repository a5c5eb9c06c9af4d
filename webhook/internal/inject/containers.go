package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Audience is that of the token with which a sidecar asks for its evacuation. It opens nothing else.
const Audience = "outrider.dev"

// Fields that the API server would set are written out here, so that a second call finds nothing to change.

func (w *work) container(name string, args ...string) corev1.Container {
	pull := w.in.Image.Pull
	if pull == "" {
		pull = corev1.PullIfNotPresent
	}
	return corev1.Container{
		Name: name, Image: w.in.Image.Name, ImagePullPolicy: pull, Args: args,
		TerminationMessagePath: corev1.TerminationMessagePathDefault,
		// What kubectl describe shows of a restore that refuses is then its last words.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// restore is the init container that fills an empty disk, or judges one that is not.
func (w *work) restore(mounts []corev1.VolumeMount) corev1.Container {
	c := w.container(RestoreContainer, "restore", "--auto")
	if w.data.wal != "" {
		c.Args = append(c.Args, "--waldir="+literal(w.data.wal))
	}
	c.Env = append(slices.Concat(w.shared(mounts), w.evacuation()), corev1.EnvVar{Name: "OUTRIDER_SPOOL", Value: spoolDir})
	c.VolumeMounts = slices.Concat(mounts, []corev1.VolumeMount{spoolMount(), identityMount()})
	c.SecurityContext = w.asStarted()
	c.Resources = w.restoreResources()
	return c
}

// sidecar is the native sidecar. It has no startup probe and no liveness probe: it answers all the time, and killing it
// would only stop what it protects.
func (w *work) sidecar(mounts []corev1.VolumeMount) corev1.Container {
	libpq, password := w.libpq()
	c := w.container(SidecarContainer, "run")
	c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
	mounts = slices.Concat(readOnly(mounts), password)
	c.Env = unrepeated(slices.Concat(w.shared(mounts), w.evacuation(), libpq))
	c.VolumeMounts = slices.Concat(mounts, []corev1.VolumeMount{spoolMount(), identityMount()})
	c.Ports = []corev1.ContainerPort{{Name: SidecarContainer, ContainerPort: port, Protocol: corev1.ProtocolTCP}}
	if w.pod.Spec.HostNetwork {
		c.Ports[0].HostPort = port // so that the scheduler knows
	}
	c.ReadinessProbe = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: get("/readyz", intstr.FromString(SidecarContainer))},
		// Generous, because a sidecar that is not ready takes the database out of its Service.
		TimeoutSeconds: 5, PeriodSeconds: 5, SuccessThreshold: 1, FailureThreshold: 6,
	}
	c.Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: get(prestopPath, intstr.FromString(SidecarContainer))}}
	c.SecurityContext = w.asServer()
	c.Resources = w.sidecarResources()
	return c
}

func get(path string, port intstr.IntOrString) *corev1.HTTPGetAction {
	return &corev1.HTTPGetAction{Path: path, Port: port, Scheme: corev1.URISchemeHTTP}
}

// evacuation is how our containers ask for their pod to be moved, and report what has happened to it.
func (w *work) evacuation() []corev1.EnvVar {
	e := w.in.Evacuation
	if e.URL == "" {
		return nil
	}
	return []corev1.EnvVar{
		{Name: "OUTRIDER_EVACUATION_URL", Value: e.URL},
		{Name: "OUTRIDER_EVACUATION_CA", Value: e.CA},
		{Name: "OUTRIDER_EVACUATION_TOKEN_FILE", Value: identityDir + "/token"},
	}
}

func spoolMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: spoolVolume, MountPath: spoolDir}
}

// identityMount hides the API token: the ServiceAccount admission plugin leaves a container alone that has a mount there.
func identityMount() corev1.VolumeMount {
	return corev1.VolumeMount{Name: identityVolume, MountPath: identityDir, ReadOnly: true}
}

// identity is a volume with tokens that name the pod to those who are to know it, and to nobody else.
func (w *work) identity() corev1.Volume {
	const lifetime = 3600 // seconds; the kubelet renews them
	sources := []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
		Audience: Audience, ExpirationSeconds: new(int64(lifetime)), Path: "token",
	}}}
	for _, e := range w.credentials() {
		if e.Name == "ALIBABA_CLOUD_OIDC_TOKEN_FILE" {
			sources = append(sources, corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
				Audience: "sts.aliyuncs.com", ExpirationSeconds: new(int64(lifetime)), Path: ramToken,
			}})
		}
	}
	return corev1.Volume{Name: identityVolume, VolumeSource: corev1.VolumeSource{
		Projected: &corev1.ProjectedVolumeSource{Sources: sources, DefaultMode: new(corev1.ProjectedVolumeSourceDefaultMode)},
	}}
}
