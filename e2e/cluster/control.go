package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// program is how a program of the control plane is started and known to be ready.
type program struct {
	name  string
	args  []string
	ready func(context.Context) error // nil: the next one may start at once
}

const etcdURL = "http://127.0.0.1:2379" // in the control plane's namespace, where nobody else is

func (c *Cluster) etcd() program {
	return program{name: "etcd", args: []string{
		"--data-dir=" + filepath.Join(c.dir, "etcd"),
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL,
		"--listen-peer-urls=http://127.0.0.1:2380",
		"--unsafe-no-fsync", "--logger=zap",
	}}
}

// apiserver routes webhooks to endpoints by itself, so that no kube-proxy is needed. It waits for etcd by itself, too.
func (c *Cluster) apiserver() program {
	file := func(name string) string { return filepath.Join(c.dir, name) }
	return program{name: "kube-apiserver", ready: c.answers, args: []string{
		"--etcd-servers=" + etcdURL,
		"--advertise-address=" + controlAddress, fmt.Sprintf("--secure-port=%d", apiPort),
		"--client-ca-file=" + file("ca.crt"),
		"--tls-cert-file=" + file("apiserver.crt"), "--tls-private-key-file=" + file("apiserver.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + file("accounts.key"), "--service-account-signing-key-file=" + file("accounts.key"),
		"--service-cluster-ip-range=" + ServiceRange,
		"--authorization-mode=Node,RBAC",
		"--enable-aggregator-routing",
		"--kubelet-preferred-address-types=InternalIP", "--kubelet-certificate-authority=" + file("ca.crt"),
		"--kubelet-client-certificate=" + file("kubelet-client.crt"), "--kubelet-client-key=" + file("kubelet-client.key"),
		"--allow-privileged", "--profiling=false",
	}}
}

func (c *Cluster) controllerManager() program {
	file := func(name string) string { return filepath.Join(c.dir, name) }
	args := []string{
		"--kubeconfig=" + file("controller-manager.kubeconfig"),
		"--root-ca-file=" + file("ca.crt"), "--service-account-private-key-file=" + file("accounts.key"),
		"--use-service-account-credentials", "--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir=" + file("controller-manager"),
		"--kube-api-qps=300", "--kube-api-burst=500", "--profiling=false",
	}
	if grace := c.options.monitorGrace; grace > 0 {
		args = append(args, "--node-monitor-period="+(grace/10).String(), "--node-monitor-grace-period="+grace.String())
	}
	return program{name: "kube-controller-manager", args: args}
}

func (c *Cluster) scheduler() program {
	return program{name: "kube-scheduler", args: []string{
		"--kubeconfig=" + filepath.Join(c.dir, "scheduler.kubeconfig"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir=" + filepath.Join(c.dir, "scheduler"),
		"--kube-api-qps=300", "--kube-api-burst=500", "--profiling=false",
	}}
}

// launch starts a program and waits until it is ready.
func (c *Cluster) launch(ctx context.Context, p program) error {
	cmd := exec.Command(c.binaries.kubernetes(p.name), p.args...)
	cmd.Dir = c.dir
	process, err := c.control.Start(p.name, cmd, filepath.Join(c.dir, p.name+".log"))
	if err != nil {
		return err
	}
	c.processes = append(c.processes, process)
	if p.ready == nil {
		return nil
	}
	return c.wait(ctx, p.name+" to be ready", p.ready)
}

// answers asks the API server whether it is ready.
func (c *Cluster) answers(ctx context.Context) error {
	client, err := kubernetes.NewForConfig(c.config)
	if err != nil {
		return err
	}
	var code int
	body, err := client.RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&code).Raw()
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d: %s", code, body)
	}
	return err
}

// waitForControllers waits for two things that every pod needs and that controllers make.
func (c *Cluster) waitForControllers(ctx context.Context) error {
	client, err := c.Client()
	if err != nil {
		return err
	}
	return c.wait(ctx, "the controllers to make what pods need", func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			_, err = client.CoreV1().ConfigMaps("default").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		}
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("not yet: %w", err)
		}
		return err
	})
}

// wait tries until it works. It gives up when ctx ends or a program of the control plane does.
func (c *Cluster) wait(ctx context.Context, what string, try func(context.Context) error) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := try(attempt)
		cancel()
		if err == nil {
			return nil
		}
		for _, p := range c.processes {
			select {
			case <-p.Done():
				return fmt.Errorf("waiting for %s: %s ended: %w:\n%s", what, p.Name, orExit(p.Err()), p.Tail())
			default:
			}
		}
		select {
		case <-ctx.Done():
			last := c.processes[len(c.processes)-1]
			return fmt.Errorf("waiting for %s: %w: %w; %s wrote:\n%s", what, ctx.Err(), err, last.Name, last.Tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func orExit(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}
