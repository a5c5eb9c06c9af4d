package evacuate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// interval is how often nodes that are being reclaimed are seen to. A change of a node is seen at once.
const interval = 5 * time.Second

// Run does what needs one replica only: it answers the condition InstanceExpired, takes taints away, and what the
// configuration opts in to. It returns when ctx ends, after everything that it started has ended; its only error is that
// nodes could not be read at all.
func (e *Evacuator) Run(ctx context.Context) error {
	factory := informers.NewSharedInformerFactoryWithOptions(e.client, 0, informers.WithTransform(trim))
	nodes := factory.Core().V1().Nodes()
	changed := make(chan struct{}, 1)
	hint := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	_, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { hint() },
		UpdateFunc: func(any, any) { hint() },
	})
	if err != nil {
		return fmt.Errorf("watching nodes: %w", err)
	}
	factory.StartWithContext(ctx)
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), nodes.Informer().HasSynced) {
		return nil // ctx has ended
	}
	l := &leader{Evacuator: e, nodes: nodes.Lister(), troubles: map[string]string{}, draining: map[types.UID]bool{}}
	defer e.metrics.nodes.Reset()
	defer l.drains.Wait()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		l.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-changed:
		}
	}
}

// trim leaves of an object in the cache what is looked at here: nodes name all images that they hold.
func trim(obj any) (any, error) {
	if n, ok := obj.(*corev1.Node); ok {
		n.ManagedFields = nil
		n.Status.Images, n.Status.VolumesAttached, n.Status.VolumesInUse = nil, nil, nil
	}
	return obj, nil
}

// leader is the one replica that looks after nodes.
type leader struct {
	*Evacuator
	nodes    corelisters.NodeLister
	troubles map[string]string // by node, as it was logged

	drains   sync.WaitGroup
	mu       sync.Mutex
	draining map[types.UID]bool // nodes
}

// round sees to all nodes once.
func (l *leader) round(ctx context.Context) {
	all, err := l.nodes.List(labels.Everything())
	if err != nil {
		l.log.Error("the nodes cannot be listed", "error", err)
		return
	}
	reclaimed := 0
	for _, n := range all {
		if _, tainted, _ := taintOf(n); tainted {
			reclaimed++
		}
		err := l.see(ctx, n)
		if ctx.Err() != nil {
			return
		}
		l.report(n.Name, err)
	}
	l.metrics.nodes.WithLabelValues().Set(float64(reclaimed))
}

// report logs what is new about a node.
func (l *leader) report(node string, err error) {
	if err == nil {
		delete(l.troubles, node)
		return
	}
	l.metrics.errors.Inc()
	if text := err.Error(); l.troubles[node] != text {
		l.troubles[node] = text
		l.log.Error("a node could not be seen to, it is tried again", "node", node, "error", err)
	}
}

// see does what there is to do about one node.
func (l *leader) see(ctx context.Context, n *corev1.Node) error {
	within, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	t := tasksFor(l.now(), n, l.spot, l.cfg)
	var errs []error
	if t.vacate {
		errs = append(errs, l.vacate(within, n, t.release))
	}
	if t.lift {
		errs = append(errs, l.lift(within, n))
	}
	if t.drain {
		l.drain(ctx, n, t.release)
	}
	if t.replace {
		errs = append(errs, l.replace(within, n, t.release))
	}
	return errors.Join(errs...)
}

// vacate evacuates all protected pods of a node.
func (l *leader) vacate(ctx context.Context, n *corev1.Node, release time.Time) error {
	var errs []error
	if err := l.taintOnce(ctx, n, release, notice{source: "condition " + string(expired)}); err != nil {
		errs = append(errs, err)
	}
	pods, err := l.protected(ctx, n.Name)
	errs = append(errs, err)
	for _, pod := range pods {
		if _, err := l.move(ctx, &pod, n, release); err != nil {
			var no *refusal
			if !errors.As(err, &no) { // such a pod is gone
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// replace takes pods of a lost node out of the API server.
func (l *leader) replace(ctx context.Context, n *corev1.Node, release time.Time) error {
	pods, err := l.protected(ctx, n.Name)
	errs := []error{err}
	for _, pod := range pods {
		if !replaceable(l.now(), release, &pod, n) {
			continue
		}
		if err := l.remove(ctx, &pod, 0); err != nil {
			errs = append(errs, err)
			continue
		}
		l.metrics.pods.WithLabelValues(replaced).Inc()
		l.log.Warn("a pod of a lost node was given up", "namespace", pod.Namespace, "pod", pod.Name, "node", n.Name, "release_at", release)
		l.event(&pod, n, corev1.EventTypeWarning, "Replaced", "Delete", "node %s does not answer and was announced to be released at %s: the pod is given up, so that another one takes its place",
			n.Name, stamp(release))
	}
	return errors.Join(errs...)
}

// protected are the pods of a node that are ours to move.
func (l *leader) protected(ctx context.Context, node string) ([]corev1.Pod, error) {
	list, err := l.client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()})
	if err != nil {
		return nil, fmt.Errorf("listing the pods of node %s: %w", node, err)
	}
	namespaces := map[string]*corev1.Namespace{}
	var pods []corev1.Pod
	var errs []error
	for _, pod := range list.Items {
		ns := namespaces[pod.Namespace]
		if ns == nil && claims(&pod) {
			if ns, err = l.client.CoreV1().Namespaces().Get(ctx, pod.Namespace, metav1.GetOptions{}); err != nil {
				errs = append(errs, fmt.Errorf("reading namespace %s: %w", pod.Namespace, err))
				continue
			}
			namespaces[pod.Namespace] = ns
		}
		if ns != nil && checkPod(&pod, ns) == nil {
			pods = append(pods, pod)
		}
	}
	return pods, errors.Join(errs...)
}
