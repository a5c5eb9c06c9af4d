package hand

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	defaultMode = os.FileMode(0o644)
	tokenMode   = os.FileMode(0o600)
)

// content is the files of a volume.
func (p *pod) content(ctx context.Context, object *corev1.Pod, volume *corev1.Volume) (map[string]file, error) {
	mode := func(m *int32) os.FileMode {
		if m == nil {
			return defaultMode
		}
		return os.FileMode(*m)
	}
	switch {
	case volume.ConfigMap != nil:
		v := volume.ConfigMap
		return p.source(ctx, object, mode(v.DefaultMode), &corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: v.LocalObjectReference, Items: v.Items, Optional: v.Optional,
		}})
	case volume.Secret != nil:
		v := volume.Secret
		return p.source(ctx, object, mode(v.DefaultMode), &corev1.VolumeProjection{Secret: &corev1.SecretProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: v.SecretName}, Items: v.Items, Optional: v.Optional,
		}})
	case volume.DownwardAPI != nil:
		v := volume.DownwardAPI
		return p.source(ctx, object, mode(v.DefaultMode), &corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: v.Items}})
	case volume.Projected != nil:
		all := map[string]file{}
		for i := range volume.Projected.Sources {
			files, err := p.source(ctx, object, mode(volume.Projected.DefaultMode), &volume.Projected.Sources[i])
			if err != nil {
				return nil, err
			}
			maps.Copy(all, files)
		}
		return all, nil
	}
	return nil, fmt.Errorf("a kind of volume that is not known here: %v", volume.VolumeSource)
}

// source is the files of one source of a volume.
func (p *pod) source(ctx context.Context, object *corev1.Pod, mode os.FileMode, from *corev1.VolumeProjection) (map[string]file, error) {
	core := p.kubelets.client.CoreV1()
	data := map[string]string{}
	switch {
	case from.ConfigMap != nil:
		configMap, err := core.ConfigMaps(object.Namespace).Get(ctx, from.ConfigMap.Name, metav1.GetOptions{})
		if err = unlessOptional(err, from.ConfigMap.Optional); err != nil {
			return nil, err
		}
		maps.Copy(data, configMap.Data)
		return pick(data, mode, from.ConfigMap.Items)
	case from.Secret != nil:
		secret, err := core.Secrets(object.Namespace).Get(ctx, from.Secret.Name, metav1.GetOptions{})
		if err = unlessOptional(err, from.Secret.Optional); err != nil {
			return nil, err
		}
		for key, value := range secret.Data {
			data[key] = string(value)
		}
		return pick(data, mode, from.Secret.Items)
	case from.ServiceAccountToken != nil:
		value, err := p.token(ctx, object, from.ServiceAccountToken)
		return map[string]file{from.ServiceAccountToken.Path: {value, tokenMode}}, err
	case from.DownwardAPI != nil:
		files := map[string]file{}
		for _, item := range from.DownwardAPI.Items {
			if item.FieldRef == nil {
				return nil, fmt.Errorf("file %s: only fieldRef is known here", item.Path)
			}
			value, err := p.field(object, item.FieldRef.FieldPath)
			if err != nil {
				return nil, err
			}
			files[item.Path] = file{value, mode}
		}
		return files, nil
	}
	return nil, fmt.Errorf("a source that is not known here: %v", from)
}

// pick chooses and renames keys, if items says so.
func pick(data map[string]string, mode os.FileMode, items []corev1.KeyToPath) (map[string]file, error) {
	files := map[string]file{}
	if len(items) == 0 {
		for key, value := range data {
			files[key] = file{value, mode}
		}
		return files, nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			return nil, fmt.Errorf("key %s is not there", item.Key)
		}
		f := file{value, mode}
		if item.Mode != nil {
			f.mode = os.FileMode(*item.Mode)
		}
		files[strings.TrimPrefix(item.Path, "/")] = f
	}
	return files, nil
}

// token is a token of the pod's service account for one audience, bound to the pod. It is renewed when four fifths of
// its time are over, as a kubelet does.
func (p *pod) token(ctx context.Context, object *corev1.Pod, wanted *corev1.ServiceAccountTokenProjection) (string, error) {
	if t := p.tokens[wanted.Audience]; time.Now().Before(t.renew) {
		return t.value, nil
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: wanted.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: object.Name, UID: object.UID},
	}}
	if wanted.Audience != "" {
		request.Spec.Audiences = []string{wanted.Audience}
	}
	answer, err := p.kubelets.client.CoreV1().ServiceAccounts(object.Namespace).
		CreateToken(ctx, object.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	life := time.Until(answer.Status.ExpirationTimestamp.Time)
	p.tokens[wanted.Audience] = token{answer.Status.Token, time.Now().Add(life * 4 / 5)}
	return answer.Status.Token, nil
}
