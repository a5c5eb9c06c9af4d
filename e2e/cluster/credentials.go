package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// writeCredentials makes the authority, all certificates and keys, and a kubeconfig for each client.
func (c *Cluster) writeCredentials() (err error) {
	if c.authority, err = newAuthority(); err != nil {
		return err
	}
	hosts := []string{
		controlAddress, "127.0.0.1", "10.202.0.1", // the first of the service range is the API server's own
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	}
	server, err := c.authority.issue("kube-apiserver", nil, hosts)
	if err != nil {
		return err
	}
	// As which the API server asks kubelets for logs.
	client, err := c.authority.issue("kube-apiserver-kubelet-client", []string{"system:masters"}, nil)
	if err != nil {
		return err
	}
	_, accounts, err := newKey()
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.crt": c.authority.certificate, "apiserver.crt": server.certificate, "apiserver.key": server.key, "accounts.key": accounts,
		"kubelet-client.crt": client.certificate, "kubelet-client.key": client.key,
	} {
		if err := os.WriteFile(filepath.Join(c.dir, name), content, 0o600); err != nil {
			return err
		}
	}
	for name, user := range map[string]string{
		"controller-manager": "system:kube-controller-manager", "scheduler": "system:kube-scheduler",
	} {
		if err := c.WriteKubeconfig(filepath.Join(c.dir, name+".kubeconfig"), user); err != nil {
			return err
		}
	}
	if err := c.WriteKubeconfig(c.Kubeconfig(), "admin", "system:masters"); err != nil {
		return err
	}
	c.config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err == nil {
		c.config.QPS = -1 // tests wait for enough as it is
	}
	return err
}

// WriteKubeconfig writes a file with new credentials for a user in those groups, for example system:node:NAME in
// system:nodes for a kubelet.
func (c *Cluster) WriteKubeconfig(path, user string, groups ...string) error {
	issued, err := c.authority.issue(user, groups, nil)
	if err != nil {
		return err
	}
	config := api.NewConfig()
	config.Clusters["cluster"] = &api.Cluster{
		Server: fmt.Sprintf("https://%s:%d", controlAddress, apiPort), CertificateAuthorityData: c.authority.certificate,
	}
	config.AuthInfos[user] = &api.AuthInfo{ClientCertificateData: issued.certificate, ClientKeyData: issued.key}
	config.Contexts["cluster"] = &api.Context{Cluster: "cluster", AuthInfo: user}
	config.CurrentContext = "cluster"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return fmt.Errorf("writing the credentials of %s: %w", user, err)
	}
	return nil
}

// As is how a client with the rights of that user and no others connects, for example
// system:serviceaccount:NAMESPACE:NAME.
func (c *Cluster) As(user string, groups ...string) *rest.Config {
	config := c.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: groups}
	return config
}
