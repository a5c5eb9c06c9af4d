package inject

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"outrider.dev/sidecar/policy"
)

// randomPods runs a check on pods that are injected, of which there are enough.
func randomPods(t *testing.T, check func(m maker, pod *corev1.Pod, d Decision) error) {
	t.Helper()
	const rounds = 250
	seed := uint64(time.Now().UnixNano())
	reasons := map[Reason]int{}
	for i := range rounds {
		m := maker{rand.New(rand.NewPCG(seed, uint64(i)))}
		pod := m.pod()
		d, err := Pod(pod, testInput())
		reasons[d.Reason]++
		if (err != nil) != d.Reason.Refused() {
			t.Fatalf("seed %d, round %d: reason %s with error %v", seed, i, d.Reason, err)
		}
		if d.Reason != Injected {
			continue
		}
		if err := check(m, pod, d); err != nil {
			t.Fatalf("seed %d, round %d: %v", seed, i, err)
		}
	}
	t.Logf("seed %d: %v", seed, reasons)
	if reasons[Injected] < rounds/10 {
		t.Fatalf("seed %d: only %d of %d pods were injected: %v", seed, reasons[Injected], rounds, reasons)
	}
}

func TestTwiceIsOnce(t *testing.T) {
	randomPods(t, func(_ maker, _ *corev1.Pod, d Decision) error {
		// As it comes back in the second call, over the wire.
		raw, err := json.Marshal(d.Pod)
		if err != nil {
			return err
		}
		var sent corev1.Pod
		if err := json.Unmarshal(raw, &sent); err != nil {
			return err
		}
		again, err := Pod(&sent, testInput())
		if err != nil || again.Reason != Injected {
			return fmt.Errorf("the injected pod is %s: %w", again.Reason, err)
		}
		if again.Pod != nil {
			return fmt.Errorf("the second injection changes (-once +twice):\n%s", cmp.Diff(d.Pod, again.Pod))
		}
		if diff := cmp.Diff(d.Policy, again.Policy); diff != "" {
			return fmt.Errorf("the second injection has another policy:\n%s", diff)
		}
		return nil
	})
}

// Whatever another injector adds between two calls, the outcome is that of one call after it.
func TestOrderOfInjectorsDoesNotMatter(t *testing.T) {
	other := func(m maker, pod *corev1.Pod) {
		c := &pod.Spec.Containers[len(pod.Spec.Containers)-1]
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "other", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "other", MountPath: "/other"})
		proxy := corev1.Container{Name: pick(m, "istio-proxy", "kuma-sidecar", "vault-agent"), Image: "proxy", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)}
		if m.chance(50) {
			pod.Spec.InitContainers = append([]corev1.Container{proxy}, pod.Spec.InitContainers...)
		} else {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, proxy)
		}
	}
	randomPods(t, func(m maker, pod *corev1.Pod, d Decision) error {
		direction := m.Uint64()
		between, before := d.Pod.DeepCopy(), pod.DeepCopy()
		other(maker{rand.New(rand.NewPCG(direction, 0))}, between)
		other(maker{rand.New(rand.NewPCG(direction, 0))}, before)
		after, err := Pod(between, testInput())
		if err != nil {
			return err
		}
		want, err := Pod(before, testInput())
		if err != nil {
			return err
		}
		if !equality.Semantic.DeepEqual(after.Pod, want.Pod) {
			return fmt.Errorf("the order of injectors matters (-other first +outrider first):\n%s", cmp.Diff(want.Pod, after.Pod))
		}
		return checkPatch(between, after.Pod)
	})
}

