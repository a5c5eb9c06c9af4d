package audit

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

const oldCA, newCA = "-----BEGIN CERTIFICATE-----\nold\n-----END CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nnew\n-----END CERTIFICATE-----\n"

// input is what a webhook would inject with; change makes it another.
func input(change func(*inject.Input)) inject.Input {
	in := inject.Input{
		Namespace: "shop", Image: inject.Image{Name: "outrider:v2"}, KubernetesCluster: "c1",
		Levels:     []policy.Level{policy.Configuration(map[string]string{"archive": "oss://bucket/prod", "rpo": "1s"})},
		Evacuation: inject.Evacuation{URL: "https://a/v1/evacuations", CA: oldCA},
	}
	if change != nil {
		change(&in)
	}
	return in
}

// database is a pod as a StatefulSet makes it.
func database() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "orders-0", Labels: map[string]string{"app": "orders"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "orders", UID: "1", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "postgres", Image: "postgres:16", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/var/lib/postgresql/data"}}}},
			Volumes:    []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data-orders-0"}}}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// injected is a pod as the webhook made it with an input.
func injected(t *testing.T, in inject.Input) *corev1.Pod {
	t.Helper()
	d, err := inject.Pod(database(), in)
	if err != nil || d.Pod == nil {
		t.Fatalf("injecting: %v, %v", d.Reason, err)
	}
	return d.Pod
}

func TestJudgements(t *testing.T) {
	for name, c := range map[string]struct {
		made  func(*inject.Input) // what the webhook was when the pod was made; nil for the same as now
		never bool                // the webhook was not asked
		pod   func(*corev1.Pod)
		now   func(*inject.Input)
		want  State
		says  string
	}{
		"as it should be":         {want: Protected},
		"made before the label":   {never: true, want: Unprotected, says: "delete the pod"},
		"another image":           {now: func(in *inject.Input) { in.Image.Name = "outrider:v3" }, want: Outdated, says: "(image of outrider, image of outrider-restore)"},
		"another policy":          {now: archive("oss://bucket/prod", "500ms"), want: Outdated, says: "(OUTRIDER_RPO)"},
		"another archive":         {now: archive("oss://other/prod", "1s"), want: Outdated, says: "(OUTRIDER_ARCHIVE)"},
		"a key that is gone":      {made: func(in *inject.Input) { in.MetadataURL = "http://127.0.0.1" }, want: Outdated, says: "(OUTRIDER_METADATA_URL)"},
		"authorities, overlap":    {now: func(in *inject.Input) { in.Evacuation.CA = newCA + oldCA }, want: Protected},
		"authorities, none known": {now: func(in *inject.Input) { in.Evacuation.CA = newCA }, want: Outdated, says: "(OUTRIDER_EVACUATION_CA)"},
		"a variable of somebody else's": {pod: func(p *corev1.Pod) {
			p.Spec.InitContainers[1].Env = append(p.Spec.InitContainers[1].Env, corev1.EnvVar{Name: "TZ", Value: "UTC"})
		}, want: Protected},
		"an API token of the API server's": {pod: func(p *corev1.Pod) {
			p.Spec.InitContainers[1].VolumeMounts = append(p.Spec.InitContainers[1].VolumeMounts, corev1.VolumeMount{Name: "kube-api-access", MountPath: "/x"})
		}, want: Protected},
		"only the sidecar is left":               {pod: func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[1:] }, want: Unprotected},
		"cannot be made anew":                    {now: archive("nonsense", "1s"), want: Refused, says: "bad_policy"},
		"unprotected and could not be made anew": {never: true, now: archive("nonsense", "1s"), want: Refused, says: "nonsense"},
		"no database":                            {never: true, pod: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nginx" }},
		"what looks like one": {
			never: true, pod: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "corp/postgres-custom:1" }, want: Suspected, says: "name it in outrider.dev/container",
		},
		"what looks like one, with a mistake in the policy": {
			never: true, pod: func(p *corev1.Pod) { p.Spec.Containers[0].Image = "corp/postgres-custom:1" }, now: archive("nonsense", "1s"), want: Suspected, says: "looks like PostgreSQL",
		},
		"a script that may start one": {
			never: true, pod: func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh", "-c", "python3 job.py"} }, want: Suspected, says: "whether its script starts PostgreSQL cannot be told",
		},
		"a client of a known image": {never: true, pod: func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"pg_dump"} }},
		"opted out":                 {never: true, pod: func(p *corev1.Pod) { p.Annotations = map[string]string{"outrider.dev/protect": "disabled"} }},
		"a Job's":                   {never: true, pod: func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Job" }},
		"ended":                     {never: true, pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }},
		"on its way":                {never: true, pod: func(p *corev1.Pod) { p.DeletionTimestamp = new(metav1.Now()) }},
	} {
		pod := database()
		if !c.never {
			pod = injected(t, input(c.made))
		}
		if c.pod != nil {
			c.pod(pod)
		}
		v := judge(pod, input(c.now))
		if v.state != c.want || !strings.Contains(v.text, c.says) || (v.text == "") != (c.want == "" || c.want == Protected) {
			t.Errorf("%s: %q %q, want %q with %q", name, v.state, v.text, c.want, c.says)
		}
	}
}

