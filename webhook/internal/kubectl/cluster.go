package kubectl

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// Names of what manifests/base installs.
const (
	systemNamespace = "outrider-system"
	webhookName     = "outrider-webhook"     // Deployment, ConfigMap
	registration    = "outrider"             // both webhook configurations
	servingName     = "outrider-webhook-tls" // Secret
	guardName       = "outrider-guard"       // admission policy and its binding
	configFile      = "config.yaml"
	protectLabel    = policy.Prefix + "protect"
)

// Cluster is a Kubernetes cluster and the way to it. It may be used by anyone at any time.
type Cluster struct {
	client kubernetes.Interface
	config *rest.Config
	clock  *clock // of the API server
}

// NewCluster makes a Cluster of a client configuration. It asks nothing yet.
func NewCluster(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	// A person waits: a cluster with a hundred databases is asked at once.
	config.QPS, config.Burst = 50, 200
	c := &Cluster{config: config, clock: &clock{}}
	watched := rest.CopyConfig(config)
	watched.Wrap(c.clock.watch)
	var err error
	if c.client, err = kubernetes.NewForConfig(watched); err != nil {
		return nil, fmt.Errorf("making a client of %s: %w", config.Host, err)
	}
	return c, nil
}

// place is a namespace with what is known of it.
type place struct {
	name        string
	labels      map[string]string
	annotations map[string]string
	trouble     error // why the namespace itself could not be read; its labels and annotations are then unknown
}

// labelled tells whether the webhook is asked about pods of this namespace.
func (p place) labelled() bool {
	return p.labels[protectLabel] == string(policy.ProtectEnabled) && p.name != systemNamespace && p.name != metav1.NamespaceSystem
}

// places lists namespaces: one, or with "" all of them. That one may not be read is no error, as its pods perhaps may;
// that it does not exist is.
func (c *Cluster) places(ctx context.Context, namespace string) ([]place, error) {
	if namespace == "" {
		list, err := c.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("listing the namespaces: %w", err)
		}
		all := make([]place, len(list.Items))
		for i, ns := range list.Items {
			all[i] = place{name: ns.Name, labels: ns.Labels, annotations: ns.Annotations}
		}
		return all, nil
	}
	ns, err := c.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err):
		return []place{{name: namespace, trouble: err}}, nil
	case err != nil:
		return nil, fmt.Errorf("reading namespace %s: %w", namespace, err)
	}
	return []place{{name: ns.Name, labels: ns.Labels, annotations: ns.Annotations}}, nil
}

// configuration is what is read of the webhook's.
type configuration struct {
	Policy map[string]string `json:"policy"` // defaults of the policy, by key
	RRSA   struct {
		OIDCProvider string `json:"oidcProvider"`
	} `json:"rrsa"`

	trouble error // why it could not be read; the rest is then unknown
}

func (c *Cluster) configuration(ctx context.Context) configuration {
	cm, err := c.client.CoreV1().ConfigMaps(systemNamespace).Get(ctx, webhookName, metav1.GetOptions{})
	if err != nil {
		return configuration{trouble: fmt.Errorf("reading the webhook's configuration, ConfigMap %s/%s: %w", systemNamespace, webhookName, err)}
	}
	var parsed configuration
	if err := yaml.Unmarshal([]byte(cm.Data[configFile]), &parsed); err != nil {
		return configuration{trouble: fmt.Errorf("reading the webhook's configuration, %s in ConfigMap %s/%s: %w", configFile, systemNamespace, webhookName, err)}
	}
	return parsed
}

// input is what the webhook would judge a pod of this namespace with, as far as that changes the judgement.
func (p place) input(conf configuration) inject.Input {
	return inject.Input{
		Namespace: p.name, Image: inject.Image{Name: "outrider"}, RRSA: inject.RRSA{ProviderARN: conf.RRSA.OIDCProvider},
		Levels: []policy.Level{policy.Configuration(conf.Policy), policy.Namespace(p.name, p.annotations)},
	}
}

// policyOf is the policy that a protected pod was made with, which is what its sidecar goes by; false if it cannot be
// read.
func policyOf(pod *corev1.Pod) (policy.Policy, bool) {
	sidecar := initContainer(pod, inject.SidecarContainer)
	if sidecar == nil {
		return policy.Policy{}, false
	}
	p, _, err := policy.FromEnv(func(name string) (string, bool) {
		v := variable(sidecar, name)
		return strings.ReplaceAll(v, "$$", "$"), v != "" // what the kubelet makes of it
	})
	return p, err == nil
}

// claims tells whether a pod has both containers of ours.
func claims(pod *corev1.Pod) bool {
	return initContainer(pod, inject.RestoreContainer) != nil && initContainer(pod, inject.SidecarContainer) != nil
}

func initContainer(pod *corev1.Pod, name string) *corev1.Container {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == name {
			return &pod.Spec.InitContainers[i]
		}
	}
	return nil
}

func initStatus(pod *corev1.Pod, name string) *corev1.ContainerStatus {
	for i := range pod.Status.InitContainerStatuses {
		if pod.Status.InitContainerStatuses[i].Name == name {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	return nil
}

// workload is the name of what made a pod, as people know it: TYPE/NAME in lower case, or "" for a pod by itself.
func workload(pod *corev1.Pod) string {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return ""
	}
	if name, ok := deploymentOf(pod, owner); ok {
		return "deployment/" + name
	}
	return lower(owner.Kind) + "/" + owner.Name
}

// Namespaces lists the names of all namespaces.
func (c *Cluster) Namespaces(ctx context.Context) ([]string, error) {
	all, err := c.places(ctx, "")
	names := make([]string, len(all))
	for i, p := range all {
		names[i] = p.name
	}
	return names, err
}
