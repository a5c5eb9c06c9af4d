package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Ctr is the path of containerd's own client on a node.
const Ctr = insidePrograms + "/ctr"

// podNamespace is the namespace that containerd keeps Kubernetes' images and containers in.
const podNamespace = "k8s.io"

func (n *Node) startContainerd(ctx context.Context) (err error) {
	if n.containerd, err = n.launch("containerd", "--config="+insideDir+"/containerd.toml"); err != nil {
		return err
	}
	return n.await(ctx, n.containerd, "containerd", func(ctx context.Context) error {
		_, err := n.Run(ctx, Ctr, "version")
		return err
	})
}

// Import gives the node an image, or several, from an archive as `docker save` writes it.
func (n *Node) Import(ctx context.Context, archive string) error {
	cmd := n.command(ctx, Ctr, "-n", podNamespace, "images", "import", "-")
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("giving node %s an image: %w", n.Name, err)
	}
	defer f.Close()
	var out strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, &out, &out
	if err = n.start(cmd); err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("giving node %s the image %s: %w: %s", n.Name, filepath.Base(archive), err, out.String())
	}
	return nil
}

func (n *Node) startProxy() (err error) {
	n.proxy, err = n.launch("kube-proxy", "--config="+insideDir+"/kube-proxy.json")
	return err
}

// StartKubelet starts the kubelet, after StopKubelet.
func (n *Node) StartKubelet() (err error) {
	if err := n.writeJSON("kubelet.json", n.kubeletSettings()); err != nil {
		return err
	}
	args := []string{
		"--config=" + insideDir + "/kubelet.json", "--kubeconfig=" + insideDir + "/kubelet.kubeconfig",
		"--hostname-override=" + n.Name, "--node-ip=" + n.Address.String(), "--cert-dir=/var/lib/kubelet/pki",
	}
	if len(n.spec.Labels) > 0 {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(n.spec.Labels)) {
			labels = append(labels, key+"="+n.spec.Labels[key])
		}
		args = append(args, "--node-labels="+strings.Join(labels, ","))
	}
	n.kubelet, err = n.launch("kubelet", args...)
	return err
}

// StopKubelet kills the kubelet. Its pods run on.
func (n *Node) StopKubelet() error {
	return n.kubelet.Kill()
}

// SignalKubelet sends the kubelet a signal, for example SIGSTOP: then it neither speaks nor acts.
func (n *Node) SignalKubelet(signal os.Signal) error {
	return n.kubelet.Signal(signal)
}

// RestartKubelet starts the kubelet anew, with settings (fields of KubeletConfiguration) besides its usual ones.
func (n *Node) RestartKubelet(settings map[string]any) error {
	if err := n.StopKubelet(); err != nil {
		return err
	}
	n.settings = settings
	return n.StartKubelet()
}

// launch starts one of the programs in the node. Its output goes to a file outside.
func (n *Node) launch(name string, args ...string) (*Process, error) {
	cmd := n.command(context.Background(), insidePrograms+"/"+name, args...)
	return startProcess(n.Name+" "+name, cmd, filepath.Join(n.dir, name+".log"), n.start)
}

// await tries until it works, and gives up when the process ends.
func (n *Node) await(ctx context.Context, p *Process, what string, try func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("waiting for %s: it ended: %w:\n%s", what, orExit(p.Err()), p.Tail())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w: %w; it wrote:\n%s", what, ctx.Err(), err, p.Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// waitReady waits until pods may be put on the node.
func (n *Node) waitReady(ctx context.Context) error {
	client, err := n.cluster.Client()
	if err != nil {
		return err
	}
	return n.await(ctx, n.kubelet, "the kubelet to be ready", func(ctx context.Context) error {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, t := range node.Spec.Taints {
			if t.Key == corev1.TaintNodeNotReady {
				return errors.New("it is tainted as not ready")
			}
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", node.Status.Conditions)
	})
}

func isNotFound(err error) bool { return apierrors.IsNotFound(err) }

func (n *Node) writeJSON(name string, value any) error {
	content, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(n.dir, name), content, 0o600)
}