func TestNothingOfTheUsersIsLost(t *testing.T) {
	randomPods(t, func(_ maker, pod *corev1.Pod, d Decision) error {
		if err := checkPatch(pod, d.Pod); err != nil {
			return err
		}
		got, want := d.Pod.DeepCopy(), pod.DeepCopy()
		strip(got)
		strip(want)
		// What an injection changes for good, and how.
		if g := *got.Spec.TerminationGracePeriodSeconds; g < d.Policy.Grace.Milliseconds()/1000 {
			return fmt.Errorf("the grace is %d s, the policy says %s", g, d.Policy.Grace)
		}
		if s := want.Spec.TerminationGracePeriodSeconds; s != nil && *s > *got.Spec.TerminationGracePeriodSeconds {
			return fmt.Errorf("the grace was lowered from %d", *s)
		}
		got.Spec.TerminationGracePeriodSeconds = want.Spec.TerminationGracePeriodSeconds
		for i, toleration := range want.Spec.Tolerations {
			if *toleration.TolerationSeconds == 300 && toleration.Key != "other" {
				want.Spec.Tolerations[i].TolerationSeconds = new(int64(30))
			}
		}
		if want.Annotations[defaultContainer] == "" {
			delete(got.Annotations, defaultContainer)
		}
		for i := range got.Spec.Containers {
			c := &got.Spec.Containers[i]
			if c.Name == d.Policy.Container {
				c.Env = slices.DeleteFunc(c.Env, func(e corev1.EnvVar) bool {
					added := e.Name == "POSTGRESQL_PERFORM_RESTORE" || e.Name == "PGDATA" && lastVariable(want.Spec.Containers[i].Env, "PGDATA") < 0
					return added
				})
				if j := lastVariable(want.Spec.Containers[i].Env, "PGDATA"); j >= 0 {
					want.Spec.Containers[i].Env[j] = c.Env[j] // moved below its emptyDir, if at all
				}
			}
		}
		if !equality.Semantic.DeepEqual(got, want) {
			return fmt.Errorf("without what is ours the pod differs (-before +after):\n%s", cmp.Diff(want, got))
		}
		return nil
	})
}

func TestInjectedPodsKeepTheRules(t *testing.T) {
	randomPods(t, func(_ maker, pod *corev1.Pod, d Decision) error {
		for _, check := range []func(before, after *corev1.Pod) error{checkStructure, checkVolumes, checkQuality, checkSecurity} {
			if err := check(pod, d.Pod); err != nil {
				return err
			}
		}
		return checkEnvironment(d)
	})
}

func checkStructure(before, after *corev1.Pod) error {
	var containers []string
	volumes := map[string]bool{}
	for _, v := range after.Spec.Volumes {
		if volumes[v.Name] {
			return fmt.Errorf("two volumes are called %s", v.Name)
		}
		volumes[v.Name] = true
	}
	at := -1
	for i, c := range slices.Concat(after.Spec.InitContainers, after.Spec.Containers) {
		if slices.Contains(containers, c.Name) && c.Name != "istio-proxy" && c.Name != "linkerd-proxy" {
			return fmt.Errorf("two containers are called %s", c.Name)
		}
		containers = append(containers, c.Name)
		paths := map[string]bool{}
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] || paths[m.MountPath] {
				return fmt.Errorf("container %s mounts %s at %s: no such volume, or twice", c.Name, m.Name, m.MountPath)
			}
			paths[m.MountPath] = true
		}
		if c.Name == RestoreContainer {
			at = i
		}
	}
	init := after.Spec.InitContainers
	if len(init) != len(before.Spec.InitContainers)+2 || at < 0 || init[at+1].Name != SidecarContainer || !isNative(init[at+1]) || isNative(init[at]) {
		return fmt.Errorf("the init containers are %s", names(init))
	}
	for i, c := range init {
		if proxy := isNative(c) && isMeshProxy(c.Name); proxy && i > at || i < at && !proxy && !slices.ContainsFunc(init[i:at], func(c corev1.Container) bool { return isNative(c) && isMeshProxy(c.Name) }) {
			return fmt.Errorf("ours are in the wrong place among %s", names(init))
		}
	}
	return nil
}

// checkVolumes: what may hold the database is there, what delivers secrets is not.
func checkVolumes(_, after *corev1.Pod) error {
	for _, c := range after.Spec.InitContainers {
		if !isOurContainer(c.Name) {
			continue
		}
		env := map[string]string{}
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		if m := covering(c.VolumeMounts, env["PGDATA"]); m == nil || m.ReadOnly != (c.Name == SidecarContainer) {
			return fmt.Errorf("container %s sees %s through %v", c.Name, env["PGDATA"], m)
		}
		masked := false
		for _, m := range c.VolumeMounts {
			v := volumeNamed(after, m.Name)
			switch {
			case v.Secret != nil && (m.MountPath != passwordFile || m.SubPath == "" || c.Name != SidecarContainer), v.ConfigMap != nil:
				return fmt.Errorf("container %s sees the volume %s at %s", c.Name, m.Name, m.MountPath)
			case m.MountPath == "/dev/shm", m.MountPropagation != nil, m.RecursiveReadOnly != nil:
				return fmt.Errorf("container %s has the mount %v", c.Name, m)
			case c.Name == SidecarContainer && !m.ReadOnly && m.Name != spoolVolume:
				return fmt.Errorf("the sidecar may write to %s", m.MountPath)
			}
			masked = masked || m.MountPath == identityDir
		}
		if !masked {
			return fmt.Errorf("container %s has the API token", c.Name)
		}
	}
	return nil
}

