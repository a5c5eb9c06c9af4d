package inject

import (
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// within tells whether a path is dir or lies below it.
func within(p, dir string) bool {
	p, dir = path.Clean(p), path.Clean(dir)
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// covering is the mount that a path is on: the one that is nearest above it, or nil.
func covering(mounts []corev1.VolumeMount, p string) *corev1.VolumeMount {
	var best *corev1.VolumeMount
	for i := range mounts {
		m := &mounts[i]
		if within(p, m.MountPath) && (best == nil || len(path.Clean(m.MountPath)) > len(path.Clean(best.MountPath))) {
			best = m
		}
	}
	return best
}

func mountedAt(c *corev1.Container, p string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return path.Clean(m.MountPath) == p })
}

func volumeNamed(pod *corev1.Pod, name string) *corev1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

// holdsData tells whether a database can live on a volume. It is a list of what can, so that a kind that is newer than
// this program, and may hold secrets, is not shown to the sidecar.
func holdsData(v corev1.Volume) bool {
	s := v.VolumeSource
	switch {
	case s.PersistentVolumeClaim != nil:
		return !s.PersistentVolumeClaim.ReadOnly
	case s.EmptyDir != nil, s.Ephemeral != nil, s.NFS != nil, s.ISCSI != nil, s.FC != nil,
		s.AWSElasticBlockStore != nil, s.GCEPersistentDisk != nil, s.AzureDisk != nil, s.Cinder != nil, s.VsphereVolume != nil,
		s.RBD != nil, s.CephFS != nil, s.Glusterfs != nil, s.PortworxVolume != nil, s.FlexVolume != nil:
		return true
	case s.CSI != nil:
		return s.CSI.ReadOnly == nil || !*s.CSI.ReadOnly // drivers that deliver secrets insist on read-only
	case s.HostPath != nil:
		t := s.HostPath.Type
		return t == nil || *t == corev1.HostPathUnset || *t == corev1.HostPathDirectory || *t == corev1.HostPathDirectoryOrCreate
	}
	return false
}

func inMemory(v corev1.Volume) bool {
	return v.EmptyDir != nil && v.EmptyDir.Medium != corev1.StorageMediumDefault
}

// scratch are places where no part of a database is kept, whatever is mounted there.
func scratch(p string) bool {
	return slices.ContainsFunc([]string{"/tmp", "/var/tmp", "/run", "/var/run", "/dev", "/proc", "/sys", "/etc", "/var/log", "/docker-entrypoint-initdb.d"},
		func(dir string) bool { return within(p, dir) })
}

// mirrored are the mounts of the PostgreSQL container that the injected containers need: all that may hold a part of
// the database, because pg_wal and tablespaces are links to anywhere. Nothing that delivers secrets is among them.
func (w *work) mirrored() ([]corev1.VolumeMount, error) {
	var mounts []corev1.VolumeMount
	for _, m := range w.pg().VolumeMounts {
		v := volumeNamed(w.pod, m.Name)
		if v == nil || !holdsData(*v) || m.ReadOnly {
			continue
		}
		if (scratch(m.MountPath) || inMemory(*v)) && !w.holdsDatabase(m.MountPath) {
			continue
		}
		if within(identityDir, m.MountPath) {
			return nil, refuse(NameTaken, "container %s has the volume %s at %s, above %s, where the sidecar has its own: mount it at the directories that need it",
				w.pg().Name, m.Name, m.MountPath, identityDir)
		}
		// Bidirectional propagation is for privileged containers only, and recursive read-only goes with read-only.
		m.MountPropagation, m.RecursiveReadOnly = nil, nil
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// holdsDatabase tells whether the data directory or pg_wal is on the mount at p.
func (w *work) holdsDatabase(p string) bool {
	for _, dir := range []string{w.data.dir, w.data.wal, path.Join(w.data.dir, "pg_wal")} {
		if m := covering(w.pg().VolumeMounts, dir); dir != "" && m != nil && m.MountPath == p {
			return true
		}
	}
	return false
}

func readOnly(mounts []corev1.VolumeMount) []corev1.VolumeMount {
	mounts = slices.Clone(mounts)
	for i := range mounts {
		mounts[i].ReadOnly = true
	}
	return mounts
}

// waldirIn finds the directory for pg_wal in the arguments of initdb.
func waldirIn(args string) string {
	words := strings.Fields(args)
	for i, s := range words {
		for _, flag := range []string{"--waldir", "-X"} {
			rest, ok := strings.CutPrefix(s, flag)
			if !ok {
				continue
			}
			if rest == "" && i+1 < len(words) {
				rest = words[i+1]
			}
			return strings.Trim(strings.TrimPrefix(rest, "="), `"'`)
		}
	}
	return ""
}
