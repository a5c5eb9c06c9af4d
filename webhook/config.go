package main

import (
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// config is the webhook's configuration file.
type config struct {
	// Policy holds cluster-wide defaults, by the names of keys without the prefix of annotations.
	Policy map[string]string `json:"policy"`
	// Image is that of the injected containers.
	Image           string            `json:"image"`
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy"`
	// KubernetesCluster is the uid of the namespace kube-system.
	KubernetesCluster string `json:"kubernetesCluster"`
	RRSA              struct {
		OIDCProvider string `json:"oidcProvider"` // acs:ram::ACCOUNT:oidc-provider/NAME
		STSEndpoint  string `json:"stsEndpoint"`
		VPC          bool   `json:"vpc"`
	} `json:"rrsa"`
	Evacuation struct {
		URL string `json:"url"`
	} `json:"evacuation"`
	MetadataURL string `json:"metadataURL"`
}

// readConfig reads a configuration file; without one everything has its default.
func readConfig(path string) (config, error) {
	c := config{Image: "outrider:" + version()}
	if path == "" {
		return c, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("%w: reading the configuration: %w", errUsage, err)
	}
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return c, fmt.Errorf("%w: reading the configuration %s: %w", errUsage, path, err)
	}
	if c.Image == "" {
		return c, fmt.Errorf("%w: the configuration %s has an empty image: leave it out, or name the image of the sidecar", errUsage, path)
	}
	return c, nil
}

// input is what the configuration says for all pods of a namespace.
func (c config) input(namespace string, annotations map[string]string) inject.Input {
	return inject.Input{
		Namespace:         namespace,
		Levels:            []policy.Level{policy.Configuration(c.Policy), policy.Namespace(namespace, annotations)},
		Image:             inject.Image{Name: c.Image, Pull: c.ImagePullPolicy},
		KubernetesCluster: c.KubernetesCluster,
		Evacuation:        inject.Evacuation{URL: c.Evacuation.URL},
		RRSA:              inject.RRSA{ProviderARN: c.RRSA.OIDCProvider, STSEndpoint: c.RRSA.STSEndpoint, VPC: c.RRSA.VPC},
		MetadataURL:       c.MetadataURL,
	}
}
