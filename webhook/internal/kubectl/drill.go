package kubectl

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// DrillRequest says what kind of restore drill is wanted.
type DrillRequest struct {
	Name  string // of the CronJob, or the beginning of the Job's
	Query string // what the restored database is asked; "" is nothing
	// Schedule is that of a CronJob, five fields of cron.
	Schedule string
}

// Drill is a CronJob whose pods hold a restore drill of the database: the image, the user and the access to the archive
// are the original's, which is neither asked nor touched. Where that lies on a disk that lasts, and disks knows it, each
// drill has one as large; else it takes the disk of its node. Nothing is made yet.
func (d Database) Drill(r DrillRequest, disks Disks) (*batchv1.CronJob, error) {
	about := fmt.Sprintf("a restore drill of pod %s/%s", d.Namespace, d.Pod)
	root, err := d.root()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	pg, err := postgresOf(d.pod)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", about, err)
	}
	annotations := drillAnnotations(d.pod.Annotations, path.Base(root))
	annotations[policy.Prefix+"container"] = pg.Name // where the image does not tell, the original's policy did
	if r.Query != "" {
		annotations[policy.Prefix+"drill-query"] = r.Query
	}
	labels := map[string]string{"app.kubernetes.io/name": r.Name, "app.kubernetes.io/managed-by": "kubectl-outrider"}
	return &batchv1.CronJob{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "CronJob"},
		ObjectMeta: metav1.ObjectMeta{Name: r.Name, Namespace: d.Namespace, Labels: labels},
		Spec: batchv1.CronJobSpec{
			Schedule: r.Schedule, ConcurrencyPolicy: batchv1.ForbidConcurrent,
			JobTemplate: batchv1.JobTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: batchv1.JobSpec{
					// Its disk is as large as the original's, and goes with it. The verdict stays in the archive.
					TTLSecondsAfterFinished: new(int32(time.Hour / time.Second)),
					BackoffLimit:            new(int32(3)), PodFailurePolicy: drillFailures(pg.Name),
					Template: corev1.PodTemplateSpec{
						ObjectMeta: metav1.ObjectMeta{Labels: labels, Annotations: annotations},
						Spec:       drillPod(d.pod, pg, disks),
					},
				},
			},
		},
	}, nil
}

// drillAnnotations keep what the original's policy says of access, and name the database.
func drillAnnotations(from map[string]string, cluster string) map[string]string {
	a := map[string]string{policy.Prefix + "drill": cluster}
	for _, key := range []string{"archive", "oss-endpoint", "oss-region", "credentials", "run-as"} {
		if v := from[policy.Prefix+key]; v != "" {
			a[policy.Prefix+key] = v
		}
	}
	return a
}

// drillFailures tell a drill that was held and not passed, which is final, from one that could not be held.
func drillFailures(container string) *batchv1.PodFailurePolicy {
	const notPassed = 10 // exit code of `outrider drill`
	return &batchv1.PodFailurePolicy{Rules: []batchv1.PodFailurePolicyRule{
		{Action: batchv1.PodFailurePolicyActionFailJob, OnExitCodes: &batchv1.PodFailurePolicyOnExitCodesRequirement{
			ContainerName: &container, Operator: batchv1.PodFailurePolicyOnExitCodesOpIn, Values: []int32{notPassed},
		}},
		{Action: batchv1.PodFailurePolicyActionIgnore, OnPodConditions: []batchv1.PodFailurePolicyOnPodConditionsPattern{
			{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue},
		}},
	}}
}

// drillPod has the original's image and what finds its superuser, and none of its volumes, ports, probes and passwords.
func drillPod(pod *corev1.Pod, pg *corev1.Container, disks Disks) corev1.PodSpec {
	c := corev1.Container{
		Name: pg.Name, Image: pg.Image, ImagePullPolicy: pg.ImagePullPolicy, EnvFrom: pg.EnvFrom, SecurityContext: pg.SecurityContext,
		Resources: drillResources(pg.Resources),
	}
	for _, e := range pg.Env {
		if !strings.Contains(e.Name, "PASSWORD") && e.Name != "PGDATA" {
			c.Env = append(c.Env, e)
		}
	}
	var volumes []corev1.Volume
	if room := roomFor(pod, pg, disks); room != nil {
		volumes = append(volumes, corev1.Volume{Name: "room", VolumeSource: *room})
		c.VolumeMounts = []corev1.VolumeMount{{Name: "room", MountPath: roomDir}}
		c.Env = append(c.Env, corev1.EnvVar{Name: "OUTRIDER_DRILL_DIR", Value: roomDir})
	}
	return corev1.PodSpec{
		RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{c}, Volumes: volumes, NodeSelector: pod.Spec.NodeSelector,
		Tolerations: slices.DeleteFunc(slices.Clone(pod.Spec.Tolerations), isPreset), SecurityContext: pod.Spec.SecurityContext.DeepCopy(),
		ServiceAccountName: pod.Spec.ServiceAccountName, ImagePullSecrets: pod.Spec.ImagePullSecrets,
	}
}

// roomDir is where a drill with a disk of its own restores to.
const roomDir = "/drill"

// roomFor is a volume like the largest disk of the original; nil if it has none that is known.
func roomFor(pod *corev1.Pod, pg *corev1.Container, disks Disks) *corev1.VolumeSource {
	var largest *Disk
	for _, v := range mountedVolumes(pod, pg) {
		if v.PersistentVolumeClaim == nil {
			continue
		}
		if disk, known := disks[v.PersistentVolumeClaim.ClaimName]; known && (largest == nil || disk.Size.Cmp(largest.Size) > 0) {
			largest = &disk
		}
	}
	if largest == nil {
		return nil
	}
	return new(largest.source())
}

// isPreset finds the tolerations that the API server gives to each pod.
func isPreset(t corev1.Toleration) bool {
	return t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable
}

// drillResources are modest: a drill has time, and its server small buffers. Room on the node's disk is the original's.
func drillResources(original corev1.ResourceRequirements) corev1.ResourceRequirements {
	r := corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("256Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("1Gi")},
	}
	if q, ok := original.Requests[corev1.ResourceEphemeralStorage]; ok {
		r.Requests[corev1.ResourceEphemeralStorage] = q
	}
	return r
}

// HoldDrill makes one Job of a drill now, and returns its name.
func (c *Cluster) HoldDrill(ctx context.Context, drill *batchv1.CronJob) (string, error) {
	job := JobOf(drill)
	made, err := c.client.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil {
		return "", fmt.Errorf("creating a job %s in namespace %s: %w", job.GenerateName, job.Namespace, err)
	}
	return made.Name, nil
}

// ScheduleDrill makes the CronJob.
func (c *Cluster) ScheduleDrill(ctx context.Context, drill *batchv1.CronJob) error {
	if _, err := c.client.BatchV1().CronJobs(drill.Namespace).Create(ctx, drill, metav1.CreateOptions{FieldManager: fieldManager}); err != nil {
		return fmt.Errorf("creating cronjob %s/%s: %w", drill.Namespace, drill.Name, err)
	}
	return nil
}

// JobOf is one Job as the CronJob would make it, with a name of its own.
func JobOf(drill *batchv1.CronJob) *batchv1.Job {
	return &batchv1.Job{
		TypeMeta:   metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"},
		ObjectMeta: metav1.ObjectMeta{GenerateName: drill.Name + "-", Namespace: drill.Namespace, Labels: drill.Labels},
		Spec:       drill.Spec.JobTemplate.Spec,
	}
}

const fieldManager = "kubectl-outrider"
