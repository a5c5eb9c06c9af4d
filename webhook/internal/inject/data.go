package inject

import (
	"path"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// data is where the database is.
type data struct {
	dir    string // PGDATA
	wal    string // where initdb puts pg_wal; "" for within dir
	volume string // the volume that holds dir
	added  bool   // the volume is ours, because there was none
	// set is that PGDATA is set on the PostgreSQL container. Guessing what an image does by default and being wrong would
	// mean a restore into one directory and an empty database in another; so the default is said, and both agree.
	set bool
}

// resolveData finds PGDATA and the volume that it is on, and adds one if there is none.
func (w *work) resolveData() error {
	if err := w.findDir(); err != nil {
		return err
	}
	m := covering(w.pg().VolumeMounts, w.data.dir)
	if v := w.anonymous(); v != "" && m != nil && len(path.Clean(m.MountPath)) < len(v) {
		return refuse(DataUnreachable, "the image of container %s has an anonymous volume at %s, which hides the volume %s that is mounted at %s: the data would be lost with the container. Mount it at %s",
			w.pg().Name, v, m.Name, m.MountPath, v)
	}
	if m == nil {
		return w.addVolume()
	}
	v := volumeNamed(w.pod, m.Name)
	switch {
	case v == nil || !holdsData(*v):
		return refuse(DataUnreachable, "the data directory %s is on the volume %s, which cannot hold a database: mount an emptyDir or a persistent volume there", w.data.dir, m.Name)
	case m.ReadOnly:
		return refuse(DataUnreachable, "the data directory %s is on the volume %s, which is mounted read-only: mount it for writing", w.data.dir, m.Name)
	}
	w.data.volume = m.Name
	return nil
}

// anonymous is the VOLUME of the image that the data directory lies in, "" if it lies in none. The runtime mounts it
// unless the pod mounts something at exactly that path.
func (w *work) anonymous() string {
	volumes := []string{w.image.volume}
	if w.image.family == libraryImage && w.image.major == 0 {
		volumes = []string{"/var/lib/postgresql/data", "/var/lib/postgresql"} // one of them
	}
	for _, v := range volumes {
		if v != "" && within(w.data.dir, v) {
			return v
		}
	}
	return ""
}

// findDir decides what PGDATA is.
func (w *work) findDir() error {
	name, value, state := w.serverDir()
	asked := w.policy.PGData
	switch {
	case state == opaque && asked == "":
		return refuse(DataUnknown, "%s of container %s does not tell where the data is: give it as one plain value, or set the annotation %spgdata to the directory that the server uses", name, w.pg().Name, policy.Prefix)
	case state == given && !path.IsAbs(value):
		return refuse(DataUnknown, "%s of container %s is %q: expected the absolute path of the data directory", name, w.pg().Name, value)
	case state == given && asked != "" && asked != path.Clean(value):
		return refuse(BadPolicy, "%s of container %s says %s, and pgdata (%s) says %s: let them agree, or leave out the latter", name, w.pg().Name, value, w.sources["pgdata"], asked)
	case state == given:
		w.data.dir = path.Clean(value)
		return nil
	case asked != "":
		w.data.dir = asked
	case w.image.pgdata != "":
		w.data.dir = w.image.pgdata
	case w.image.family == libraryImage && mountedAt(w.pg(), "/var/lib/postgresql/data"):
		w.data.dir = "/var/lib/postgresql/data"
	default:
		return refuse(DataUnknown, "the data directory of container %s cannot be told from its image %s: set PGDATA on the container or the annotation %spgdata, or use a tag with PostgreSQL's major version",
			w.pg().Name, w.pg().Image, policy.Prefix)
	}
	w.data.set = w.image.family != unknownImage && state == absent
	if w.data.set && mayComeFrom(w.pg(), "PGDATA") {
		w.warn("PGDATA of container %s is now set to %s: if a ConfigMap or Secret in its envFrom sets PGDATA, set the annotation %spgdata to that value", w.pg().Name, w.data.dir, policy.Prefix)
	}
	return nil
}

// serverDir is what the container itself says of its data directory, and by which name.
func (w *work) serverDir() (name, value string, state known) {
	variables := []string{"PGDATA"}
	if w.image.family == bitnamiImage {
		// In this order, postgresql-env.sh of the image.
		variables = []string{"POSTGRESQL_DATA_DIR", "POSTGRES_DATA_DIR", "PGDATA"}
	}
	name, value, state = firstOf(w.pg(), variables...)
	if state == absent && w.image.family == bitnamiImage {
		if name, value, state = firstOf(w.pg(), "POSTGRESQL_VOLUME_DIR"); state == given {
			value += "/data"
		}
	}
	switch flag := flagsOf(w.pg()).data; {
	case flag == "", state == given && path.Clean(value) == path.Clean(flag):
		return name, value, state
	case flag == "?":
		return "the data directory on the command line", "", opaque
	case state != absent:
		// Initdb goes to the one place, and the server starts in the other.
		return name + ", which is not the data directory on the command line,", "", opaque
	default:
		return "the data directory on the command line", flag, given
	}
}

// addVolume gives a database without a volume an emptyDir, so that the three containers see the same directory.
func (w *work) addVolume() error {
	for _, m := range w.pg().VolumeMounts {
		v := volumeNamed(w.pod, m.Name)
		if v != nil && v.EmptyDir == nil && holdsData(*v) && !m.ReadOnly && !scratch(m.MountPath) && w.sources["pgdata"] == "" {
			at := w.data.dir
			if h := w.image.home; h != "" && within(at, h) {
				at = h
			}
			return refuse(DataUnknown, "no volume holds the data directory %s of container %s, and the volume %s at %s may be meant to: mount it at %s, or set the annotation %spgdata to the directory that PostgreSQL uses",
				w.data.dir, w.pg().Name, m.Name, m.MountPath, at, policy.Prefix)
		}
	}
	at, err := w.place()
	if err != nil {
		return err
	}
	w.pod.Spec.Volumes = append(w.pod.Spec.Volumes, corev1.Volume{Name: dataVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	w.pg().VolumeMounts = append(w.pg().VolumeMounts, corev1.VolumeMount{Name: dataVolume, MountPath: at})
	w.data.volume, w.data.added = dataVolume, true
	w.warn("no volume holds the data directory %s of container %s: an emptyDir was added, and each new pod restores the database from the archive", w.data.dir, w.pg().Name)
	return nil
}

// place decides where the added volume is mounted. The directory of an emptyDir is root's, and initdb insists on
// changing the mode of its own: who is not root needs a directory below.
func (w *work) place() (string, error) {
	home, root := w.image.home, w.user.start == 0
	if home == "" {
		home = w.anonymous()
	}
	switch {
	case home != "" && within(w.data.dir, home) && (root || w.data.dir != home):
		return home, nil
	case home != "" && w.data.dir == home && w.policy.PGData == "" && w.image.family != bitnamiImage:
		w.data.dir, w.data.set = path.Join(home, "pgdata"), true
		return home, nil
	case root:
		return w.data.dir, nil
	}
	return "", refuse(DataUnreachable, "no volume holds the data directory %s, and its container does not start as root, so that initdb could not use a volume mounted right there: mount a volume, or set PGDATA to a directory below a mounted one",
		w.data.dir)
}

// resolveWAL finds a separate directory for pg_wal, which must be on a volume as well: the sidecar reads it.
func (w *work) resolveWAL() error {
	variables, arguments := []string{"POSTGRES_INITDB_WALDIR"}, []string{"POSTGRES_INITDB_ARGS"}
	if w.image.family == bitnamiImage {
		variables = []string{"POSTGRESQL_INITDB_WAL_DIR", "POSTGRES_INITDB_WAL_DIR"}
		arguments = []string{"POSTGRESQL_INITDB_ARGS", "POSTGRES_INITDB_ARGS"}
	}
	name, dir, state := firstOf(w.pg(), variables...)
	if state == absent {
		var args string
		name, args, _ = firstOf(w.pg(), arguments...)
		dir = waldirIn(args)
	}
	switch {
	case state == opaque:
		return refuse(DataUnknown, "%s of container %s comes from where it cannot be read at admission: give it as a plain value", name, w.pg().Name)
	case dir == "":
		return nil
	}
	dir = path.Clean(dir)
	m := covering(w.pg().VolumeMounts, dir)
	if !path.IsAbs(dir) || m == nil || m.ReadOnly || volumeNamed(w.pod, m.Name) == nil || !holdsData(*volumeNamed(w.pod, m.Name)) {
		return refuse(DataUnreachable, "%s of container %s puts pg_wal into %s, which is on no volume, so that the sidecar could not read it: mount one there, or leave the variable out", name, w.pg().Name, dir)
	}
	w.data.wal = dir
	return nil
}
