package kubectl

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Disk is what is known of the PersistentVolumeClaim behind a volume: what a claim for a disk like it has to say.
type Disk struct {
	Size   resource.Quantity // the larger of what was asked for and what there is; a clone needs all of it
	Class  *string           // name of the storage class; nil or "": it was provided by hand
	Access []corev1.PersistentVolumeAccessMode
	Mode   *corev1.PersistentVolumeMode
}

// Disks are the claims of a database by name. Those that could not be read are absent, and have a warning.
type Disks map[string]Disk

// Disks reads the claims behind the volumes that the database lies on. What cannot be read is no error: a clone can do
// without, and the warnings say what that costs.
func (c *Cluster) Disks(ctx context.Context, d Database) (Disks, []string) {
	pg, err := postgresOf(d.pod)
	if err != nil {
		return nil, nil // Clone says so
	}
	disks := Disks{}
	var warnings []string
	for _, v := range mountedVolumes(d.pod, pg) {
		if v.PersistentVolumeClaim == nil {
			if !keeps(v) {
				warnings = append(warnings, fmt.Sprintf("volume %s is of a kind that cannot be had a second time: %s", v.Name, onNode))
			}
			continue
		}
		name := v.PersistentVolumeClaim.ClaimName
		claim, err := c.client.CoreV1().PersistentVolumeClaims(d.Namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			warnings = append(warnings, fmt.Sprintf("PersistentVolumeClaim %s/%s, from which the size of volume %s is taken, could not be read (it takes the right to get persistentvolumeclaims): %v: %s",
				d.Namespace, name, v.Name, err, onNode))
			continue
		}
		disk := diskOf(claim)
		if disk.byHand() {
			warnings = append(warnings, fmt.Sprintf("PersistentVolumeClaim %s/%s has no storage class that could provide a second disk: the copy has an empty directory on the disk of its node, of %s at most",
				d.Namespace, name, disk.Size.String()))
		}
		disks[name] = disk
	}
	return disks, warnings
}

// onNode is what becomes of a volume whose size is not known.
const onNode = "the copy has an empty directory on the disk of its node instead, without a bound; see that there is room, as a full disk makes the node evict pods"

func diskOf(claim *corev1.PersistentVolumeClaim) Disk {
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	if have := claim.Status.Capacity[corev1.ResourceStorage]; have.Cmp(size) > 0 {
		size = have
	}
	return Disk{
		Size: size, Class: claim.Spec.StorageClassName, Access: slices.Clone(claim.Spec.AccessModes), Mode: claim.Spec.VolumeMode,
	}
}

// byHand tells whether nothing would provide another disk like this one.
func (d Disk) byHand() bool { return d.Class == nil || *d.Class == "" }

// source is an empty volume like the disk, which goes with its pod.
func (d Disk) source() corev1.VolumeSource {
	if d.byHand() {
		return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: new(d.Size.DeepCopy())}}
	}
	return corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: d.Access, StorageClassName: d.Class, VolumeMode: d.Mode,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: d.Size}},
		},
	}}}
}

// volumesOf are the volumes that a container needs, with an empty one in the place of each that lasts: another pod must
// not get at the original's data, and the restore wants an empty disk. Those that are made for each pod stay as they are.
func volumesOf(pod *corev1.Pod, c *corev1.Container, disks Disks) []corev1.Volume {
	volumes := mountedVolumes(pod, c)
	for i := range volumes {
		v := &volumes[i]
		if keeps(*v) {
			continue
		}
		source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
		if claim := v.PersistentVolumeClaim; claim != nil {
			if disk, known := disks[claim.ClaimName]; known {
				source = disk.source()
			}
		}
		v.VolumeSource = source
	}
	return volumes
}

// keeps tells whether a volume is made for each pod, or holds no data, so that the copy of a pod can have it as it is.
func keeps(v corev1.Volume) bool {
	s := v.VolumeSource
	return s.ConfigMap != nil || s.Secret != nil || s.Projected != nil || s.DownwardAPI != nil || s.EmptyDir != nil || s.Ephemeral != nil || s.CSI != nil || s.Image != nil
}

// mountedVolumes are copies of the pod's volumes that a container mounts.
func mountedVolumes(pod *corev1.Pod, c *corev1.Container) (volumes []corev1.Volume) {
	for _, v := range pod.Spec.Volumes {
		if slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == v.Name }) {
			volumes = append(volumes, *v.DeepCopy())
		}
	}
	return volumes
}
