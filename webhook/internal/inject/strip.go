package inject

import (
	"encoding/json"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// Names of ours in a pod. They are reserved: what carries one of them is replaced.
const (
	RestoreContainer = "outrider-restore" // init container
	SidecarContainer = "outrider"         // native sidecar

	spoolVolume    = "outrider-spool"
	identityVolume = "outrider-identity"
	dataVolume     = "outrider-data"
)

// Places of ours in containers.
const (
	ownDir   = "/outrider"
	spoolDir = ownDir + "/spool"
	// passwordFile is the one file that is taken from a Secret of the user's.
	passwordFile = ownDir + "/password"
	// passwordDir is what is around the file where it may appear later.
	passwordDir = ownDir + "/passwords"
	// identityDir is where the token of the pod's service account would be: what lies here hides it.
	identityDir = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// port serves metrics, probes and hooks.
const port = 9850

const prestopPath = "/prestop"

// status is the annotation that says what was done. Nothing relies on it but the recognition of copies, and there it can
// only make the answer stricter.
type status struct {
	Format    int    `json:"format"`
	Pod       string `json:"pod"` // see origin
	Cluster   string `json:"cluster"`
	Container string `json:"container"`
	PGData    string `json:"pgdata"`
	Image     string `json:"image"`
}

const statusFormat = 1

func statusOf(pod *corev1.Pod) status {
	var s status
	if json.Unmarshal([]byte(pod.Annotations[policy.Status]), &s) != nil {
		return status{} // nobody else may write it; whoever did told us nothing
	}
	return s
}

// strip takes away everything that an injection added and that can be told from what is the user's.
func strip(pod *corev1.Pod) {
	delete(pod.Annotations, policy.Status)
	spec := &pod.Spec
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return isOurContainer(c.Name) })
	for i := range spec.Containers {
		if c := &spec.Containers[i]; slices.Equal(c.Command, drillCommand()) {
			c.Command = nil
		}
	}
	gone := map[string]bool{}
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool {
		gone[v.Name] = gone[v.Name] || isOurVolume(v)
		return isOurVolume(v)
	})
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			c := &list[i]
			c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return gone[m.Name] })
			stripHook(c)
		}
	}
	tidy(pod)
}

func isOurContainer(name string) bool {
	return name == RestoreContainer || name == SidecarContainer || name == InstallContainer
}

func isOurVolume(v corev1.Volume) bool {
	switch v.Name {
	case spoolVolume, dataVolume, drillVolume:
		return v.EmptyDir != nil
	case identityVolume:
		return v.Projected != nil
	}
	return false
}

func stripHook(c *corev1.Container) {
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.HTTPGet == nil {
		return
	}
	if h := c.Lifecycle.PreStop.HTTPGet; h.Path != prestopPath || h.Port.IntValue() != port {
		return
	}
	c.Lifecycle.PreStop = nil
	if *c.Lifecycle == (corev1.Lifecycle{}) {
		c.Lifecycle = nil
	}
}

// tidy makes what became empty absent, as it was before.
func tidy(pod *corev1.Pod) {
	spec := &pod.Spec
	if len(spec.InitContainers) == 0 {
		spec.InitContainers = nil
	}
	if len(spec.Volumes) == 0 {
		spec.Volumes = nil
	}
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			if len(list[i].VolumeMounts) == 0 {
				list[i].VolumeMounts = nil
			}
		}
	}
}

// free checks that the names and places of ours are not in use.
func (w *work) free() error {
	for _, c := range slices.Concat(w.pod.Spec.InitContainers, w.pod.Spec.Containers) {
		if isOurContainer(c.Name) {
			return refuse(NameTaken, "a container is called %s, as the injected one will be: rename it", c.Name)
		}
		for _, p := range c.Ports {
			if p.ContainerPort == port && p.Protocol != corev1.ProtocolUDP {
				return refuse(NameTaken, "container %s uses port %d, which the sidecar serves in every pod: choose another one", c.Name, port)
			}
		}
	}
	for _, v := range w.pod.Spec.Volumes {
		if slices.Contains([]string{spoolVolume, identityVolume, dataVolume, drillVolume}, v.Name) {
			return refuse(NameTaken, "a volume is called %s, as an injected one may be: rename it", v.Name)
		}
	}
	for _, m := range w.pg().VolumeMounts {
		if within(m.MountPath, ownDir) {
			return refuse(NameTaken, "container %s has a volume at %s, and %s is where the sidecar's are: mount it elsewhere", w.pg().Name, m.MountPath, ownDir)
		}
	}
	return nil
}
