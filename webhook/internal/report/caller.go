package report

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// What the API server adds to the user of a token that is bound to a pod (k8s.io/apiserver,
// pkg/authentication/serviceaccount).
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// longestToken is more than any token has: a projected one is about 1 kB.
const longestToken = 16 << 10

// caller is the pod that a token was made for.
type caller struct {
	namespace, name string
	uid             types.UID
}

// bearer is the token of a request; "" if it has none that could be one.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || len(token) > longestToken || strings.Count(token, ".") != 2 {
		return ""
	}
	return token
}

// authenticate finds out whose token it is.
func (r *Reporter) authenticate(ctx context.Context, token string) (caller, error) {
	review, err := r.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{inject.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return caller{}, fmt.Errorf("asking the API server whose token it is: %w", err)
	}
	s := review.Status
	// An API server that knows nothing of audiences authenticates any token, and then names none.
	if !s.Authenticated || !slices.Contains(s.Audiences, inject.Audience) {
		return caller{}, refuse(Unauthenticated, "the token is not valid for the audience %s: it is expired, was made for somebody else, or its pod is gone", inject.Audience)
	}
	parts := strings.Split(s.User.Username, ":") // system:serviceaccount:NAMESPACE:NAME
	name, uid := one(s.User.Extra[extraPodName]), one(s.User.Extra[extraPodUID])
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" || parts[2] == "" || name == "" || uid == "" {
		return caller{}, refuse(NoPod, "the token is bound to no pod: only the one that the kubelet projects into a pod is good here")
	}
	return caller{namespace: parts[2], name: name, uid: types.UID(uid)}, nil
}

func one(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// find reads the caller's pod, and refuses one that has no sidecar of ours. The namespace's label and the containers are
// looked at as they are now; an annotation could be anybody's word.
func (r *Reporter) find(ctx context.Context, c caller) (*corev1.Pod, error) {
	pod, err := r.client.CoreV1().Pods(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && pod.UID != c.uid {
		return nil, refuse(NoPod, "the pod %s/%s with uid %s is gone", c.namespace, c.name, c.uid)
	}
	if err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", c.namespace, c.name, err)
	}
	namespace, err := r.client.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading namespace %s: %w", c.namespace, err)
	}
	if namespace.Labels[policy.Prefix+"protect"] != string(policy.ProtectEnabled) {
		return nil, refuse(NotOurs, "namespace %s is not protected: it has no label %sprotect=%s", c.namespace, policy.Prefix, policy.ProtectEnabled)
	}
	if pod.Annotations[policy.Prefix+"protect"] == string(policy.ProtectDisabled) {
		return nil, refuse(NotOurs, "pod %s/%s is opted out of protection", c.namespace, c.name)
	}
	for _, name := range []string{inject.RestoreContainer, inject.SidecarContainer} {
		if !slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == name }) {
			return nil, refuse(NotOurs, "pod %s/%s has no container %s", c.namespace, c.name, name)
		}
	}
	return pod, nil
}
