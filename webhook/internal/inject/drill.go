package inject

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
)

// InstallContainer is the init container that puts the program into a pod that holds a restore drill.
const InstallContainer = "outrider-install"

const (
	drillVolume = "outrider-drill"
	drillDir    = ownDir + "/drill"
	// drillProgram is run in the place of PostgreSQL: the drill needs the programs of the database's own image.
	drillProgram = drillDir + "/outrider"
	// nobody is who installs where the pod does not say: the volume is open to all.
	nobody = 65532
)

// drillCommand is the command of the container that holds the drill. Its arguments are the user's: flags of the verb.
func drillCommand() []string { return []string{drillProgram, "drill"} }

func isDrill(pod *corev1.Pod) bool {
	_, asked := pod.Annotations[policy.Prefix+"drill"]
	return asked
}

// decideDrill makes a pod hold a restore drill of a database instead of being one. It reads the archive, records the
// verdict there, and has no part in who may write.
func (w *work) decideDrill() (Reason, error) {
	found, err := w.detect()
	if err != nil {
		return "", err
	}
	if !found {
		return "", refuse(NoContainer, "a restore drill needs the image of the database, and none of the containers %s has an image that is known to run PostgreSQL: name it in %scontainer",
			names(w.pod.Spec.Containers), policy.Prefix)
	}
	for _, step := range []func() error{w.free, w.drillable, w.resolveUser, w.completeDrill, w.checkRRSA} {
		if err := step(); err != nil {
			return "", err
		}
	}
	w.injectDrill()
	return Drill, nil
}

// drillable refuses what would not be one drill.
func (w *work) drillable() error {
	owner, key := controllerOf(w.pod), policy.Prefix+"drill"
	switch {
	case owner != nil && owner.Kind != "Job":
		return refuse(BadPolicy, "the annotation %s is for pods that end, and the %s %s would start this one again and again: use a Job or a CronJob", key, owner.Kind, owner.Name)
	case w.pod.Spec.RestartPolicy == corev1.RestartPolicyAlways || w.pod.Spec.RestartPolicy == "":
		return refuse(BadPolicy, "a pod with the annotation %s holds one restore drill and ends: set its restartPolicy to Never", key)
	case w.policy.Protect == policy.ProtectEnabled:
		return refuse(BadPolicy, "a pod with the annotation %s is no database: leave out %sprotect", key, policy.Prefix)
	case w.policy.Archive == "":
		return refuse(BadPolicy, "the annotation %s says that a restore drill of %s is to be held, and no archive is known: set %sarchive on the namespace", key, w.policy.Drill, policy.Prefix)
	case len(w.pg().Command) > 0:
		return refuse(BadPolicy, "container %s has a command of its own, and in a restore drill `outrider drill` takes its place: leave the command out (arguments are flags of `outrider drill`)", w.pg().Name)
	}
	return nil
}

// completeDrill reduces the policy to what a drill needs: where the archive is, and what is asked.
func (w *work) completeDrill() error {
	p := w.policy
	root, err := policy.ParseRoot(p.Root(w.in.Namespace, p.Drill))
	if err != nil {
		return refuse(BadPolicy, "the root of the database %s in the archive: %w", p.Drill, err)
	}
	w.policy = policy.Policy{
		Archive: root, OSSEndpoint: p.OSSEndpoint, OSSRegion: p.OSSRegion, Credentials: p.Credentials, RestoreTarget: p.RestoreTarget,
		DrillQuery: p.DrillQuery, RunAs: p.RunAs, CPU: p.CPU, Memory: p.Memory,
	}
	if w.user.uid > 0 {
		w.policy.RunAs = policy.RunAs{UID: w.user.uid, GID: w.user.gid}
	}
	return nil
}

func (w *work) injectDrill() {
	spec, pg := &w.pod.Spec, w.pg()
	at := corev1.VolumeMount{Name: drillVolume, MountPath: drillDir}
	install := w.container(InstallContainer, "drill", "--install="+drillProgram)
	install.VolumeMounts = []corev1.VolumeMount{at, identityMount()}
	install.SecurityContext = w.confined(w.installer(), unknown)
	install.Resources = w.sidecarResources()

	pg.Command = drillCommand()
	pg.TerminationMessagePolicy = corev1.TerminationMessageFallbackToLogsOnError
	pg.VolumeMounts = append(pg.VolumeMounts, at)
	if !mountedAt(pg, identityDir) {
		pg.VolumeMounts = append(pg.VolumeMounts, identityMount())
	}
	w.loginOfDrill()
	if lastVariable(pg.Env, "OUTRIDER_DRILL_DIR") < 0 {
		pg.Env = append(pg.Env, corev1.EnvVar{Name: "OUTRIDER_DRILL_DIR", Value: drillDir})
	}
	for _, e := range w.shared(nil) {
		if i := lastVariable(pg.Env, e.Name); i >= 0 {
			pg.Env[i] = e
			continue
		}
		pg.Env = append(pg.Env, e)
	}
	spec.InitContainers = slices.Insert(spec.InitContainers, behindMesh(spec.InitContainers), install)
	spec.Volumes = append(spec.Volumes, corev1.Volume{Name: drillVolume, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}, w.identity())
	if w.pod.Annotations[defaultContainer] == "" {
		w.pod.Annotations[defaultContainer] = pg.Name
	}
}

// installer is who the program is put there by: whoever runs it, unless that is root, whose rights are not needed.
func (w *work) installer() int64 {
	for _, uid := range []int64{w.user.start, w.user.uid} {
		if uid > 0 {
			return uid
		}
	}
	return nobody
}

// loginOfDrill says as whom the restored database is asked: the superuser that the same image made of it.
func (w *work) loginOfDrill() {
	const superuser = "postgres" // also the name of a database that initdb makes
	pg, l := w.pg(), w.login()
	c := copier{from: pg}
	if lastVariable(pg.Env, "PGUSER") < 0 {
		c.variable("PGUSER", superuser, l.user...)
	}
	if lastVariable(pg.Env, "PGDATABASE") < 0 {
		c.variable("PGDATABASE", superuser, l.database...)
	}
	pg.Env = append(pg.Env, c.last...)
}
