package inject

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// maker makes pods as people have them, and some that nobody has.
type maker struct{ *rand.Rand }

func (m maker) chance(percent int) bool { return m.IntN(100) < percent }

func pick[T any](m maker, list ...T) T { return list[m.IntN(len(list))] }

func (m maker) pod() *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("db-%d", m.IntN(3)), Labels: map[string]string{"app": "db"}}}
	m.owner(pod)
	m.annotations(pod)
	pg := m.postgres(pod)
	pod.Spec.Containers = []corev1.Container{pg}
	if m.chance(30) {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "exporter", Image: "exporter", Resources: m.resources()})
	}
	if m.chance(15) {
		pod.Spec.Containers = append([]corev1.Container{{Name: "istio-proxy", Image: "istio/proxyv2"}}, pod.Spec.Containers...)
	}
	for i := range m.IntN(3) {
		c := corev1.Container{Name: fmt.Sprintf("init-%d", i), Image: "busybox"}
		if m.chance(30) {
			c.RestartPolicy = new(corev1.ContainerRestartPolicyAlways)
			c.Name = pick(m, c.Name, "istio-proxy", "linkerd-proxy")
		}
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, c)
	}
	if m.chance(50) {
		pod.Spec.SecurityContext = m.podSecurity()
	}
	if m.chance(50) {
		pod.Spec.TerminationGracePeriodSeconds = new(int64(m.IntN(600)))
	}
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, "other"} {
		if m.chance(60) {
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: new(pick[int64](m, 300, 300, 60)),
			})
		}
	}
	return pod
}

func (m maker) owner(pod *corev1.Pod) {
	owned := func(kind, name string) {
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: kind, Name: name, Controller: new(true)}}
	}
	switch m.IntN(10) {
	case 0, 1, 2, 3:
		owned("StatefulSet", "db")
		pod.Labels["statefulset.kubernetes.io/pod-name"] = pod.Name
	case 4, 5, 6:
		owned("ReplicaSet", "db-5c7d445f48")
		pod.Labels["pod-template-hash"] = "5c7d445f48"
		pod.Name, pod.GenerateName = "", "db-5c7d445f48-"
	case 7:
		owned(pick(m, "Job", "ReplicationController", "Cluster"), "db")
		pod.Name, pod.GenerateName = "", "db-"
	}
}

func (m maker) annotations(pod *corev1.Pod) {
	set := func(key string, values ...string) {
		if m.chance(12) {
			if pod.Annotations == nil {
				pod.Annotations = map[string]string{}
			}
			pod.Annotations[key] = pick(m, values...)
		}
	}
	set("kubectl.kubernetes.io/default-container", "exporter")
	set("outrider.dev/protect", "enabled", "enabled", "disabled")
	set("outrider.dev/cluster", "main")
	set("outrider.dev/grace", "10s", "5m", "1h")
	set("outrider.dev/cpu", "250m", "100m:2")
	set("outrider.dev/memory", "128Mi:1Gi")
	set("outrider.dev/run-as", "26", "26:27")
	set("outrider.dev/pgdata", "/var/lib/postgresql/data/main", "/srv/pg")
	set("outrider.dev/max-wal-backlog", "1Gi", "unlimited", "2Gi:keep")
	set("outrider.dev/credentials", "rrsa:writer", "ram-role:node", "secret:other")
	set("outrider.dev/rpo", "2s", "soon")
	set("unrelated", "x")
}

func (m maker) postgres(pod *corev1.Pod) corev1.Container {
	c := corev1.Container{
		Name: pick(m, "postgres", "db"), Resources: m.resources(),
		Image: pick(m, "postgres:16", "postgres:18", "postgres:15-alpine", "postgres", "timescale/timescaledb:2.17.2-pg16", "timescale/timescaledb-ha:pg17",
			"bitnamilegacy/postgresql:16.4.0", "bitnami/postgresql", "mycorp/postgres:16", "pgvector/pgvector:pg17", "nginx"),
	}
	if m.chance(20) {
		c.Args = pick(m, []string{"-c", "port=5433"}, []string{"postgres", "-p", "6000"}, []string{"psql"}, []string{"-D", "/srv/pg"})
	}
	m.variables(&c)
	m.volumes(pod, &c)
	if m.chance(40) {
		c.SecurityContext = m.security()
	}
	if m.chance(30) {
		c.Lifecycle = pick(m,
			&corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
			&corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}},
			&corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/bye", Port: intstr.FromInt32(9850)}}})
	}
	if m.chance(30) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: pick[int32](m, 5432, 5432, 9850)}}
	}
	return c
}

