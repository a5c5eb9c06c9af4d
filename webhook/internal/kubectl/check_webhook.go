package kubectl

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// oldestKubernetes has native sidecars by default.
const oldestKubernetes = 29

const applyAll = "kubectl apply -k manifests/base, or the overlay that was installed"

func judgeVersion(s *section, major, minor string) {
	n, err := strconv.Atoi(strings.TrimRight(minor, "+"))
	switch {
	case err != nil:
		s.add(Unknown, "version", fmt.Sprintf("could not be told: the API server calls itself %s.%s", major, minor), "kubectl version says more; it has to be 1.29 or later")
	case major == "1" && n < oldestKubernetes:
		s.add(Failed, "version", "it is "+major+"."+minor+", which has no native sidecars", "upgrade to 1.29 or later")
	default:
		s.ok("version", "the API server answers and is "+major+"."+minor)
	}
}

func (c *Cluster) checkWebhook(ctx context.Context, now time.Time) []Finding {
	s := &section{name: "webhook"}
	const deployment = "deployment " + webhookName
	d, err := c.client.AppsV1().Deployments(systemNamespace).Get(ctx, webhookName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		s.add(Failed, deployment, "it is not installed in "+systemNamespace, applyAll)
	case err != nil:
		s.unknown(deployment, "get deployments.apps in namespace "+systemNamespace, err)
	default:
		judgeDeployment(s, deployment, d)
	}
	c.checkServing(ctx, s, now)
	c.checkRegistrations(ctx, s, now)
	return s.findings
}

// checkRegistrations looks at what makes the API server ask the webhook.
func (c *Cluster) checkRegistrations(ctx context.Context, s *section, now time.Time) {
	admission := c.client.AdmissionregistrationV1()
	const mutating, validating = "mutating webhook configuration " + registration, "validating webhook configuration " + registration
	m, err := admission.MutatingWebhookConfigurations().Get(ctx, registration, metav1.GetOptions{})
	if present(s, mutating, "mutatingwebhookconfigurations.admissionregistration.k8s.io", "labelled namespaces are not protected: nobody is asked about their pods", err) {
		for _, w := range m.Webhooks {
			judgeBundle(s, mutating, w.ClientConfig.CABundle, now)
			if w.FailurePolicy != nil && *w.FailurePolicy != admissionv1.Fail {
				s.add(Failed, mutating, "its failurePolicy is "+string(*w.FailurePolicy)+": while the webhook is away databases start without their restore, perhaps empty", applyAll)
			}
		}
	}
	v, err := admission.ValidatingWebhookConfigurations().Get(ctx, registration, metav1.GetOptions{})
	if present(s, validating, "validatingwebhookconfigurations.admissionregistration.k8s.io", "nobody is warned when a workload is applied", err) {
		for _, w := range v.Webhooks {
			judgeBundle(s, validating, w.ClientConfig.CABundle, now)
		}
	}
	_, err = admission.ValidatingAdmissionPolicies().Get(ctx, guardName, metav1.GetOptions{})
	if err == nil {
		_, err = admission.ValidatingAdmissionPolicyBindings().Get(ctx, guardName, metav1.GetOptions{})
	}
	const guard = "admission policy " + guardName
	switch {
	case apierrors.IsNotFound(err):
		s.add(Warning, guard, "it is not installed or not bound: if a namespace loses its label, its databases may start empty",
			"on Kubernetes 1.30 or later, "+applyAll)
	case err != nil:
		s.unknown(guard, "get validatingadmissionpolicies.admissionregistration.k8s.io and their bindings", err)
	default:
		s.ok(guard, "installed and bound")
	}
}

func judgeDeployment(s *section, about string, d *appsv1.Deployment) {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	have := d.Status.AvailableReplicas
	text := fmt.Sprintf("%d of %d replicas are available", have, want)
	look := fmt.Sprintf("kubectl -n %s describe pods; kubectl -n %s logs deployment/%s", systemNamespace, systemNamespace, webhookName)
	switch {
	case have == 0:
		s.add(Failed, about, text+": in labelled namespaces no pod can be made", look)
	case have < want:
		s.add(Warning, about, text, look)
	case want < 2:
		s.add(Warning, about, text+": while it moves, no pod can be made in labelled namespaces", "kubectl -n "+systemNamespace+" scale deployment/"+webhookName+" --replicas=2")
	default:
		s.ok(about, text)
	}
}

// present says so if an object of the installation could not be read, and tells whether it could.
func present(s *section, about, resource, consequence string, err error) bool {
	switch {
	case apierrors.IsNotFound(err):
		s.add(Failed, about, "it is not installed: "+consequence, applyAll)
	case err != nil:
		s.unknown(about, "get "+resource, err)
	}
	return err == nil
}
