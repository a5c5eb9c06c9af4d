package manifests_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

const namespace = "outrider-system"

// find returns the one object of a type and name.
func find[T runtime.Object](t *testing.T, objects []object, name string) T {
	t.Helper()
	for _, o := range objects {
		if v, ok := o.Object.(T); ok && o.name(t) == name {
			return v
		}
	}
	var none T
	t.Fatalf("there is no %T called %s", none, name)
	return none
}

func base(t *testing.T) []object {
	t.Helper()
	return build(t, filepath.Join(top, "base"))
}

// People, sidecars and other manifests know these names.
func TestBaseHasWhatItIsKnownBy(t *testing.T) {
	var got []string
	for _, o := range base(t) {
		got = append(got, strings.TrimPrefix(o.kind()+" "+o.namespace(t)+"/"+o.name(t), " "))
	}
	slices.Sort(got)
	want := []string{
		"ClusterRole /outrider-admission", "ClusterRole /outrider-audit", "ClusterRole /outrider-evacuation",
		"ClusterRoleBinding /outrider-admission", "ClusterRoleBinding /outrider-audit", "ClusterRoleBinding /outrider-evacuation",
		"ConfigMap outrider-system/outrider-webhook", "Deployment outrider-system/outrider-webhook",
		"MutatingWebhookConfiguration /outrider", "Namespace /outrider-system", "NetworkPolicy outrider-system/outrider-webhook",
		"PodDisruptionBudget outrider-system/outrider-webhook", "Role outrider-system/outrider-webhook", "RoleBinding outrider-system/outrider-webhook",
		"Secret outrider-system/outrider-webhook-tls", "Service outrider-system/outrider-webhook", "ServiceAccount outrider-system/outrider-webhook",
		"ValidatingAdmissionPolicy /outrider-guard", "ValidatingAdmissionPolicyBinding /outrider-guard", "ValidatingWebhookConfiguration /outrider",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The Secret and the registrations are filled by the webhook. What is applied holds nothing there, or applying it again
// would undo that.
func TestApplyingAgainUndoesNothing(t *testing.T) {
	objects := base(t)
	s := find[*corev1.Secret](t, objects, "outrider-webhook-tls")
	if len(s.Data)+len(s.StringData) > 0 || s.Type != corev1.SecretTypeOpaque {
		t.Errorf("the Secret is of type %s and has %d entries", s.Type, len(s.Data)+len(s.StringData))
	}
	for _, c := range clientConfigs(t, objects) {
		if len(c.CABundle) > 0 {
			t.Error("a registration has a caBundle")
		}
	}
}

func clientConfigs(t *testing.T, objects []object) []admissionv1.WebhookClientConfig {
	t.Helper()
	var all []admissionv1.WebhookClientConfig
	for _, w := range find[*admissionv1.MutatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		all = append(all, w.ClientConfig)
	}
	for _, w := range find[*admissionv1.ValidatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		all = append(all, w.ClientConfig)
	}
	return all
}

// registered is what the API server asks one webhook, and what it does without an answer.
type registered struct {
	Name, Path                string
	Failure                   admissionv1.FailurePolicyType
	Reinvocation              admissionv1.ReinvocationPolicyType
	Timeout, Port             int32
	Operations                []admissionv1.OperationType
	Groups, Versions, Objects []string
	SideEffects               admissionv1.SideEffectClass
}

// registrations are those of all webhooks, which have one rule each.
func registrations(t *testing.T, objects []object) (all []registered) {
	t.Helper()
	add := func(name string, c admissionv1.WebhookClientConfig, rules []admissionv1.RuleWithOperations, failure admissionv1.FailurePolicyType, timeout int32, effects admissionv1.SideEffectClass) {
		if len(rules) != 1 {
			t.Fatalf("%s has %d rules", name, len(rules))
		}
		r := rules[0]
		all = append(all, registered{name, *c.Service.Path, failure, "", timeout, *c.Service.Port, r.Operations, r.APIGroups, r.APIVersions, r.Resources, effects})
	}
	for _, w := range find[*admissionv1.MutatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		add(w.Name, w.ClientConfig, w.Rules, *w.FailurePolicy, *w.TimeoutSeconds, *w.SideEffects)
		all[len(all)-1].Reinvocation = *w.ReinvocationPolicy
	}
	for _, w := range find[*admissionv1.ValidatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		add(w.Name, w.ClientConfig, w.Rules, *w.FailurePolicy, *w.TimeoutSeconds, *w.SideEffects)
	}
	return all
}

// The scale is asked about at a path of its own, which an older webhook answers with 404.
func TestRegistrations(t *testing.T) {
	want := []registered{
		{
			"pods.outrider.dev", "/mutate-pod", admissionv1.Fail, admissionv1.IfNeededReinvocationPolicy, 5, 443,
			[]admissionv1.OperationType{"CREATE"},
			[]string{""},
			[]string{"v1"},
			[]string{"pods"},
			admissionv1.SideEffectClassNone,
		},
		{
			"workloads.outrider.dev", "/review-workload", admissionv1.Ignore, "", 5, 443,
			[]admissionv1.OperationType{"CREATE", "UPDATE"},
			[]string{"apps"},
			[]string{"v1"},
			[]string{"deployments", "statefulsets"},
			admissionv1.SideEffectClassNone,
		},
		{
			"scale.outrider.dev", "/review-scale", admissionv1.Ignore, "", 5, 443,
			[]admissionv1.OperationType{"UPDATE"},
			[]string{"apps"},
			[]string{"v1"},
			[]string{"deployments/scale", "statefulsets/scale"},
			admissionv1.SideEffectClassNone,
		},
	}
	if diff := cmp.Diff(want, registrations(t, base(t))); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

// Only labelled namespaces wait for the webhook, and never its own or that of the control plane, however they are labelled:
// otherwise a cluster could not come back by itself.
func TestWhoWaitsForTheWebhook(t *testing.T) {
	objects := base(t)
	selectors := map[string]*metav1.LabelSelector{}
	for _, w := range find[*admissionv1.MutatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		selectors[w.Name] = w.NamespaceSelector
	}
	for _, w := range find[*admissionv1.ValidatingWebhookConfiguration](t, objects, "outrider").Webhooks {
		selectors[w.Name] = w.NamespaceSelector
	}
	guard := find[*admissionv1.ValidatingAdmissionPolicy](t, objects, "outrider-guard").Spec.MatchConstraints.NamespaceSelector
	own := find[*corev1.Namespace](t, objects, namespace)
	for _, c := range []struct {
		name, label    string
		asked, guarded bool
	}{
		{"shop", "enabled", true, true},
		{"shop", "", false, true},
		{"shop", "disabled", false, true},
		{"kube-system", "enabled", false, false},
		{namespace, "enabled", false, false},
		{namespace, own.Labels["outrider.dev/protect"], false, false},
	} {
		set := labels.Set{"kubernetes.io/metadata.name": c.name}
		if c.label != "" {
			set["outrider.dev/protect"] = c.label
		}
		for what, s := range selectors {
			if got := selects(t, s, set); got != c.asked {
				t.Errorf("%s in %s labelled %q: asked for %t", what, c.name, c.label, got)
			}
		}
		if got := selects(t, guard, set); got != c.guarded {
			t.Errorf("%s labelled %q: guarded %t", c.name, c.label, got)
		}
	}
	if own.Labels["outrider.dev/protect"] != "disabled" {
		t.Error("the webhook's own namespace is not left out by its label")
	}
}

func selects(t *testing.T, s *metav1.LabelSelector, set labels.Set) bool {
	t.Helper()
	selector, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		t.Fatal(err)
	}
	return selector.Matches(set)
}

// Everything that selects the webhook's pods does, in each overlay.
func TestSelectorsFindTheWebhook(t *testing.T) {
	for _, dir := range []string{"base", "overlays/dev", "overlays/ack", "overlays/kubernetes-1.29"} {
		objects := build(t, filepath.Join(top, dir))
		d := find[*appsv1.Deployment](t, objects, "outrider-webhook")
		pod := labels.Set(d.Spec.Template.Labels)
		service := find[*corev1.Service](t, objects, "outrider-webhook")
		budget := find[*policyv1.PodDisruptionBudget](t, objects, "outrider-webhook")
		network := find[*networkingv1.NetworkPolicy](t, objects, "outrider-webhook")
		for what, s := range map[string]*metav1.LabelSelector{
			"Deployment": d.Spec.Selector, "Service": {MatchLabels: service.Spec.Selector}, "PodDisruptionBudget": budget.Spec.Selector, "NetworkPolicy": &network.Spec.PodSelector,
		} {
			if !selects(t, s, pod) {
				t.Errorf("%s: the %s does not select the webhook's pods", dir, what)
			}
		}
		ports := map[string]int32{}
		for _, p := range d.Spec.Template.Spec.Containers[0].Ports {
			ports[p.Name] = p.ContainerPort
		}
		if want := map[string]int32{"https": 9443, "metrics": 8080, "health": 8081}; !cmp.Equal(ports, want) {
			t.Errorf("%s: the ports are %v", dir, ports)
		}
		if p := service.Spec.Ports; len(p) != 1 || p[0].Port != 443 || p[0].TargetPort.String() != "https" {
			t.Errorf("%s: the Service's ports are %+v", dir, p)
		}
	}
}

// The webhook lives in a namespace that enforces the restricted standard, beside a node that may be lost.
func TestWebhookIsRestrictedAndSpread(t *testing.T) {
	objects := base(t)
	d := find[*appsv1.Deployment](t, objects, "outrider-webhook").Spec
	spec := d.Template.Spec
	if *d.Replicas != 2 || spec.PriorityClassName != "system-cluster-critical" || d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 1 {
		t.Errorf("%d replicas, priority %s", *d.Replicas, spec.PriorityClassName)
	}
	if a := spec.Affinity.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution; len(a) != 1 || a[0].TopologyKey != corev1.LabelHostname {
		t.Errorf("the replicas may share a node: %+v", a)
	}
	if b := find[*policyv1.PodDisruptionBudget](t, objects, "outrider-webhook"); b.Spec.MinAvailable.IntValue() != 1 {
		t.Errorf("the budget is %v", b.Spec.MinAvailable)
	}
	if find[*corev1.Namespace](t, objects, namespace).Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
		t.Error("the namespace does not enforce the restricted standard")
	}
	if p := spec.SecurityContext; !*p.RunAsNonRoot || *p.RunAsUser == 0 || p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("the pod's security context: %+v", p)
	}
	c := spec.Containers[0].SecurityContext
	if *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(c.Capabilities.Add) > 0 {
		t.Errorf("the container's security context: %+v", c)
	}
	if r := spec.Containers[0]; r.LivenessProbe == nil || r.ReadinessProbe == nil || r.Resources.Requests.Cpu().IsZero() || r.Resources.Limits.Memory().IsZero() {
		t.Errorf("a probe, a request or a limit is missing")
	}
}

