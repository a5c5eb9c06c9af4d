// Package foreign is a cluster that is not ours: a kubeconfig names it, and others may use it too. The scenarios are guests
// there. What they bring has a mark, nothing without the mark is touched, and when they leave nothing of theirs stays.
//
// Pods are reached as kubectl port-forward does, through the API server and the kubelet, so that no network has to lead to
// them.
package foreign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"outrider.dev/e2e/images"
)

// Cluster is a foreign one. Its methods are safe for concurrent use.
type Cluster struct {
	kubeconfig, context string
	kubectl             string // the program
	config              *rest.Config
	client              kubernetes.Interface

	mu      sync.Mutex
	brought string // the manifest of what was installed
	leaving bool
	lease   *lease
}

// Open looks for a cluster and asks for its version. A context that is empty is the current one of the file; it stays the one
// that it is now, whatever becomes of the file. An error says what of it is not there or does not answer.
func Open(kubeconfig, contextName string) (*Cluster, error) {
	c := &Cluster{kubeconfig: kubeconfig, context: contextName}
	if err := c.open(); err != nil {
		return nil, fmt.Errorf("the cluster of the kubeconfig %s: %w", kubeconfig, err)
	}
	return c, nil
}

func (c *Cluster) open() error {
	if !filepath.IsAbs(c.kubeconfig) {
		return errors.New("it has to be an absolute path, as tests do not run where they are started")
	}
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: c.kubeconfig}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.context})
	raw, err := loaded.RawConfig()
	if err != nil {
		return err
	}
	if c.context == "" {
		c.context = raw.CurrentContext
	}
	if c.context == "" {
		return errors.New("it has no current context, and none was named")
	}
	if c.config, err = loaded.ClientConfig(); err != nil {
		return err
	}
	c.config.QPS = -1 // scenarios wait for enough as it is
	if c.client, err = kubernetes.NewForConfig(c.config); err != nil {
		return err
	}
	c.kubectl, err = findKubectl()
	return err
}

// findKubectl is the one in PATH, or that of our own clusters.
func findKubectl() (string, error) {
	if path, err := exec.LookPath("kubectl"); err == nil {
		return path, nil
	}
	dir, err := images.Dir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(filepath.Dir(dir), "kube", "kubectl")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("looking for kubectl in PATH, and where make setup puts it: %w", err)
	}
	return path, nil
}

// String names the cluster for people.
func (c *Cluster) String() string {
	return fmt.Sprintf("the cluster %s (context %s of %s)", c.config.Host, c.context, c.kubeconfig)
}

// Version asks the cluster for its version, and so whether it is there.
func (c *Cluster) Version() (string, error) {
	version, err := c.client.Discovery().ServerVersion()
	if err != nil {
		return "", fmt.Errorf("%s: %w", c, err)
	}
	return version.GitVersion, nil
}

// Client is a client with the rights that the kubeconfig gives. There is never an error.
func (c *Cluster) Client() (kubernetes.Interface, error) { return c.client, nil }

// Kubectl is a call of kubectl for this cluster and no other, not yet started.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.kubectl, append([]string{"--context", c.context}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig, "KUBECTL_KUBERC=false")
	return cmd
}
