package kubectl

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"outrider.dev/webhook/internal/inject"
)

// claimOf is the claim of the original's disk, grown once to 50Gi.
func claimOf(class *string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: "data-orders-0", Namespace: "shop"},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}, StorageClassName: class, VolumeName: "pv-1",
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("20Gi")}},
		},
		Status: corev1.PersistentVolumeClaimStatus{Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("50Gi")}},
	}
}

// TestCloneHasADiskLikeTheOriginal: a database of many gigabytes is not restored onto the disk of a node, if that can be
// known; and if not, somebody is told.
func TestCloneHasADiskLikeTheOriginal(t *testing.T) {
	for name, test := range map[string]struct {
		objects []runtime.Object
		denied  []string
		class   string // of the claim that the clone makes; "" for an emptyDir
		limit   string // of the emptyDir, if any
		warning string
	}{
		"a claim":        {[]runtime.Object{claimOf(new("essd"))}, nil, "essd", "", ""},
		"may not see it": {[]runtime.Object{claimOf(new("essd"))}, []string{"persistentvolumeclaims"}, "", "", "it takes the right to get persistentvolumeclaims"},
		"gone":           {nil, nil, "", "", "not found"},
		"by hand":        {[]runtime.Object{claimOf(new(""))}, nil, "", "50Gi", "no storage class that could provide a second disk"},
		"by hand of old": {[]runtime.Object{claimOf(nil)}, nil, "", "50Gi", "no storage class"},
	} {
		t.Run(name, func(t *testing.T) {
			d := original(t)
			disks, warnings := pretended(test.denied, test.objects...).Disks(t.Context(), d)
			if text := strings.Join(warnings, "\n"); (test.warning == "") != (text == "") || !strings.Contains(text, test.warning) {
				t.Errorf("the warnings are %q, want %q", text, test.warning)
			}
			clone, err := d.Clone("copy", "latest", disks)
			if err != nil {
				t.Fatal(err)
			}
			made, err := inject.Pod(clone, shop.input(configuration{}))
			if err != nil || made.Reason != inject.Injected {
				t.Fatalf("the webhook would not take the clone: %s, %v", made.Reason, err)
			}
			wantDisk(t, made.Pod.Spec.Volumes[0], test.class, test.limit)
		})
	}
}

func wantDisk(t *testing.T, v corev1.Volume, class, limit string) {
	t.Helper()
	switch {
	case v.Name != "data" || v.PersistentVolumeClaim != nil:
		t.Errorf("the first volume is %+v", v)
	case class == "":
		if v.EmptyDir == nil || (v.EmptyDir.SizeLimit == nil) != (limit == "") || limit != "" && v.EmptyDir.SizeLimit.String() != limit {
			t.Errorf("the volume is %+v, want an emptyDir with the limit %q", v.VolumeSource, limit)
		}
	case v.Ephemeral == nil:
		t.Errorf("the volume is %+v, want one of its own", v.VolumeSource)
	default:
		spec := v.Ephemeral.VolumeClaimTemplate.Spec
		size := spec.Resources.Requests[corev1.ResourceStorage]
		if *spec.StorageClassName != class || size.String() != "50Gi" || spec.VolumeName != "" || spec.AccessModes[0] != corev1.ReadWriteOncePod {
			t.Errorf("it claims %+v", spec)
		}
	}
}

// TestOtherVolumesOfClones: what is made for each pod stays, and of what cannot be had twice somebody is told.
func TestOtherVolumesOfClones(t *testing.T) {
	pod := server("orders-0")
	limit := resource.MustParse("2Gi")
	pod.Spec.Volumes = []corev1.Volume{
		{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}},
		{Name: "more", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/mnt/disk"}}},
	}
	c := &pod.Spec.Containers[0]
	c.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/postgresql/data"}, {Name: "more", MountPath: "/more"}}
	c.Resources.Requests = corev1.ResourceList{corev1.ResourceEphemeralStorage: limit}
	d := one(t, shop, injected(t, pod))
	disks, warnings := pretended(nil).Disks(t.Context(), d)
	if len(warnings) != 1 || !strings.Contains(warnings[0], "volume more") {
		t.Errorf("the warnings are %q", warnings)
	}
	clone, err := d.Clone("copy", "latest", disks)
	if err != nil {
		t.Fatal(err)
	}
	wantDisk(t, clone.Spec.Volumes[0], "", "2Gi")
	if clone.Spec.Volumes[1].EmptyDir == nil {
		t.Errorf("it has the node's directory too: %+v", clone.Spec.Volumes[1])
	}
	if q := clone.Spec.Containers[0].Resources.Requests[corev1.ResourceEphemeralStorage]; q.Cmp(limit) != 0 {
		t.Errorf("it requests %s of the node's disk, want %s", q.String(), limit.String())
	}
	if d.pod.Spec.Volumes[1].HostPath == nil {
		t.Error("the original was changed")
	}
}

// TestCloneGoesWhereTheOriginalMay: to the same kind of node, with no regard to where the original's siblings are.
func TestCloneGoesWhereTheOriginalMay(t *testing.T) {
	d := original(t)
	spot := &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1}}}
	d.pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: spot, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	d.pod.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{MaxSkew: 1}}
	d.pod.Spec.RuntimeClassName, d.pod.Spec.PriorityClassName, d.pod.Spec.Priority = new("runv"), "precious", new(int32(1000))
	clone, err := d.Clone("copy", "latest", nil)
	if err != nil {
		t.Fatal(err)
	}
	spec := clone.Spec
	if a := spec.Affinity; a == nil || a.NodeAffinity == nil || a.NodeAffinity == spot || a.PodAntiAffinity != nil {
		t.Errorf("its affinity is %+v", a)
	}
	if spec.TopologySpreadConstraints != nil || spec.PriorityClassName != "" || spec.Priority != nil || spec.RuntimeClassName == nil {
		t.Errorf("it is %+v", spec)
	}
}