// One version of one project: the webhook puts in what it was tested with.
func TestImagesAreOfOneVersion(t *testing.T) {
	for dir, want := range map[string][]string{
		"base":                     {"ghcr.io/outrider-dev/outrider-webhook:v0.1.0", "ghcr.io/outrider-dev/outrider:v0.1.0"},
		"overlays/ack":             {"ghcr.io/outrider-dev/outrider-webhook:v0.1.0", "ghcr.io/outrider-dev/outrider:v0.1.0"},
		"overlays/kubernetes-1.29": {"ghcr.io/outrider-dev/outrider-webhook:v0.1.0", "ghcr.io/outrider-dev/outrider:v0.1.0"},
		"overlays/dev":             {"outrider-webhook:dev", "devcloud:dev"}, // the sidecar is the one that the webhook was built with
	} {
		objects := build(t, filepath.Join(top, dir))
		var got []string
		for _, o := range objects {
			if d, ok := o.Object.(*appsv1.Deployment); ok {
				got = append(got, d.Spec.Template.Spec.Containers[0].Image)
			}
		}
		config := find[*corev1.ConfigMap](t, objects, "outrider-webhook").Data["config.yaml"]
		for line := range strings.Lines(config) {
			if image, ok := strings.CutPrefix(line, "image: "); ok {
				got = append(got, strings.TrimSpace(image))
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", dir, diff)
		}
	}
}
