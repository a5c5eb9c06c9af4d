package evacuate

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

	"outrider.dev/webhook/internal/inject"
)

// What the API server adds to the user of a token that is bound to a pod (k8s.io/apiserver,
// pkg/authentication/serviceaccount). It names the node, too, but not in Kubernetes 1.29.
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

// bearer is the token of a request; "" if it has none that could be one. A token for another door is told apart by the
// TokenReview only.
func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || len(token) > longestToken || strings.Count(token, ".") != 2 {
		return ""
	}
	return token
}

// authenticate finds out whose token it is.
func (e *Evacuator) authenticate(ctx context.Context, token string) (caller, error) {
	review, err := e.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
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
	namespace, ok := namespaceOf(s.User.Username)
	name, uid := one(s.User.Extra[extraPodName]), one(s.User.Extra[extraPodUID])
	if !ok || name == "" || uid == "" {
		return caller{}, refuse(NoPod, "the token is bound to no pod: only the one that the kubelet projects into a pod is good here")
	}
	return caller{namespace: namespace, name: name, uid: types.UID(uid)}, nil
}

// namespaceOf is that of a service account's user name, system:serviceaccount:NAMESPACE:NAME.
func namespaceOf(username string) (string, bool) {
	parts := strings.Split(username, ":")
	if len(parts) != 4 || parts[0] != "system" || parts[1] != "serviceaccount" || parts[2] == "" {
		return "", false
	}
	return parts[2], true
}

func one(values authenticationv1.ExtraValue) string {
	if len(values) != 1 {
		return ""
	}
	return values[0]
}

// find reads the caller's pod and all that has to be known of it.
func (e *Evacuator) find(ctx context.Context, c caller) (*corev1.Pod, *corev1.Node, error) {
	pod, err := e.client.CoreV1().Pods(c.namespace).Get(ctx, c.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && pod.UID != c.uid {
		return nil, nil, refuse(NoPod, "the pod %s/%s with uid %s is gone", c.namespace, c.name, c.uid)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading pod %s/%s: %w", c.namespace, c.name, err)
	}
	namespace, err := e.client.CoreV1().Namespaces().Get(ctx, c.namespace, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("reading namespace %s: %w", c.namespace, err)
	}
	if err := checkPod(pod, namespace); err != nil {
		return nil, nil, err
	}
	node, err := e.client.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil, refuse(NotSpot, "node %s of pod %s/%s is gone", pod.Spec.NodeName, c.namespace, c.name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading node %s: %w", pod.Spec.NodeName, err)
	}
	return pod, node, checkNode(node, e.spot)
}