func checkQuality(before, after *corev1.Pod) error {
	if guaranteed(before) != guaranteed(after) {
		return fmt.Errorf("guaranteed was %v and is %v", guaranteed(before), guaranteed(after))
	}
	for _, c := range after.Spec.InitContainers {
		if !isOurContainer(c.Name) {
			continue
		}
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			request, limit := c.Resources.Requests[name], c.Resources.Limits[name]
			if request.IsZero() || limit.IsZero() || request.Cmp(limit) > 0 {
				return fmt.Errorf("container %s has request %s and limit %s for %s", c.Name, request.String(), limit.String(), name)
			}
		}
	}
	// A restore that asks for more than runs later would make the pod larger.
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		sum := after.Spec.InitContainers[0].Resources.Requests[name].DeepCopy()
		sum.Sub(sum)
		restore := sum.DeepCopy()
		for _, c := range slices.Concat(after.Spec.InitContainers, after.Spec.Containers) {
			request, ok := c.Resources.Requests[name]
			if !ok {
				request = c.Resources.Limits[name]
			}
			switch {
			case c.Name == RestoreContainer:
				restore = request
			case isNative(c) || slices.ContainsFunc(after.Spec.Containers, func(o corev1.Container) bool { return o.Name == c.Name }):
				sum.Add(request)
			}
		}
		if restore.Cmp(sum) > 0 {
			return fmt.Errorf("the restore requests %s of %s, and the pod %s", restore.String(), name, sum.String())
		}
	}
	return nil
}

// checkSecurity: a pod that a level of the Pod Security Standards admits is still admitted.
func checkSecurity(before, after *corev1.Pod) error {
	for _, c := range after.Spec.InitContainers {
		if !isOurContainer(c.Name) {
			continue
		}
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			return fmt.Errorf("container %s is not confined: %v", c.Name, s)
		}
		for _, added := range s.Capabilities.Add {
			if !slices.Contains([]corev1.Capability{"DAC_OVERRIDE", "CHOWN", "FOWNER"}, added) || *s.RunAsUser != 0 || c.Name == SidecarContainer && added != "DAC_OVERRIDE" {
				return fmt.Errorf("container %s of user %d has the capability %s", c.Name, *s.RunAsUser, added)
			}
		}
		if *s.RunAsNonRoot != (*s.RunAsUser != 0) {
			return fmt.Errorf("container %s contradicts itself: %v", c.Name, s)
		}
	}
	for _, c := range before.Spec.Containers {
		if _, _, nonRoot := podUser(before, &c); nonRoot && c.Name == defaultOf(after) {
			for _, ours := range after.Spec.InitContainers {
				if isOurContainer(ours.Name) && *ours.SecurityContext.RunAsUser == 0 {
					return fmt.Errorf("container %s is root in a pod that may not be", ours.Name)
				}
			}
		}
	}
	return nil
}

func defaultOf(pod *corev1.Pod) string { return statusOf(pod).Container }

// checkEnvironment: the sidecar reads the policy that was decided, and nothing in it is expanded.
func checkEnvironment(d Decision) error {
	for _, c := range d.Pod.Spec.InitContainers {
		if !isOurContainer(c.Name) {
			continue
		}
		p, _, err := policy.FromEnv(func(name string) (string, bool) {
			v, k := valueOf(&c, name)
			return v, k == given
		})
		if err != nil {
			return fmt.Errorf("container %s cannot read its policy: %w", c.Name, err)
		}
		if diff := cmp.Diff(d.Policy, p); diff != "" {
			return fmt.Errorf("container %s reads another policy (-decided +read):\n%s", c.Name, diff)
		}
		if !strings.HasSuffix(p.Archive, path.Join("/", "shop", p.Cluster)) {
			return fmt.Errorf("the root is %s for cluster %s", p.Archive, p.Cluster)
		}
		if c.Name == RestoreContainer && slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return strings.HasPrefix(e.Name, "PGPASS") }) {
			return fmt.Errorf("the restore knows the password")
		}
	}
	return nil
}
