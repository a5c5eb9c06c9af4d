package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// NodeSpec describes a node to [Cluster.AddNode].
type NodeSpec struct {
	Name       string
	Labels     map[string]string
	Taints     []corev1.Taint
	ProviderID string
	// Images are archives of images (docker save) that the node has from the start. One of them is called [PauseImage].
	Images []string
	// Disk is a directory of the host that holds the node's disk, which is removed with the node. Without one the disk is in
	// memory, and what a pod stores counts as memory that it uses.
	Disk string
}

// PauseImage is the name of the image that holds a pod's namespaces.
const PauseImage = "localhost/pause:1"

// MetadataAddress is where the metadata service of Alibaba Cloud's instances is. Every node has it as an address of its own,
// so that what listens there is heard by its pods and by no others.
const MetadataAddress = "100.100.100.200"

// maxNodes is how many nodes may be made in the life of a cluster: their addresses are not used again.
const maxNodes = 250

// Node is a machine of the cluster, played by namespaces for network, processes and mounts of its own. In it run containerd,
// kubelet and kube-proxy, which are the real ones. Its disk goes with it. Its methods are safe for
// concurrent use, except that the life of one program is changed by one goroutine at a time.
type Node struct {
	Name string
	// Address is the node's, PodRange that of its pods: reached from the test and from all other nodes.
	Address  netip.Addr
	PodRange netip.Prefix

	cluster   *Cluster
	spec      NodeSpec
	dir       string // its files outside: configuration, logs
	namespace *Namespace
	machine   *Process // process 1
	cgroup    string

	containerd, kubelet, proxy *Process
	settings                   map[string]any // of the kubelet, besides its usual ones
}

// AddNode starts a node and returns when it is ready for pods.
func (c *Cluster) AddNode(ctx context.Context, spec NodeSpec) (*Node, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	c.mu.Lock()
	c.lastNode++
	number := c.lastNode
	c.mu.Unlock()
	if number > maxNodes {
		return nil, fmt.Errorf("adding node %s: there have been %d nodes, and no more addresses are left", spec.Name, maxNodes)
	}
	n := &Node{
		Name: spec.Name, cluster: c, spec: spec,
		Address:  netip.AddrFrom4([4]byte{10, 200, 2, byte(number)}),
		PodRange: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 203, byte(number), 0}), 24),
		dir:      filepath.Join(c.dir, "nodes", fmt.Sprintf("%s-%d", spec.Name, number)),
		cgroup:   fmt.Sprintf("%s/%s-%d", c.cgroup(), spec.Name, number),
	}
	if err := n.boot(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("adding node %s: %w", spec.Name, err), n.Close())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, n)
	return n, nil
}

// Nodes are the nodes that were added and neither lost nor closed.
func (c *Cluster) Nodes() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// Node is the node of that name, nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes() {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (n *Node) boot(ctx context.Context) (err error) {
	if err = n.prepare(); err != nil {
		return err
	}
	if n.namespace, err = n.cluster.Network.Attach(ctx, n.Name, n.Address); err != nil {
		return err
	}
	if err = n.route(ctx); err != nil {
		return err
	}
	if err = n.startMachine(ctx); err != nil {
		return err
	}
	if err = n.startContainerd(ctx); err != nil {
		return err
	}
	for _, archive := range n.spec.Images {
		if err = n.Import(ctx, archive); err != nil {
			return err
		}
	}
	if err = n.startProxy(); err != nil {
		return err
	}
	if err = n.StartKubelet(); err != nil {
		return err
	}
	return n.waitReady(ctx)
}

// route tells everybody the way to the pods of this node, and this node the way to all others'.
func (n *Node) route(ctx context.Context) error {
	there := fmt.Sprintf("route add %s via %s", n.PodRange, n.Address)
	lines := []string{
		there, "-n " + n.cluster.control.Name + " " + there,
		fmt.Sprintf("-n %s addr add %s/32 dev lo", n.Name, MetadataAddress),
	}
	for _, other := range n.cluster.Nodes() {
		lines = append(
			lines,
			"-n "+other.Name+" "+there,
			fmt.Sprintf("-n %s route add %s via %s", n.Name, other.PodRange, other.Address),
		)
	}
	return ip(ctx, lines...)
}

// startMachine starts process 1 of the node, this program once more, and waits until it has furnished the place.
func (n *Node) startMachine(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), nodeVariable+"="+n.dir)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Unshareflags: unix.CLONE_NEWNS}
	if n.machine, err = n.namespace.Start(n.Name, cmd, filepath.Join(n.dir, "machine.log")); err != nil {
		return err
	}
	return n.await(ctx, n.machine, "the node's first process", func(context.Context) error {
		_, err := os.Stat(filepath.Join(n.dir, furnished))
		return err
	})
}

// Lose takes the node away without warning, with all that runs there and all that it stored: power off. The Node object
// stays, as no controller of a cloud is here that would remove it; see [Cluster.Forget].
func (n *Node) Lose() error {
	n.leave()
	return n.destroy()
}

// Close removes the node, its files and its logs.
func (n *Node) Close() error {
	n.leave()
	return errors.Join(n.destroy(), os.RemoveAll(n.dir))
}

func (n *Node) leave() {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	n.cluster.nodes = slices.DeleteFunc(n.cluster.nodes, func(other *Node) bool { return other == n })
}

func (n *Node) destroy() error {
	var errs []error
	if n.machine != nil {
		// The kernel kills all processes of a process table with the first of them, pods included.
		errs = append(errs, n.machine.Kill())
	}
	for _, p := range []*Process{n.kubelet, n.proxy, n.containerd} {
		if p != nil {
			errs = append(errs, p.Kill())
		}
	}
	if n.namespace != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		errs = append(errs, n.namespace.Close(), ip(ctx, "route flush "+n.PodRange.String()))
		n.namespace = nil
	}
	if n.spec.Disk != "" {
		errs = append(errs, os.RemoveAll(n.spec.Disk))
	}
	return errors.Join(append(errs, removeCgroup(n.cgroup))...)
}

// Connect plugs the node's network in, or pulls it out: the node runs on, and nobody hears of it.
func (n *Node) Connect(ctx context.Context, connected bool) error {
	return n.namespace.Connect(ctx, connected)
}

// Forget does what a cloud's controller does when a machine is no more: it deletes the Node object. One that is not there
// is no error.
func (c *Cluster) Forget(ctx context.Context, name string) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	if err := client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !isNotFound(err) {
		return fmt.Errorf("deleting node %s: %w", name, err)
	}
	return nil
}

// Logs are the last lines of the node's programs, also when it is lost.
func (n *Node) Logs() string {
	var logs string
	for _, p := range []*Process{n.machine, n.containerd, n.kubelet, n.proxy} {
		if p != nil {
			logs += fmt.Sprintf("== %s\n%s\n", p.Name, p.Tail())
		}
	}
	return logs
}

// PodLogs is the directory with the logs of the node's pods, laid out by the kubelet:
// NAMESPACE_NAME_UID/CONTAINER/RESTARTS.log. It outlives a lost node.
func (n *Node) PodLogs() fs.FS {
	return os.DirFS(filepath.Join(n.dir, "pods"))
}
