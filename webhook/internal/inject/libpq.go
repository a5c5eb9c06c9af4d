package inject

import (
	"path"

	corev1 "k8s.io/api/core/v1"
)

// login says under which names an image knows the superuser, the password and a database.
type login struct {
	user, password, database []string // the first that is set holds
}

func (w *work) login() login {
	if w.image.family != bitnamiImage {
		// PGUSER and the like are what psql in that container uses: whoever sets them knows better.
		return login{
			user: []string{"PGUSER", "POSTGRES_USER"}, password: []string{"PGPASSWORD", "POSTGRES_PASSWORD"}, database: []string{"PGDATABASE", "POSTGRES_DB"},
		}
	}
	superuser := []string{"POSTGRESQL_POSTGRES_PASSWORD", "POSTGRES_POSTGRES_PASSWORD"}
	l := login{database: []string{"PGDATABASE", "POSTGRESQL_DATABASE", "POSTGRES_DATABASE", "POSTGRES_DB"}}
	for _, name := range superuser {
		// With a user of its own, the image's superuser is still postgres, with a password of its own.
		if lastVariable(w.pg().Env, name) >= 0 || lastVariable(w.pg().Env, name+"_FILE") >= 0 {
			l.password = superuser
			return l
		}
	}
	l.user = []string{"PGUSER", "POSTGRESQL_USERNAME", "POSTGRES_USERNAME", "POSTGRES_USER", "POSTGRESQL_USER"}
	l.password = []string{"PGPASSWORD", "POSTGRESQL_PASSWORD", "POSTGRES_PASSWORD"}
	if _, user, k := firstOf(w.pg(), l.user...); k == given && user != "postgres" {
		w.warn("container %s gives its superuser postgres no password, and its user %s may not read WAL or take snapshots: set POSTGRESQL_POSTGRES_PASSWORD, or grant %s REPLICATION, pg_monitor and pg_checkpoint",
			w.pg().Name, user, user)
	}
	return l
}

// libpq are the variables with which the sidecar reaches the server, and the mount of the password's file if it is
// given as one.
func (w *work) libpq() ([]corev1.EnvVar, []corev1.VolumeMount) {
	const superuser = "postgres" // also the name of a database that initdb makes
	l, c := w.login(), copier{from: w.pg()}
	c.variable("PGUSER", superuser, l.user...)
	c.variable("PGDATABASE", superuser, l.database...)
	w.portVariable(&c)
	// The server listens there whatever else it listens to, and all containers of a pod share that address.
	c.last = append(c.last, corev1.EnvVar{Name: "PGHOST", Value: "localhost"})
	for _, name := range l.password {
		if lastVariable(w.pg().Env, name) >= 0 || lastVariable(w.pg().Env, name+"_FILE") < 0 {
			continue
		}
		m, file, ok := w.fileMount(name + "_FILE")
		if ok {
			c.last = append(c.last, corev1.EnvVar{Name: "OUTRIDER_PGPASSWORD_FILE", Value: literal(file)})
			return c.variables(), []corev1.VolumeMount{m}
		}
	}
	c.variable("PGPASSWORD", "", l.password...)
	return c.variables(), nil
}

// portVariable sets PGPORT to where the server listens: the command line wins over the variable.
func (w *work) portVariable(c *copier) {
	sources := []string{"PGPORT"}
	if w.image.family == bitnamiImage {
		sources = []string{"POSTGRESQL_PORT_NUMBER", "POSTGRES_PORT_NUMBER"}
	}
	if p := flagsOf(w.pg()).port; p != "" {
		c.last = append(c.last, corev1.EnvVar{Name: "PGPORT", Value: p})
		return
	}
	c.variable("PGPORT", "5432", sources...)
}

// fileMount shows the file that a variable names to the sidecar, and says where it is there.
func (w *work) fileMount(name string) (mount corev1.VolumeMount, at string, ok bool) {
	file, k := valueOf(w.pg(), name)
	m := covering(w.pg().VolumeMounts, file)
	if k != given || !path.IsAbs(file) || m == nil {
		w.warn("%s of container %s names a file that is on none of its volumes, so the sidecar cannot read the password: mount it from a Secret, or let the server trust connections from localhost", name, w.pg().Name)
		return corev1.VolumeMount{}, "", false
	}
	rest := path.Clean(file)[len(path.Clean(m.MountPath)):]
	mount = corev1.VolumeMount{Name: m.Name, MountPath: passwordFile, SubPath: m.SubPath, SubPathExpr: m.SubPathExpr, ReadOnly: true}
	if v := volumeNamed(w.pod, m.Name); v != nil && !isReady(*v) && (rest != "" || m.SubPath != "") {
		at = directoryOf(&mount, rest, v.EmptyDir != nil)
		return mount, at, true
	}
	if m.SubPathExpr != "" {
		mount.SubPathExpr = m.SubPathExpr + rest
	} else {
		mount.SubPath = path.Clean("/" + m.SubPath + rest)[1:]
	}
	return mount, passwordFile, true
}

// directoryOf shows what is around a file that may not be there yet. The sidecar starts before the user's own init
// containers, one of which may be what writes it, and the kubelet makes a directory of a subPath that it does not find:
// the password could then never be written. The sidecar reads the file at each connection.
// An emptyDir is shown as a whole: it is this pod's own, and no part of it need be there.
func directoryOf(mount *corev1.VolumeMount, rest string, whole bool) (file string) {
	mount.MountPath = passwordDir
	switch {
	case whole:
		mount.SubPath, rest = "", path.Clean("/"+mount.SubPath+rest)
	case rest == "": // the mount is the file
		dir, name := path.Split(path.Clean(mount.SubPath))
		mount.SubPath, rest = path.Clean("/" + dir)[1:], "/"+name
	}
	return passwordDir + rest
}

// isReady tells whether all of a volume is there before the first container starts. Nothing else of such a volume is shown.
func isReady(v corev1.Volume) bool {
	s := v.VolumeSource
	return s.Secret != nil || s.ConfigMap != nil || s.Projected != nil || s.CSI != nil || s.DownwardAPI != nil
}
