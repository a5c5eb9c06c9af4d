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
// Service finds it, and none of its volumes that last. Nothing is made yet.
func (d Database) Clone(name, target string) (*corev1.Pod, error) {
	about := fmt.Sprintf("copying pod %s/%s", d.Namespace, d.Pod)
	if name == d.Pod {
		return nil, fmt.Errorf("%s: a clone needs a name of its own", about)
	}
	if _, err := policy.ParseTarget(target); err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	root := variable(initContainer(d.pod, inject.SidecarContainer), "OUTRIDER_ARCHIVE")
	if r := d.Sidecar; r != nil && r.Archive != "" {
		root = r.Archive // after an upgrade of PostgreSQL it is the next one
	}
	if !strings.HasPrefix(root, "oss://") {
		return nil, fmt.Errorf("%s: its sidecar names no archive", about)
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
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{*pg}, Volumes: volumesOf(d.pod, pg), NodeSelector: d.pod.Spec.NodeSelector,
			Tolerations: d.pod.Spec.Tolerations, SecurityContext: d.pod.Spec.SecurityContext.DeepCopy(),
			ServiceAccountName: d.pod.Spec.ServiceAccountName, ImagePullSecrets: d.pod.Spec.ImagePullSecrets,
		},
	}
	return pod, nil
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

// volumesOf are the volumes that a container needs, with an empty one in the place of each that lasts: another pod must
// not get at the original's data, and the restore wants an empty disk. Those that are made for each pod stay as they are.
func volumesOf(pod *corev1.Pod, c *corev1.Container) (volumes []corev1.Volume) {
	for _, v := range pod.Spec.Volumes {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			continue
		}
		s := v.VolumeSource
		config := s.ConfigMap != nil || s.Secret != nil || s.Projected != nil || s.DownwardAPI != nil
		if !config && s.EmptyDir == nil && s.Ephemeral == nil && s.CSI == nil {
			v.VolumeSource = corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		}
		volumes = append(volumes, v)
	}
	return volumes
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
