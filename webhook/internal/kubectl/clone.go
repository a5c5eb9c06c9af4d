package kubectl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// Clone is a pod with a throw-away copy of the database as it was at a point: "latest", a time with zone or an LSN. It
// reads the archive of the original and writes none. The original is not touched: the clone has other labels, so that no
// Service finds it, and none of its volumes that last, but empty ones like them, as far as their disks are known. Nothing
// is made yet.
func (d Database) Clone(name, target string, disks Disks) (*corev1.Pod, error) {
	about := fmt.Sprintf("copying pod %s/%s", d.Namespace, d.Pod)
	if name == d.Pod {
		return nil, fmt.Errorf("%s: a clone needs a name of its own", about)
	}
	if _, err := policy.ParseTarget(target); err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	root, err := d.root()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	pg, err := postgresOf(d.pod)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: d.Namespace,
			Labels:      map[string]string{"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "kubectl-outrider"},
			Annotations: cloneAnnotations(d.pod.Annotations, root, target),
		},
		Spec: cloneSpec(&d.pod.Spec),
	}
	pod.Spec.Containers, pod.Spec.Volumes = []corev1.Container{*pg}, volumesOf(d.pod, pg, disks)
	return pod, nil
}

// cloneSpec is what of a pod is true of its copy as well. What holds between pods is not: the original's anti-affinity
// and spread are about its siblings. Nor is its priority: a throw-away copy must not push others away.
func cloneSpec(from *corev1.PodSpec) corev1.PodSpec {
	from = from.DeepCopy()
	to := corev1.PodSpec{
		NodeSelector: from.NodeSelector, Tolerations: from.Tolerations, SecurityContext: from.SecurityContext,
		ServiceAccountName: from.ServiceAccountName, AutomountServiceAccountToken: from.AutomountServiceAccountToken,
		ImagePullSecrets: from.ImagePullSecrets, RuntimeClassName: from.RuntimeClassName, SchedulerName: from.SchedulerName,
		HostAliases: from.HostAliases, DNSPolicy: from.DNSPolicy, DNSConfig: from.DNSConfig, EnableServiceLinks: from.EnableServiceLinks,
		TerminationGracePeriodSeconds: from.TerminationGracePeriodSeconds,
	}
	if a := from.Affinity; a != nil && a.NodeAffinity != nil {
		to.Affinity = &corev1.Affinity{NodeAffinity: a.NodeAffinity}
	}
	return to
}

// root is where the archive of the database is: of all its generations, whoever opens it takes the newest.
func (d Database) root() (string, error) {
	root := variable(initContainer(d.pod, inject.SidecarContainer), "OUTRIDER_ARCHIVE")
	if r := d.Sidecar; r != nil && r.Archive != "" {
		root = r.Archive
	}
	if !strings.HasPrefix(root, "oss://") {
		return "", errors.New("its sidecar names no archive")
	}
	return root, nil
}

// cloneAnnotations keep what the original's policy says of access, and replace what makes it this database.
func cloneAnnotations(from map[string]string, root, target string) map[string]string {
	own := []string{
		policy.Status, policy.Prefix + "archive", policy.Prefix + "cluster", policy.Prefix + "adopt", policy.Prefix + "stale-disk", policy.Prefix + "take-over",
	}
	a := map[string]string{}
	for name, value := range from {
		if strings.HasPrefix(name, policy.Prefix) && !slices.Contains(own, name) {
			a[name] = value
		}
	}
	maps.Copy(a, map[string]string{
		protectLabel: string(policy.ProtectEnabled), policy.Prefix + "archiving": string(policy.Off), policy.Prefix + "restore": string(policy.RestoreRequired),
		policy.Prefix + "restore-from": root, policy.Prefix + "restore-target": target,
	})
	return a
}

// postgresOf is the container with the database, without what the webhook added to it.
func postgresOf(pod *corev1.Pod) (*corev1.Container, error) {
	var status struct {
		Container string `json:"container"`
	}
	if err := json.Unmarshal([]byte(pod.Annotations[policy.Status]), &status); err != nil {
		return nil, fmt.Errorf("reading its annotation %s: %w", policy.Status, err)
	}
	i := slices.IndexFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Name == status.Container })
	if i < 0 {
		return nil, errors.New("its annotation " + policy.Status + " names no container of it")
	}
	pg := pod.Spec.Containers[i].DeepCopy()
	pg.VolumeMounts = slices.DeleteFunc(pg.VolumeMounts, func(m corev1.VolumeMount) bool {
		return strings.HasPrefix(m.Name, "outrider-") || strings.HasPrefix(m.MountPath, "/var/run/secrets/kubernetes.io/")
	})
	if l := pg.Lifecycle; l != nil && l.PreStop != nil && l.PreStop.HTTPGet != nil && l.PreStop.HTTPGet.Port.IntValue() == portOf(pod) {
		l.PreStop = nil
	}
	for i := range pg.Ports {
		pg.Ports[i].HostPort = 0 // it may come to the original's node
	}
	return pg, nil
}

func variable(c *corev1.Container, name string) string {
	if c == nil {
		return ""
	}
	for _, e := range c.Env {
		if e.Name == name {
			return e.Value
		}
	}
	return ""
}

// Create makes a pod.
func (c *Cluster) Create(ctx context.Context, pod *corev1.Pod) error {
	if _, err := c.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("creating pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	return nil
}