func (m maker) variables(c *corev1.Container) {
	secret := func(key string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: key}}
	}
	all := []corev1.EnvVar{
		{Name: "RAW", ValueFrom: secret("raw")},
		{Name: "BASE", Value: "/var/lib/postgresql/data"},
		{Name: "POSTGRES_PASSWORD", Value: "$(RAW)$(MISSING)"},
		{Name: "POSTGRES_PASSWORD", ValueFrom: secret("password")},
		{Name: "POSTGRES_PASSWORD_FILE", Value: pick(m, "/secrets/password", "/nowhere")},
		{Name: "POSTGRES_USER", Value: "owner"},
		{Name: "POSTGRES_USER", ValueFrom: secret("user")},
		{Name: "POSTGRES_DB", Value: "$(POSTGRES_USER)"},
		{Name: "PGDATA", Value: pick(m, "$(BASE)/pgdata", "/var/lib/postgresql/data", "/srv/pg")},
		{Name: "PGDATA", ValueFrom: secret("pgdata")},
		{Name: "PGPORT", Value: "5434"},
		{Name: "POSTGRES_INITDB_WALDIR", Value: "/wal/x"},
		{Name: "POD", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
	}
	for _, v := range all {
		if m.chance(20) {
			c.Env = append(c.Env, v)
		}
	}
	if m.chance(20) {
		c.EnvFrom = append(c.EnvFrom, corev1.EnvFromSource{Prefix: pick(m, "", "POSTGRES_", "X_"), SecretRef: &corev1.SecretEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "all"}}})
	}
}

func (m maker) volumes(pod *corev1.Pod, c *corev1.Container) {
	add := func(name string, source corev1.VolumeSource, mount corev1.VolumeMount) {
		mount.Name = name
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		c.VolumeMounts = append(c.VolumeMounts, mount)
	}
	disk := func() corev1.VolumeSource {
		return pick(m,
			corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}},
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: resource.NewQuantity(10<<30, resource.BinarySI)}},
			corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}},
			corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}})
	}
	if m.chance(75) {
		at := pick(m, "/var/lib/postgresql/data", "/var/lib/postgresql/data", "/var/lib/postgresql", "/home/postgres/pgdata", "/bitnami/postgresql", "/srv/pg")
		mount := corev1.VolumeMount{MountPath: at, SubPath: pick(m, "", "", "sub")}
		if mount.SubPath == "" && m.chance(15) {
			mount.SubPathExpr = "$(POD)"
		}
		add("data", disk(), mount)
	}
	if m.chance(25) {
		add("wal", disk(), corev1.VolumeMount{MountPath: "/wal", MountPropagation: new(corev1.MountPropagationHostToContainer)})
	}
	if m.chance(30) {
		add("secrets", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}, corev1.VolumeMount{MountPath: "/secrets", ReadOnly: true})
	}
	if m.chance(30) {
		add("conf", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{}}, corev1.VolumeMount{MountPath: pick(m, "/etc/postgresql", "/srv/conf")})
	}
	if m.chance(30) {
		add("dshm", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}, corev1.VolumeMount{MountPath: "/dev/shm"})
	}
}

func (m maker) resources() corev1.ResourceRequirements {
	list := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	r := pick(m, corev1.ResourceRequirements{},
		corev1.ResourceRequirements{Requests: list("100m", "128Mi")},
		corev1.ResourceRequirements{Requests: list("2", "4Gi"), Limits: list("2", "4Gi")},
		corev1.ResourceRequirements{Limits: list("1", "1Gi")},
		corev1.ResourceRequirements{Requests: list("500m", "1Gi"), Limits: list("4", "2Gi")})
	if r.Requests != nil && m.chance(20) {
		r.Requests[corev1.ResourceEphemeralStorage] = resource.MustParse("1Gi")
	}
	return r
}

func (m maker) podSecurity() *corev1.PodSecurityContext {
	s := &corev1.PodSecurityContext{}
	if m.chance(50) {
		s.RunAsUser = new(pick[int64](m, 0, 26, 999))
	}
	if m.chance(40) {
		s.RunAsNonRoot = new(true)
	}
	if m.chance(50) {
		s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	return s
}

func (m maker) security() *corev1.SecurityContext {
	s := &corev1.SecurityContext{}
	if m.chance(50) {
		s.RunAsUser, s.RunAsGroup = new(pick[int64](m, 70, 999)), new(int64(70))
	}
	if m.chance(60) {
		s.AllowPrivilegeEscalation = new(false)
		s.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	}
	return s
}
