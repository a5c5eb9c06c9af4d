package kubectl

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// original is a protected database on a disk that lasts, with a Secret and annotations of its own.
func original(t *testing.T) Database {
	t.Helper()
	pod := server("orders-0")
	pod.Annotations = map[string]string{
		"outrider.dev/rpo": "2s", "outrider.dev/restore": "never", "outrider.dev/cluster": "orders", "outrider.dev/oss-region": "cn-hangzhou", "team": "shop",
	}
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-orders-0"}}},
		{Name: "password", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "orders"}}},
		{Name: "other", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "other"}}},
	}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/postgresql/data"}, {Name: "password", MountPath: "/run/secrets/postgres"}}
	c.Lifecycle = &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"true"}}}}
	d, err := inject.Pod(pod, shop.input(configuration{}))
	if err != nil || d.Pod == nil {
		t.Fatalf("injecting: %v", err)
	}
	return one(t, shop, d.Pod)
}

func TestCloneIsAnotherPodWithTheSameData(t *testing.T) {
	d := original(t)
	clone, err := d.Clone("copy", "2026-11-20T09:30:00Z", nil)
	if err != nil {
		t.Fatal(err)
	}
	// What the webhook makes of it is what counts.
	made, err := inject.Pod(clone, shop.input(configuration{}))
	if err != nil || made.Reason != inject.Injected {
		t.Fatalf("the webhook would not take the clone: %s, %v", made.Reason, err)
	}
	p := made.Policy
	if p.Archiving != policy.Off || p.Restore != policy.RestoreRequired || p.RestoreFrom != "oss://backups/prod/shop/orders" || p.RestoreTarget.String() != "2026-11-20T09:30:00Z" {
		t.Errorf("its policy is %+v", p)
	}
	if p.Cluster == "orders" {
		t.Error("it has the identity of the original")
	}
	if clone.Annotations["outrider.dev/oss-region"] != "cn-hangzhou" || clone.Annotations["team"] != "" {
		t.Errorf("its annotations are %v", clone.Annotations)
	}
	if clone.Labels["app"] != "" || len(clone.OwnerReferences) != 0 || clone.Spec.NodeName != "" {
		t.Errorf("a Service or a controller takes it for the original: %+v", clone.ObjectMeta)
	}
	if len(clone.Spec.InitContainers) != 0 || len(clone.Spec.Volumes) != 2 {
		t.Errorf("it has %d init containers and %d volumes, want 0 and 2", len(clone.Spec.InitContainers), len(clone.Spec.Volumes))
	}
	for _, v := range made.Pod.Spec.Volumes {
		if v.PersistentVolumeClaim != nil {
			t.Errorf("it has the disk %s of the original", v.PersistentVolumeClaim.ClaimName)
		}
	}
	if l := clone.Spec.Containers[0].Lifecycle; l == nil || l.PostStart == nil || l.PreStop != nil {
		t.Errorf("its hooks are %+v", l)
	}
	// After an upgrade of PostgreSQL the sidecar writes into another root than the pod says.
	d.told(&Report{State: "protected", Archive: "oss://backups/prod/shop/orders@2"}, nil)
	if clone, err = d.Clone("copy", "latest", nil); err != nil || !strings.HasSuffix(clone.Annotations["outrider.dev/restore-from"], "@2") {
		t.Errorf("%v, %v", clone, err)
	}
}

func TestCloneRefuses(t *testing.T) {
	d := original(t)
	if _, err := d.Clone("orders-0", "latest", nil); err == nil {
		t.Error("the original's name was taken")
	}
	if _, err := d.Clone("copy", "yesterday", nil); err == nil {
		t.Error("a target that is none was taken")
	}
	d.pod.Annotations[policy.Status] = "{}"
	if _, err := d.Clone("copy", "latest", nil); err == nil {
		t.Error("without knowing the container a clone was made")
	}
}

func TestChoose(t *testing.T) {
	orders, users, bare := one(t, shop, guarded(t, "orders-0", running, waiting)), one(t, shop, guarded(t, "users-0", running, waiting)), one(t, shop, server("early-0"))
	second := one(t, shop, guarded(t, "users-1", running, waiting))
	for name, test := range map[string]struct {
		all  []Database
		name string
		want string // or, with a blank in it, what the error says
	}{
		"the only one":    {[]Database{orders, bare}, "", "orders-0"},
		"by pod":          {[]Database{orders, users}, "users-0", "users-0"},
		"by kind":         {[]Database{orders, users}, "pod/users-0", "users-0"},
		"by workload":     {[]Database{orders, users}, "sts/users", "users-0"},
		"by its name":     {[]Database{orders, users}, "StatefulSet/users", "users-0"},
		"many":            {[]Database{orders, users}, "", "name one of orders-0, users-0"},
		"many pods":       {[]Database{orders, users, second}, "sts/users", "name one of users-0, users-1"},
		"another":         {[]Database{orders}, "x-0", "it has orders-0"},
		"not protected":   {[]Database{orders, bare}, "early-0", "it has orders-0"},
		"none at all":     {[]Database{bare}, "", "outrider why --archive"},
		"only a workload": {[]Database{orders}, "deployment/orders", "it has orders-0"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := choose(test.all, "shop", test.name)
			if !strings.Contains(test.want, " ") {
				if err != nil || d.Pod != test.want {
					t.Errorf("chose %q, %v; want %s", d.Pod, err, test.want)
				}
				return
			}
			var none NotFoundError
			if !errors.As(err, &none) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("chose %q, %v; want an error with %q", d.Pod, err, test.want)
			}
		})
	}
}
