package certs

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Kubernetes is the Cluster that one lives in. All is read from the API server: a mounted Secret is a minute late.
type Kubernetes struct {
	Client kubernetes.Interface
	// Namespace and SecretName name the Secret.
	Namespace, SecretName string
	// Registration is the name of the mutating and of the validating webhook configuration.
	Registration string
}

var _ Cluster = Kubernetes{}

// Secret implements Cluster.
func (c Kubernetes) Secret(ctx context.Context) (*corev1.Secret, error) {
	s, err := c.Client.CoreV1().Secrets(c.Namespace).Get(ctx, c.SecretName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("the Secret %s/%s does not exist; it comes, empty, with the manifests: apply them again: %w", c.Namespace, c.SecretName, err)
	case err != nil:
		return nil, fmt.Errorf("reading the certificates from the Secret %s/%s: %w", c.Namespace, c.SecretName, err)
	}
	return s, nil
}

// UpdateSecret implements Cluster.
func (c Kubernetes) UpdateSecret(ctx context.Context, s *corev1.Secret) error {
	if _, err := c.Client.CoreV1().Secrets(c.Namespace).Update(ctx, s, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("writing the certificates into the Secret %s/%s: %w", c.Namespace, c.SecretName, conflict(err))
	}
	return nil
}

// Kinds of registrations.
const (
	mutating   = "MutatingWebhookConfiguration"
	validating = "ValidatingWebhookConfiguration"
)

// Registrations implements Cluster.
func (c Kubernetes) Registrations(ctx context.Context) ([]Registration, error) {
	var regs []Registration
	api := c.Client.AdmissionregistrationV1()
	m, err := api.MutatingWebhookConfigurations().Get(ctx, c.Registration, metav1.GetOptions{})
	if err == nil {
		r := Registration{Kind: mutating, Name: m.Name, Version: m.ResourceVersion}
		for _, w := range m.Webhooks {
			r.Bundles = append(r.Bundles, w.ClientConfig.CABundle)
		}
		regs = append(regs, r)
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading the %s %s: %w", mutating, c.Registration, err)
	}
	v, err := api.ValidatingWebhookConfigurations().Get(ctx, c.Registration, metav1.GetOptions{})
	if err == nil {
		r := Registration{Kind: validating, Name: v.Name, Version: v.ResourceVersion}
		for _, w := range v.Webhooks {
			r.Bundles = append(r.Bundles, w.ClientConfig.CABundle)
		}
		regs = append(regs, r)
	} else if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading the %s %s: %w", validating, c.Registration, err)
	}
	return regs, nil
}

// Publish implements Cluster. It is a patch, so that fields that are newer than this program stay.
func (c Kubernetes) Publish(ctx context.Context, r Registration, bundle []byte) error {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	// An update with an older version is a conflict.
	ops := []operation{{"replace", "/metadata/resourceVersion", r.Version}}
	for i := range r.Bundles {
		ops = append(ops, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return fmt.Errorf("encoding the patch: %w", err)
	}
	api := c.Client.AdmissionregistrationV1()
	opts := metav1.PatchOptions{FieldManager: "outrider-webhook"}
	switch r.Kind {
	case mutating:
		_, err = api.MutatingWebhookConfigurations().Patch(ctx, r.Name, types.JSONPatchType, patch, opts)
	default:
		_, err = api.ValidatingWebhookConfigurations().Patch(ctx, r.Name, types.JSONPatchType, patch, opts)
	}
	return conflict(err)
}

// conflict makes the API's word for it ours.
func conflict(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", ErrConflict, err)
	}
	return err
}
