// Package caller is the one door for calls of sidecars: who calls, how often, and with what.
//
// A sidecar has no right in Kubernetes. It calls with the projected token of its pod, which opens nothing else. Who calls is
// known from the TokenReview and from the pod as the API server has it now, never from what the call says.
//
// # Rights
//
//	authentication.k8s.io  tokenreviews  create
//	""                     pods          get
//	""                     namespaces    get
package caller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

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

// Why a caller is not let in. Their texts are for the caller. Any other error means that it could not be told.
var (
	ErrNoToken = errors.New("no token: send the projected service account token as Authorization: Bearer TOKEN")
	ErrInvalid = errors.New("the token is not valid for the audience " + inject.Audience + ": it is expired, was made for somebody else, or its pod is gone")
	ErrUnbound = errors.New("the token is bound to no pod: only the one that the kubelet projects into a pod is good here")
	ErrGone    = errors.New("is gone")
)

// Pod is the one that a token was made for.
type Pod struct {
	Namespace, Name string
	UID             types.UID
}

// Token is that of a request, or ErrNoToken if it has none that could be one. A token for another door is told apart by
// the TokenReview only.
func Token(r *http.Request) (string, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !strings.EqualFold(scheme, "Bearer") || len(token) > longestToken || strings.Count(token, ".") != 2 {
		return "", ErrNoToken
	}
	return token, nil
}

// Authenticate finds out which pod a token was made for. ErrInvalid and ErrUnbound are the API server's word.
func Authenticate(ctx context.Context, client kubernetes.Interface, token string) (Pod, error) {
	review, err := client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{inject.Audience}},
	}, metav1.CreateOptions{})
	if err != nil {
		return Pod{}, fmt.Errorf("asking the API server whose token it is: %w", err)
	}
	s := review.Status
	// An API server that knows nothing of audiences authenticates any token, and then names none.
	if !s.Authenticated || !slices.Contains(s.Audiences, inject.Audience) {
		return Pod{}, ErrInvalid
	}
	namespace, ok := namespaceOf(s.User.Username)
	name, uid := one(s.User.Extra[extraPodName]), one(s.User.Extra[extraPodUID])
	if !ok || name == "" || uid == "" {
		return Pod{}, ErrUnbound
	}
	return Pod{Namespace: namespace, Name: name, UID: types.UID(uid)}, nil
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

// Read reads the pod and its namespace as they are now; ErrGone if it is not there any more, or another one of its name is.
func (p Pod) Read(ctx context.Context, client kubernetes.Interface) (*corev1.Pod, *corev1.Namespace, error) {
	pod, err := client.CoreV1().Pods(p.Namespace).Get(ctx, p.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && pod.UID != p.UID {
		return nil, nil, fmt.Errorf("the pod %s/%s with uid %s %w", p.Namespace, p.Name, p.UID, ErrGone)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading pod %s/%s: %w", p.Namespace, p.Name, err)
	}
	namespace, err := client.CoreV1().Namespaces().Get(ctx, p.Namespace, metav1.GetOptions{})
	if err != nil {
		return nil, nil, fmt.Errorf("reading namespace %s: %w", p.Namespace, err)
	}
	return pod, namespace, nil
}
