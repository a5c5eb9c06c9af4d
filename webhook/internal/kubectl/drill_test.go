package kubectl

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

func TestDrillIsOfTheOriginalsArchiveAndImage(t *testing.T) {
	d := original(t)
	d.pod.Spec.Containers[0].Env = append(d.pod.Spec.Containers[0].Env, corev1.EnvVar{Name: "POSTGRES_USER", Value: "app"}, corev1.EnvVar{Name: "POSTGRES_PASSWORD", Value: "secret"})
	c, err := d.Drill(DrillRequest{Name: "nightly", Query: "select 1", Schedule: "30 4 * * *"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Name != "nightly" || c.Namespace != "shop" || c.Spec.Schedule != "30 4 * * *" {
		t.Errorf("it is %s/%s at %s", c.Namespace, c.Name, c.Spec.Schedule)
	}
	job := JobOf(c)
	// What the webhook makes of its pod is what counts.
	made, err := inject.Pod(inject.PodOfJob(job), shop.input(configuration{}))
	if err != nil || made.Reason != inject.Drill {
		t.Fatalf("the webhook does not take it for a drill: %s, %v", made.Reason, err)
	}
	if p := made.Policy; p.Archive != "oss://backups/prod/shop/orders" || p.DrillQuery != "select 1" || p.OSSRegion != "cn-hangzhou" {
		t.Errorf("its policy is %+v", p)
	}
	pg := made.Pod.Spec.Containers[0]
	env := map[string]string{}
	for _, e := range pg.Env {
		env[e.Name] = e.Value
	}
	if pg.Image != d.pod.Spec.Containers[0].Image || env["PGUSER"] != "app" || env["POSTGRES_PASSWORD"] != "" {
		t.Errorf("image %s, user %q, password %q", pg.Image, env["PGUSER"], env["POSTGRES_PASSWORD"])
	}
	for _, v := range made.Pod.Spec.Volumes {
		if !strings.HasPrefix(v.Name, "outrider-") {
			t.Errorf("it has the volume %s of the original", v.Name)
		}
	}
	if len(pg.Ports) > 0 || pg.Lifecycle != nil || pg.LivenessProbe != nil {
		t.Errorf("it has the ports, hooks or probes of a server: %+v", pg)
	}
	if job.GenerateName != "nightly-" || job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyNever {
		t.Errorf("its job is called %q and restarts %q", job.GenerateName, job.Spec.Template.Spec.RestartPolicy)
	}
	// After an upgrade of PostgreSQL the sidecar writes into another root than the pod says.
	d.told(&Report{State: "protected", Archive: "oss://backups/prod/shop/orders@2"}, nil)
	if c, err = d.Drill(DrillRequest{Name: "nightly"}, nil); err != nil || c.Spec.JobTemplate.Spec.Template.Annotations[policy.Prefix+"drill"] != "orders@2" {
		t.Errorf("%v, %v", c, err)
	}
}

func TestDrillHasRoom(t *testing.T) {
	d := original(t)
	c, err := d.Drill(DrillRequest{Name: "nightly"}, Disks{"data-orders-0": {Size: resource.MustParse("300Gi"), Class: new("fast")}, "other": {Size: resource.MustParse("1Ti"), Class: new("fast")}})
	if err != nil {
		t.Fatal(err)
	}
	made, err := inject.Pod(inject.PodOfJob(JobOf(c)), shop.input(configuration{}))
	if err != nil || made.Reason != inject.Drill {
		t.Fatalf("the webhook does not take it for a drill: %s, %v", made.Reason, err)
	}
	v := made.Pod.Spec.Volumes[0]
	if v.Ephemeral == nil || v.Ephemeral.VolumeClaimTemplate.Spec.Resources.Requests.Storage().String() != "300Gi" {
		t.Errorf("it restores to %+v", v)
	}
	if env := made.Pod.Spec.Containers[0].Env; !slices.Contains(env, corev1.EnvVar{Name: "OUTRIDER_DRILL_DIR", Value: roomDir}) {
		t.Errorf("its variables are %+v", env)
	}
}
