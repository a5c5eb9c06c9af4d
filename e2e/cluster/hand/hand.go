// Package hand plays kubelets for a cluster of package cluster that has none.
//
// A pod that the scheduler puts on one of its nodes gets an address and becomes ready, so that controllers and Services
// work. If a container's image is one of the given programs, that program runs as a real process: with a network
// namespace of its own, alone in a directory with the files of its volumes, with the environment that the pod asks for,
// as its user; it is ready when its readiness probe says so, started again when it ends, and ended as a kubelet would:
// preStop sleep, SIGTERM, SIGKILL when the grace period is over. All other containers are played: they are running,
// init containers have run, and nothing happens in them.
//
// It knows no liveness probes, no hooks but sleep, no image pulls, no resources, and of volumes what a webhook needs:
// ConfigMaps, Secrets, projected ones, the downward API and empty directories.
package hand

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"outrider.dev/e2e/cluster"
)

// StopAfter is an annotation of a played pod: how long it takes to stop (time.ParseDuration) when it is deleted. At the
// end of its grace period it is gone in any case. Without it the pod stops at once.
const StopAfter = "hand.outrider.dev/stop-after"

// firstPodAddress is where addresses of pods are counted from. None is used twice.
const firstPodAddress = "10.201.0.1"

// Options is what the kubelets do with pods.
type Options struct {
	// Programs are static programs by the last element of the name of the image that they stand for.
	Programs map[string]string
	// VolumeDelay is how long a change of a ConfigMap or Secret takes to reach the files, a second if it is 0. Real
	// kubelets take up to two minutes.
	VolumeDelay time.Duration
}

// Kubelets are the nodes of a cluster. Their methods are safe for concurrent use.
type Kubelets struct {
	cluster *cluster.Cluster
	client  kubernetes.Interface
	options Options
	dir     string

	cancel  context.CancelFunc
	done    <-chan struct{} // closed by cancel
	running sync.WaitGroup

	mu      sync.Mutex
	nodes   map[string]bool
	pods    map[types.UID]*pod
	address netip.Addr // the next pod's
}

// Start starts watching for pods on the nodes that AddNode adds.
func Start(ctx context.Context, c *cluster.Cluster, options Options) (*Kubelets, error) {
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "kubelets-")
	if err != nil {
		return nil, fmt.Errorf("making a directory for pods: %w", err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // processes run as other users
		return nil, err
	}
	if options.VolumeDelay == 0 {
		options.VolumeDelay = time.Second
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	k := &Kubelets{
		cluster: c, client: client, options: options, dir: dir, cancel: cancel, done: life.Done(),
		nodes: map[string]bool{}, pods: map[types.UID]*pod{}, address: netip.MustParseAddr(firstPodAddress),
	}
	if err := k.watch(ctx, life); err != nil {
		return nil, errors.Join(err, k.Stop())
	}
	return k, nil
}

// watch hands every pod to the goroutine that plays it until life ends.
func (k *Kubelets) watch(ctx, life context.Context) error {
	factory := informers.NewSharedInformerFactory(k.client, 0)
	informer := factory.Core().V1().Pods().Informer()
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.observe(life, o.(*corev1.Pod), false) },
		UpdateFunc: func(_, o any) { k.observe(life, o.(*corev1.Pod), false) },
		DeleteFunc: func(o any) {
			if unknown, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = unknown.Obj
			}
			k.observe(life, o.(*corev1.Pod), true)
		},
	})
	if err != nil {
		return fmt.Errorf("watching pods: %w", err)
	}
	k.running.Go(func() {
		<-life.Done()
		factory.Shutdown()
	})
	factory.Start(life.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("waiting for the first list of pods: %w", ctx.Err())
	}
	return nil
}

// observe tells the pod's goroutine its newest state, and starts that goroutine with the first.
func (k *Kubelets) observe(life context.Context, object *corev1.Pod, gone bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[object.UID]
	if p == nil {
		ended := object.Status.Phase == corev1.PodSucceeded || object.Status.Phase == corev1.PodFailed
		if gone || ended || !k.nodes[object.Spec.NodeName] || life.Err() != nil {
			return
		}
		p = &pod{kubelets: k, address: k.address, object: object, changed: make(chan struct{}, 1), tokens: map[string]token{}}
		k.address = k.address.Next()
		k.pods[object.UID] = p
		k.running.Go(func() {
			p.live(life)
			k.mu.Lock()
			defer k.mu.Unlock()
			delete(k.pods, object.UID)
		})
	}
	p.tell(object, gone)
}

// Stop ends all processes at once, as if the machines lost power. The objects in the cluster stay as they are.
func (k *Kubelets) Stop() error {
	k.cancel()
	k.running.Wait()
	return os.RemoveAll(k.dir)
}

// Signal sends a signal to the processes of a pod, and says so if there is none.
func (k *Kubelets) Signal(namespace, name string, signal os.Signal) error {
	p := k.find(namespace, name)
	if p == nil {
		return fmt.Errorf("signalling pod %s/%s: it is on none of the nodes: %w", namespace, name, os.ErrNotExist)
	}
	return p.signal(signal)
}

// Connect plugs in the network of a pod that has processes, or pulls it out.
func (k *Kubelets) Connect(ctx context.Context, namespace, name string, connected bool) error {
	p := k.find(namespace, name)
	if p == nil || p.space() == nil {
		return fmt.Errorf("network of pod %s/%s: it has no process on any of the nodes: %w", namespace, name, os.ErrNotExist)
	}
	return p.space().Connect(ctx, connected)
}

func (k *Kubelets) find(namespace, name string) *pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if object, _ := p.state(); object.Namespace == namespace && object.Name == name {
			return p
		}
	}
	return nil
}

// Logs are the last lines of each process that there was.
func (k *Kubelets) Logs() string {
	names, _ := filepath.Glob(filepath.Join(k.dir, "*.log"))
	var logs string
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			content = []byte(err.Error())
		}
		logs += fmt.Sprintf("== %s\n%s\n", filepath.Base(name), content[max(0, len(content)-16<<10):])
	}
	return logs
}
