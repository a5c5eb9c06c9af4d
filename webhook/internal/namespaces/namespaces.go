// Package namespaces finds the annotations of a namespace. An informer knows them, but may be a moment behind, and a
// namespace and its workload are often applied together: whatever the informer does not know yet is asked for once.
package namespaces

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"outrider.dev/sidecar/policy"
)

// Getter reads a namespace by its name. Its errors are those of the Kubernetes API.
type Getter func(ctx context.Context, name string) (*corev1.Namespace, error)

// Reader reads annotations. It may be used by anyone at any time.
type Reader struct {
	// Cached answers from memory. Live asks the API server.
	Cached, Live Getter
}

// Annotations are those of a namespace. Without the location of the archive in what the informer knows, the API server
// is asked, once. An error means that they could not be told; a namespace that does not exist is one.
func (r Reader) Annotations(ctx context.Context, name string) (map[string]string, error) {
	ns, err := r.Cached(ctx, name)
	switch {
	case err == nil:
		if _, ok := ns.Annotations[policy.Prefix+"archive"]; ok {
			return ns.Annotations, nil
		}
	case !apierrors.IsNotFound(err):
		return nil, fmt.Errorf("looking for namespace %s among those that are known: %w", name, err)
	}
	ns, err = r.Live(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("reading the annotations of namespace %s: %w", name, err)
	}
	return ns.Annotations, nil
}
