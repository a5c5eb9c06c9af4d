// Package cluster is a real Kubernetes for tests: etcd, kube-apiserver, kube-controller-manager and kube-scheduler as
// .ci/setup provides them, in namespaces of their own.
//
// A test binary calls [Isolated] in its TestMain. It starts itself anew with a network, a process table and a view of
// the mounts that nobody else sees. Nothing listens on an address of the host, no file of the cluster is on its disks,
// and all of it is gone when the process is, even if it is killed: the kernel takes namespaces away with the last process
// in them. [Start] starts a control plane there, in a network namespace attached to a bridge. Whatever plays a node gets
// one beside it ([Network.Attach]), so that either can be lost without the other. Package hand plays kubelets for tests
// that need pods to be ready but no containers.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// The addresses, all of them in the network of [Isolated]: anything else that a pod or a test asks for has no route.
const (
	worldAddress   = WorldAddress // the test itself
	controlAddress = "10.200.0.2" // the control plane
	prefixBits     = 14           // of all of the above and below

	// ServiceRange is where cluster addresses come from. Without a kube-proxy nobody answers there.
	ServiceRange = "10.202.0.0/16"
	apiPort      = 6443
)

// WorldAddress is the test's own address in the network of [Isolated]: nodes and pods reach what it listens for there.
const WorldAddress = "10.200.0.1"

// startTimeout is generous: two cores may be busy with other packages' tests.
const startTimeout = 3 * time.Minute

// Cluster is a running control plane. Its methods are safe for concurrent use.
type Cluster struct {
	// Network is where the control plane is attached, and where nodes and pods can be.
	Network *Network

	dir       string
	binaries  binaries
	authority *authority
	control   *Namespace
	processes []*Process // in the order in which they were started
	config    *rest.Config
	options   options

	mu       sync.Mutex
	client   kubernetes.Interface
	nodes    []*Node
	lastNode int // number of the last one added
}

// options are what Start may be told.
type options struct {
	monitorGrace time.Duration
}

// Option changes how a control plane is started.
type Option func(*options)

// MonitorGrace is how long a node may be silent before it counts as lost, Kubernetes' own default (50 s) otherwise. A node
// speaks up every 10 s at the latest, and real ones of [Cluster.AddNode] twice as often as that value.
func MonitorGrace(d time.Duration) Option {
	return func(o *options) { o.monitorGrace = d }
}

// Start starts a control plane and returns when it is ready: its API server says so, and the controllers have made the
// service account without which no pod can be created. It works inside [Isolated] only.
func Start(ctx context.Context, change ...Option) (*Cluster, error) {
	if !inside() {
		return nil, errors.New("starting a cluster: this process shares its network with the host: call cluster.Isolated in TestMain")
	}
	c := &Cluster{}
	for _, f := range change {
		f(&c.options)
	}
	err := c.start(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting a cluster: %w", err), c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if c.binaries, err = findBinaries(); err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp("", "cluster-"); err != nil {
		return fmt.Errorf("making a directory: %w", err)
	}
	if c.Network, err = newNetwork(ctx); err != nil {
		return err
	}
	if c.control, err = c.Network.Attach(ctx, "control", netip.MustParseAddr(controlAddress)); err != nil {
		return err
	}
	if err = c.writeCredentials(); err != nil {
		return err
	}
	for _, program := range []program{c.etcd(), c.apiserver(), c.controllerManager(), c.scheduler()} {
		if err := c.launch(ctx, program); err != nil {
			return err
		}
	}
	return c.waitForControllers(ctx)
}

// Stop ends the nodes and the control plane and removes their files and their network. What else is attached to the
// network must be gone.
func (c *Cluster) Stop() error {
	var errs []error
	for _, n := range c.Nodes() {
		errs = append(errs, n.Close())
	}
	for i := len(c.processes) - 1; i >= 0; i-- {
		// It keeps nothing that anybody will read again, so that there is nothing to wait for.
		errs = append(errs, c.processes[i].Kill())
	}
	if c.control != nil {
		errs = append(errs, c.control.Close())
	}
	if c.Network != nil {
		errs = append(errs, c.Network.Close())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

// Config is how a client of the cluster's administrator connects. The caller may change it.
func (c *Cluster) Config() *rest.Config {
	return rest.CopyConfig(c.config)
}

// Client is a client with the administrator's rights, which all callers share: tests ask for it at each look.
func (c *Cluster) Client() (kubernetes.Interface, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.client == nil {
		client, err := kubernetes.NewForConfig(c.config)
		if err != nil {
			return nil, fmt.Errorf("making a client of the cluster: %w", err)
		}
		c.client = client
	}
	return c.client, nil
}

// Kubeconfig is the path of a file with the administrator's credentials.
func (c *Cluster) Kubeconfig() string {
	return filepath.Join(c.dir, "admin.kubeconfig")
}

// Kubectl is a call of kubectl with the administrator's credentials, not yet started.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binaries.kubernetes("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+c.dir, "KUBECTL_KUBERC=false")
	return cmd
}

// APIAddress is where the API server listens, as a pod is told: host and port.
func (c *Cluster) APIAddress() (string, string) {
	return controlAddress, fmt.Sprint(apiPort)
}

// CA is the certificate that the API server's can be checked against, PEM.
func (c *Cluster) CA() []byte {
	return c.authority.certificate
}

// Logs are the last lines that each program of the control plane wrote.
func (c *Cluster) Logs() string {
	var logs string
	for _, p := range c.processes {
		logs += fmt.Sprintf("== %s\n%s\n", p.Name, p.Tail())
	}
	return logs
}