func archive(location, rpo string) func(*inject.Input) {
	return func(in *inject.Input) {
		in.Levels = []policy.Level{policy.Configuration(map[string]string{"archive": location, "rpo": rpo})}
	}
}

func TestBudgetsThatBlock(t *testing.T) {
	budget := func(name, app string, healthy, expected, allowed int32) policyv1.PodDisruptionBudget {
		return policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       policyv1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}},
			Status:     policyv1.PodDisruptionBudgetStatus{DesiredHealthy: healthy, ExpectedPods: expected, DisruptionsAllowed: allowed},
		}
	}
	for name, c := range map[string]struct {
		budgets []policyv1.PodDisruptionBudget
		want    int
		says    string
	}{
		"none":                     {},
		"of somebody else":         {budgets: []policyv1.PodDisruptionBudget{budget("web", "web", 1, 1, 0)}},
		"one replica, all healthy": {budgets: []policyv1.PodDisruptionBudget{budget("db", "orders", 1, 1, 0)}, want: 1, says: "disruption budget db never allows"},
		"only for the moment":      {budgets: []policyv1.PodDisruptionBudget{budget("db", "orders", 1, 2, 0)}},
		"not counted yet":          {budgets: []policyv1.PodDisruptionBudget{budget("db", "orders", 0, 0, 0)}},
		"two":                      {budgets: []policyv1.PodDisruptionBudget{budget("a", "orders", 0, 1, 1), budget("b", "orders", 0, 1, 1)}, want: 2, says: "a, b all apply"},
	} {
		found, text := blocking(database(), c.budgets)
		if len(found) != c.want || !strings.Contains(text, c.says) || (text == "") != (c.want == 0) {
			t.Errorf("%s: %d, %q", name, len(found), text)
		}
	}
}

func TestNothingIsRepeatedEndlessly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, said := memory{}, 0
		say := func(text string) {
			if m.news(time.Now(), topic{uid: "1", reason: "NotProtected", text: text}) {
				said++
			}
			m.forget(time.Now())
		}
		for range 60 * 47 {
			say("a")
			time.Sleep(time.Minute)
		}
		if said != 2 {
			t.Errorf("in two days the same was said %d times", said)
		}
		say("b")
		time.Sleep(2 * time.Hour)
		say("c")
		say("a")
		if said != 5 || len(m) != 2 {
			t.Errorf("said %d times, %d remembered", said, len(m))
		}
	})
}

func TestCause(t *testing.T) {
	for note, want := range map[string]string{
		`create Pod orders-0 in StatefulSet orders failed error: admission webhook "pods.outrider.dev" denied the request: archive is required`:                                       `no pod can be made: admission webhook "pods.outrider.dev" denied the request: archive is required`,
		`Error creating: Internal error occurred: failed calling webhook "pods.outrider.dev": no endpoints available`:                                                                 `no pod can be made: failed calling webhook "pods.outrider.dev": no endpoints available`,
		`create Pod db-0 in StatefulSet db failed error: pods "db-0" is forbidden: ValidatingAdmissionPolicy 'outrider-guard' with binding 'outrider-guard' denied request: label it`: `no pod can be made: ValidatingAdmissionPolicy 'outrider-guard' with binding 'outrider-guard' denied request: label it`,
		`something with "pods.outrider.dev"`: `no pod can be made: something with "pods.outrider.dev"`,
	} {
		if got := cause(note); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := cause(`admission webhook "pods.outrider.dev" denied the request: ` + strings.Repeat("ü", 500)); len(got) > 700 || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}
