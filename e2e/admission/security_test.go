package admission

import (
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestPodSecurity: what is added to a pod is admitted wherever the pod is.
func TestPodSecurity(t *testing.T) {
	w := shared
	for level, securityContext := range map[string]string{
		"baseline":   "{}",
		"restricted": "{runAsNonRoot: true, runAsUser: 999, runAsGroup: 999, fsGroup: 999, seccompProfile: {type: RuntimeDefault}}",
	} {
		t.Run(level, func(t *testing.T) {
			ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{
				"outrider.dev/protect":               "enabled",
				"pod-security.kubernetes.io/enforce": level,
				"pod-security.kubernetes.io/warn":    level,
			}}}
			name := w.namespace(t, ns)
			manifest := database(name, "db")
			manifest = strings.Replace(manifest, "    spec:\n", "    spec:\n      securityContext: "+securityContext+"\n", 1)
			manifest = strings.Replace(manifest, "image: postgres:17\n",
				"image: postgres:17\n        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}\n", 1)
			if out := w.apply(t, manifest); strings.Contains(out, "PodSecurity") {
				t.Errorf("kubectl apply printed\n%s", out)
			}
			if pod := w.ready(t, name, "db-0"); !isProtected(pod) {
				t.Errorf("its init containers are %+v", pod.Spec.InitContainers)
			}
		})
	}
}

// TestResourceQuota: a quota for something demands it of every container.
func TestResourceQuota(t *testing.T) {
	w := shared
	ns := w.protected(t)
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "all"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{
		corev1.ResourceRequestsCPU: resource.MustParse("8"), corev1.ResourceLimitsCPU: resource.MustParse("16"),
		corev1.ResourceRequestsMemory: resource.MustParse("8Gi"), corev1.ResourceLimitsMemory: resource.MustParse("8Gi"),
	}}}
	if _, err := w.client.CoreV1().ResourceQuotas(ns).Create(t.Context(), quota, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	const guaranteed = "resources: {requests: {cpu: 500m, memory: 512Mi}, limits: {cpu: 500m, memory: 512Mi}}"
	manifest := strings.Replace(database(ns, "db"), "resources: {requests: {cpu: 100m, memory: 100Mi, ephemeral-storage: 1Gi}}", guaranteed, 1)
	if !strings.Contains(manifest, guaranteed) {
		t.Fatal("the manifest has other resources than this test replaces")
	}
	w.apply(t, manifest)
	pod := w.ready(t, ns, "db-0")
	if !isProtected(pod) {
		t.Errorf("its init containers are %+v", pod.Spec.InitContainers)
	}
	// A Guaranteed pod stays one: it is the last to go when its node runs out of memory.
	if pod.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("its class is %s, want Guaranteed", pod.Status.QOSClass)
	}
}

// TestNoRights: neither the workloads' service accounts nor anything that is put into their pods opens the API server.
func TestNoRights(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, database(ns, "db"))
	pod := w.ready(t, ns, "db-0")
	account := "system:serviceaccount:" + ns + ":" + pod.Spec.ServiceAccountName
	for _, question := range []string{
		"get pods", "list pods", "watch pods", "create pods", "delete pods", "patch pods", "create pods/eviction", "create pods/exec",
		"patch pods/status", "get secrets", "list secrets", "get configmaps", "list nodes", "patch nodes", "get namespaces",
		"create authentication.k8s.io/tokenreviews", "create serviceaccounts/token", "create events", "create events.k8s.io/events",
		"get coordination.k8s.io/leases", "update apps/statefulsets", "get admissionregistration.k8s.io/mutatingwebhookconfigurations", "* */*",
	} {
		if w.may(t, account, ns, question) {
			t.Errorf("%s may %s", account, question)
		}
	}
	out, _ := w.kubectl(t, "", "auth", "can-i", "*", "*", "-n", ns, "--as="+account) // "no" is an exit code of 1
	if strings.TrimSpace(out) != "no" {
		t.Errorf("kubectl auth can-i '*' '*': %s", out)
	}
	// It could not even ask: what the pod's own containers have as a token of the API server, ours do not see.
	for _, c := range pod.Spec.InitContainers {
		for _, m := range c.VolumeMounts {
			if strings.HasPrefix(m.Name, "kube-api-access") {
				t.Errorf("container %s mounts %s at %s", c.Name, m.Name, m.MountPath)
			}
		}
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil || strings.HasPrefix(v.Name, "kube-api-access") {
			continue
		}
		for _, s := range v.Projected.Sources {
			if token := s.ServiceAccountToken; token != nil && token.Audience == "" {
				t.Errorf("volume %s has a token for the API server", v.Name)
			}
		}
	}
}

// TestWebhookRights: it may move pods and see what it has to, and reads nobody's secrets.
func TestWebhookRights(t *testing.T) {
	w := shared
	for question, want := range map[string]bool{
		"create pods/eviction": true,
		"delete pods":          true,
		"create authentication.k8s.io/tokenreviews": true,
		"patch nodes": true,
		"patch admissionregistration.k8s.io/mutatingwebhookconfigurations outrider":  true,
		"patch admissionregistration.k8s.io/mutatingwebhookconfigurations other":     false,
		"delete admissionregistration.k8s.io/mutatingwebhookconfigurations outrider": false,
		"get secrets":                  false,
		"list secrets":                 false,
		"create pods":                  false,
		"patch pods":                   false,
		"create pods/exec":             false,
		"update apps/statefulsets":     false,
		"delete nodes":                 false,
		"update nodes/status":          false,
		"create serviceaccounts/token": false,
		"create rbac.authorization.k8s.io/clusterrolebindings": false,
	} {
		if got := w.may(t, "system:serviceaccount:"+system+":"+webhook, "shop", question); got != want {
			t.Errorf("the webhook may %s: %v, want %v", question, got, want)
		}
	}
}

// may asks whether a service account may do VERB [GROUP/]RESOURCE[/SUBRESOURCE] [NAME] in a namespace.
func (w *world) may(t *testing.T, account, namespace, question string) bool {
	t.Helper()
	words := strings.Fields(question)
	attributes := &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: words[0]}
	parts := strings.Split(words[1], "/")
	if len(parts) > 1 && (strings.Contains(parts[0], ".") || parts[0] == "apps" || parts[0] == "*") {
		attributes.Group, parts = parts[0], parts[1:]
	}
	attributes.Resource = parts[0]
	if len(parts) > 1 {
		attributes.Subresource = parts[1]
	}
	if len(words) > 2 {
		attributes.Name = words[2]
	}
	// As the API server sees it, with the groups of any service account.
	review, err := w.client.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{
			User: account, ResourceAttributes: attributes,
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return review.Status.Allowed
}
