package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/evacuate"
	"outrider.dev/webhook/internal/inject"
)

// config is the webhook's configuration file.
type config struct {
	// Policy holds cluster-wide defaults, by the names of keys without the prefix of annotations.
	Policy map[string]string `json:"policy"`
	// Image is that of the injected containers; the default is the one that was built together with this program.
	Image           string            `json:"image"`
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy"`
	// KubernetesCluster is the uid of the namespace kube-system.
	KubernetesCluster string `json:"kubernetesCluster"`
	RRSA              struct {
		OIDCProvider string `json:"oidcProvider"` // acs:ram::ACCOUNT:oidc-provider/NAME
		STSEndpoint  string `json:"stsEndpoint"`
		VPC          bool   `json:"vpc"`
	} `json:"rrsa"`
	Evacuation  evacuate.Config `json:"evacuation"`
	MetadataURL string          `json:"metadataURL"`
	// Certificates says how long the webhook's own certificates last. They are renewed when a third of that is left.
	Certificates struct {
		CA     duration `json:"ca"`
		Server duration `json:"server"`
		// Settle is how long a change of the webhook configurations takes to reach every API server, at most.
		Settle duration `json:"settle"`
	} `json:"certificates"`
	// LameDuck is how long a replica that is told to stop goes on answering.
	LameDuck duration `json:"lameDuck"`
}

// duration is a time.Duration in the spelling of the policy.
type duration time.Duration

// UnmarshalJSON reads 5s or 90d.
func (d *duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("%s is not a duration: expected one such as 5s or 90d", b)
	}
	v, err := policy.ParseDuration(s)
	*d = duration(v)
	return err
}

func defaults() config {
	c := config{Image: cmp.Or(linkedImage, "outrider:"+version()), LameDuck: duration(5 * time.Second)}
	c.Certificates.CA = duration(10 * 365 * policy.Day)
	c.Certificates.Server = duration(90 * policy.Day)
	c.Certificates.Settle = duration(5 * time.Second)
	return c
}

// readConfig reads a configuration file; without one everything has its default.
func readConfig(path string) (config, error) {
	if path == "" {
		return defaults(), nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return config{}, fmt.Errorf("%w: reading the configuration: %w", errUsage, err)
	}
	c, err := parseConfig(b)
	if err != nil {
		return config{}, fmt.Errorf("%w: reading the configuration %s: %w", errUsage, path, err)
	}
	return c, nil
}

// parseConfig reads a configuration strictly. What it says is not judged.
func parseConfig(b []byte) (config, error) {
	c := defaults()
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return config{}, err
	}
	if c.Image == "" {
		return config{}, errors.New("the image is empty: leave it out, or name the image of the sidecar")
	}
	return c, nil
}

// Bounds of certificates. Below them they could expire while a replica waits for its turn.
const (
	shortestServer = 5 * time.Second
	leastServers   = 2 // in the life of an authority
)

// validate finds at the start what would otherwise be found at the first pod.
func (c config) validate() error {
	errs := []error{c.validatePolicy(), c.Evacuation.Validate()}
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch c.ImagePullPolicy {
	case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		wrong("imagePullPolicy %q: expected Always, IfNotPresent or Never", c.ImagePullPolicy)
	}
	if u, err := url.Parse(c.MetadataURL); err != nil || c.MetadataURL != "" && (u.Host == "" || u.Scheme != "http" && u.Scheme != "https") {
		wrong("metadataURL %q: expected http://HOST", c.MetadataURL)
	}
	ca, server := time.Duration(c.Certificates.CA), time.Duration(c.Certificates.Server)
	if server < shortestServer {
		wrong("certificates.server: %s is too short: at least %s", server, shortestServer)
	}
	if ca < leastServers*server {
		wrong("certificates.ca: %s is less than %d times certificates.server (%s)", ca, leastServers, server)
	}
	if settle := time.Duration(c.Certificates.Settle); settle > ca/10 {
		wrong("certificates.settle: %s is more than a tenth of certificates.ca (%s): there would be no time to change it", settle, ca)
	}
	if lame := time.Duration(c.LameDuck); lame > 30*time.Second {
		wrong("lameDuck: %s is longer than a pod has to stop: at most 30s", lame)
	}
	return errors.Join(errs...)
}

// validatePolicy checks the defaults by themselves. Where archives are may be left to namespaces.
func (c config) validatePolicy() error {
	values := maps.Clone(c.Policy)
	if values == nil {
		values = map[string]string{}
	}
	if _, ok := values["archive"]; !ok {
		values["archive"] = "oss://bucket/prefix"
	}
	p, _, err := policy.Resolve(policy.Configuration(values))
	if err != nil {
		return err
	}
	if p.Credentials.Kind == policy.CredentialsRRSA && c.RRSA.OIDCProvider == "" {
		return fmt.Errorf("policy.credentials are %s, and there is no rrsa.oidcProvider: set it to acs:ram::ACCOUNT:oidc-provider/NAME", p.Credentials)
	}
	return nil
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
