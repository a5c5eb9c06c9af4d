package hand

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// environment is a container's variables. Later ones win.
type environment []struct{ name, value string }

func (e environment) lookup(name string) (string, bool) {
	for i := len(e) - 1; i >= 0; i-- {
		if e[i].name == name {
			return e[i].value, true
		}
	}
	return "", false
}

func (e *environment) add(name, value string) {
	*e = append(*e, struct{ name, value string }{name, value})
}

func (e environment) list() []string {
	var list []string
	for _, v := range e {
		list = append(list, v.name+"="+v.value)
	}
	return list
}

// expand replaces $(NAME) by the value of a variable that is known, as Kubernetes does. $$ is not needed here.
func expand(s string, e environment) string {
	return regexp.MustCompile(`\$\([A-Za-z_][A-Za-z0-9_]*\)`).ReplaceAllStringFunc(s, func(reference string) string {
		if value, ok := e.lookup(reference[2 : len(reference)-1]); ok {
			return value
		}
		return reference
	})
}

// environment is what a kubelet gives to the container. There is no kube-proxy, so that the API server is named by its
// own address.
func (p *pod) environment(ctx context.Context, object *corev1.Pod, spec *corev1.Container) (environment, error) {
	host, port := p.kubelets.cluster.APIAddress()
	var e environment
	e.add("PATH", "/")
	e.add("HOSTNAME", object.Name)
	e.add("KUBERNETES_SERVICE_HOST", host)
	e.add("KUBERNETES_SERVICE_PORT", port)
	if len(spec.EnvFrom) > 0 {
		return nil, fmt.Errorf("environment of container %s: envFrom is not known here", spec.Name)
	}
	for i := range spec.Env {
		v := &spec.Env[i]
		if v.ValueFrom == nil {
			e.add(v.Name, expand(v.Value, e))
			continue
		}
		value, found, err := p.valueFrom(ctx, object, v.ValueFrom)
		if err != nil {
			return nil, fmt.Errorf("variable %s of container %s: %w", v.Name, spec.Name, err)
		}
		if found {
			e.add(v.Name, value)
		}
	}
	return e, nil
}

// valueFrom looks a value up. One that is optional and not there is not found, without an error.
func (p *pod) valueFrom(ctx context.Context, object *corev1.Pod, from *corev1.EnvVarSource) (string, bool, error) {
	core := p.kubelets.client.CoreV1()
	switch {
	case from.FieldRef != nil:
		value, err := p.field(object, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.SecretKeyRef != nil:
		r := from.SecretKeyRef
		secret, err := core.Secrets(object.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return "", false, unlessOptional(err, r.Optional)
		}
		value, found := secret.Data[r.Key]
		return string(value), found, unlessOptional(missing(found, "Secret", r.Name, r.Key), r.Optional)
	case from.ConfigMapKeyRef != nil:
		r := from.ConfigMapKeyRef
		configMap, err := core.ConfigMaps(object.Namespace).Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return "", false, unlessOptional(err, r.Optional)
		}
		value, found := configMap.Data[r.Key]
		return value, found, unlessOptional(missing(found, "ConfigMap", r.Name, r.Key), r.Optional)
	}
	return "", false, fmt.Errorf("a source that is not known here: %v", from)
}

// notThere is a key that its object does not have.
type notThere string

func (e notThere) Error() string { return string(e) }

func missing(found bool, kind, name, key string) error {
	if found {
		return nil
	}
	return notThere(fmt.Sprintf("%s %s has no key %s", kind, name, key))
}

func unlessOptional(err error, optional *bool) error {
	_, absent := err.(notThere) //nolint:errorlint // made above, never wrapped
	if optional != nil && *optional && (absent || apierrors.IsNotFound(err)) {
		return nil
	}
	return err
}

// field is a field of the pod by the path that the downward API gives it.
func (p *pod) field(object *corev1.Pod, path string) (string, error) {
	if name, ok := strings.CutPrefix(path, "metadata.annotations['"); ok {
		return object.Annotations[strings.TrimSuffix(name, "']")], nil
	}
	if name, ok := strings.CutPrefix(path, "metadata.labels['"); ok {
		return object.Labels[strings.TrimSuffix(name, "']")], nil
	}
	switch path {
	case "metadata.name":
		return object.Name, nil
	case "metadata.namespace":
		return object.Namespace, nil
	case "metadata.uid":
		return string(object.UID), nil
	case "spec.nodeName":
		return object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return object.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs":
		return p.address.String(), nil
	case "status.hostIP":
		return "10.200.1.1", nil
	}
	return "", fmt.Errorf("field %s is not known here", path)
}
