package kubectl

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/sidecar/policy"
)

// checkPlaces looks at labels and annotations of namespaces, and asks the webhook about each that is labelled.
func (c *Cluster) checkPlaces(ctx context.Context, places []place, conf configuration) []Finding {
	s := &section{name: "namespaces"}
	judgeConfiguration(s, conf)
	labelled := 0
	for _, p := range places {
		judgePlace(s, p, conf)
		if p.labelled() {
			labelled++
			c.trial(ctx, s, p)
		}
	}
	if labelled == 0 && len(places) > 0 {
		about := "label"
		if len(places) == 1 {
			about = "namespace " + places[0].name
		}
		if len(places) == 1 && places[0].trouble != nil {
			return s.findings
		}
		s.add(Warning, about, "nothing is labelled, so nothing is protected", "kubectl label namespace NAME "+protectLabel+"=enabled")
	}
	return s.findings
}

func judgeConfiguration(s *section, conf configuration) {
	const about = "configuration of the webhook"
	if conf.trouble != nil {
		s.unknown(about, "get the ConfigMap "+webhookName+" in namespace "+systemNamespace, conf.trouble)
		return
	}
	var wrong []string
	for _, e := range policyErrors(policy.Configuration(conf.Policy)) {
		if !missingArchive(e) { // it may be set on namespaces instead
			wrong = append(wrong, e.Error())
		}
	}
	if len(wrong) > 0 {
		s.add(Failed, about, strings.Join(wrong, "\n"), "kubectl -n "+systemNamespace+" edit configmap "+webhookName)
		return
	}
	s.ok(about, fmt.Sprintf("%d defaults of the policy, all valid", len(conf.Policy)))
}

// policyErrors resolves levels and returns what is wrong with them, one by one.
func policyErrors(levels ...policy.Level) (wrong []*policy.Error) {
	_, _, err := policy.Resolve(levels...)
	var walk func(error)
	walk = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				walk(e)
			}
			return
		}
		var e *policy.Error
		if errors.As(err, &e) {
			wrong = append(wrong, e)
		}
	}
	walk(err)
	return wrong
}

func judgePlace(s *section, p place, conf configuration) {
	about := "namespace " + p.name
	if p.trouble != nil {
		s.unknown(about, "get namespaces", p.trouble)
		return
	}
	value, has := p.labels[protectLabel]
	system := p.name == systemNamespace || p.name == metav1.NamespaceSystem
	switch {
	case system:
		return
	case has && value != string(policy.ProtectEnabled) && value != string(policy.ProtectDisabled):
		s.add(Failed, about, "its label "+protectLabel+" says "+value+", which protects nothing", "kubectl label --overwrite namespace "+p.name+" "+protectLabel+"=enabled")
		return
	case !has && annotated(p.annotations):
		s.add(Warning, about, "it has annotations of outrider.dev and no label, so they have no effect", "kubectl label namespace "+p.name+" "+protectLabel+"=enabled")
		return
	case !p.labelled():
		return
	}
	var wrong []string
	for _, e := range policyErrors(policy.Configuration(conf.Policy), policy.Namespace(p.name, p.annotations)) {
		if missingArchive(e) {
			continue // pods may say it, or the configuration that could not be read
		}
		wrong = append(wrong, e.Error())
	}
	switch {
	case len(wrong) > 0:
		s.add(Failed, about, strings.Join(wrong, "\n"), "kubectl annotate --overwrite namespace "+p.name+" NAME=VALUE; until then new pods with a database are refused")
	case conf.trouble == nil:
		s.ok(about, "labelled, its annotations are valid")
	default:
		s.ok(about, "labelled, its annotations are valid by themselves")
	}
}

func annotated(annotations map[string]string) bool {
	for name := range annotations {
		if strings.HasPrefix(name, policy.Prefix) {
			return true
		}
	}
	return false
}

// trial has the API server admit a pod with a database, with a dry run: nothing is made, and everything is asked that
// would be asked. It proves that the webhook is reached and recognised.
func (c *Cluster) trial(ctx context.Context, s *section, p place) {
	about := "trial in namespace " + p.name
	little := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi")}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "outrider-check", Namespace: p.name},
		Spec: corev1.PodSpec{
			// As Pod Security wants it where it wants most, and with what a quota asks for.
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: new(int64(999)), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "postgres", Image: "postgres:17", Resources: corev1.ResourceRequirements{Requests: little, Limits: little},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
	made, err := c.client.CoreV1().Pods(p.name).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	judgeTrial(s, about, made, err)
}

func judgeTrial(s *section, about string, made *corev1.Pod, err error) {
	const look = "kubectl -n " + systemNamespace + " logs deployment/" + webhookName
	switch {
	case err == nil && claims(made):
		s.ok(about, "a new pod with a database would be protected (dry run)")
	case err == nil:
		s.add(Failed, about, "a new pod with a database would start unprotected (dry run)", "see the webhook configurations above; "+look)
	case strings.Contains(err.Error(), "failed calling webhook"):
		s.add(Failed, about, "the API server does not get an answer of the webhook: "+err.Error(),
			"see the Deployment and the caBundle above, and whether the API server reaches Service "+webhookName+" on port 443; "+look)
	case strings.Contains(err.Error(), "admission webhook"):
		s.add(Warning, about, "a new pod with a database and no annotations of its own would be refused: "+err.Error(),
			"set what is missing on the namespace, or on each pod template")
	case apierrors.IsForbidden(err) && !strings.Contains(err.Error(), "cannot create resource"):
		// Pod Security and quotas refuse such a plain pod, too, which says nothing about others.
		s.add(Warning, about, "the plain pod of the trial is refused, by others than Outrider: "+err.Error(),
			"see whether one of yours is taken: kubectl create --dry-run=server -f FILE")
	default:
		s.unknown(about, "create pods in that namespace, for a dry run", err)
	}
}

// missingArchive tells the error of an archive that no level names.
func missingArchive(e *policy.Error) bool { return e.Key == "archive" && e.Level == "" }
