package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// user says as whom things run. Ids are unknown where neither the pod nor the image tells.
type user struct {
	start int64 // uid that the PostgreSQL container starts with; 0 drops to uid later
	uid   int64 // uid of the PostgreSQL process
	gid   int64
}

// resolveUser finds out who PostgreSQL is. What the pod says comes first, then the annotation, then the image.
func (w *work) resolveUser() error {
	l := w.image
	uid, gid, nonRoot := podUser(w.pod, w.pg())
	u := user{start: l.start, uid: l.uid, gid: l.gid}
	as := w.policy.RunAs
	if as != (policy.RunAs{}) {
		u.uid, u.gid = as.UID, as.GID // NoGID is unknown, too
	}
	switch {
	case uid != nil && *uid != 0:
		if *uid != u.uid {
			u.gid = unknown
		}
		u.start, u.uid = *uid, *uid
	case uid != nil:
		u.start = 0
	case u.start > 0 && as != (policy.RunAs{}):
		u.start = as.UID // a changed image, of which the annotation knows more
	case nonRoot && as != (policy.RunAs{}):
		u.start = as.UID
	}
	if gid != nil && u.start != 0 {
		u.gid = *gid
	}
	if nonRoot && u.start <= 0 {
		return refuse(UserUnknown, "the pod may not run as root (runAsNonRoot), and which user PostgreSQL is cannot be told from the image %s: set runAsUser on container %s, or the annotation %srun-as to UID:GID",
			w.pg().Image, w.pg().Name, policy.Prefix)
	}
	w.user = u
	return nil
}

// podUser is what the security contexts say of a container.
func podUser(pod *corev1.Pod, c *corev1.Container) (uid, gid *int64, nonRoot bool) {
	if s := pod.Spec.SecurityContext; s != nil {
		uid, gid = s.RunAsUser, s.RunAsGroup
		nonRoot = s.RunAsNonRoot != nil && *s.RunAsNonRoot
	}
	s := c.SecurityContext
	if s == nil {
		return uid, gid, nonRoot
	}
	if s.RunAsUser != nil {
		uid = s.RunAsUser
	}
	if s.RunAsGroup != nil {
		gid = s.RunAsGroup
	}
	if s.RunAsNonRoot != nil {
		nonRoot = *s.RunAsNonRoot
	}
	return uid, gid, nonRoot
}

// asStarted is for what prepares the volumes before PostgreSQL: it runs as the container does. Where that is root, the
// volume may be root's too, and files are given to whoever owned them when they were archived. So it is where the volume
// becomes the server's only afterwards.
func (w *work) asStarted() *corev1.SecurityContext {
	if w.user.start > 0 && !w.givenLater() {
		return w.confined(w.user.start, w.user.gid)
	}
	return w.confined(0, unknown, "DAC_OVERRIDE", "CHOWN", "FOWNER")
}

// givenLater tells whether an init container of the user's, which runs after the restore, makes the volume of the data the
// server's own: one that is root on it, or may be and changes owners. Where such a one is admitted, root is, too.
func (w *work) givenLater() bool {
	return slices.ContainsFunc(w.pod.Spec.InitContainers, func(c corev1.Container) bool {
		if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == w.data.volume && !m.ReadOnly }) {
			return false
		}
		uid, _, nonRoot := podUser(w.pod, &c)
		perhaps := uid == nil && !nonRoot && strings.Contains(strings.Join(slices.Concat(c.Command, c.Args), " "), "chown")
		return perhaps || uid != nil && *uid == 0
	})
}

// asServer is for what reads beside PostgreSQL: it runs as the process does. DAC_OVERRIDE, not DAC_READ_SEARCH, lets
// root read the files of a user who cannot be told: baseline admits the one and refuses the other.
func (w *work) asServer() *corev1.SecurityContext {
	if w.user.uid > 0 {
		return w.confined(w.user.uid, w.user.gid)
	}
	return w.confined(0, unknown, "DAC_OVERRIDE")
}

// confined is a security context that the Pod Security level restricted admits, unless it is root's.
func (w *work) confined(uid, gid int64, capabilities ...corev1.Capability) *corev1.SecurityContext {
	s := &corev1.SecurityContext{
		RunAsUser: &uid, RunAsNonRoot: new(uid != 0), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
		Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: capabilities},
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if gid != unknown {
		s.RunAsGroup = &gid
	}
	// Containers of one pod share the SELinux level of their volumes unless one of them sets its own.
	if pg := w.pg().SecurityContext; pg != nil && pg.SELinuxOptions != nil {
		s.SELinuxOptions = pg.SELinuxOptions.DeepCopy()
	}
	return s
}
