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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/cluster"
)

// restartDelay is between two runs of a container. A kubelet's grows; tests have no time for that.
const restartDelay = time.Second

// pod is one pod on one of the nodes, played by one goroutine (live). Others tell it what the cluster thinks of it.
type pod struct {
	kubelets *Kubelets
	address  netip.Addr
	changed  chan struct{} // holds one if there is news

	mu        sync.Mutex
	object    *corev1.Pod
	gone      bool // the object is not there any more
	namespace *cluster.Namespace
	processes []*container

	// Of the goroutine alone:
	began  metav1.Time
	tokens map[string]token
}

func (p *pod) tell(object *corev1.Pod, gone bool) {
	p.mu.Lock()
	p.object, p.gone = object, p.gone || gone
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default: // there is news already, and this is part of it
	}
}

func (p *pod) state() (*corev1.Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.object, p.gone
}

func (p *pod) space() *cluster.Namespace {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.namespace
}

func (p *pod) containers() []*container {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.processes
}

func (p *pod) signal(signal os.Signal) error {
	var errs []error
	sent := false
	for _, c := range p.containers() {
		if process := c.current(); process != nil {
			sent = true
			errs = append(errs, process.Signal(signal))
		}
	}
	if !sent {
		object, _ := p.state()
		errs = append(errs, fmt.Errorf("signalling pod %s: no process of it runs: %w", object.Name, os.ErrNotExist))
	}
	return errors.Join(errs...)
}

// live plays the pod until it is gone or ctx ends, and leaves nothing of it.
func (p *pod) live(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer p.clear()
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()

	for !p.begin(ctx) { // what is missing may come
		if _, gone := p.state(); gone || ctx.Err() != nil {
			return
		}
		wait(ctx, restartDelay, p.changed)
	}
	p.began = metav1.Now().Rfc3339Copy()
	for _, c := range p.containers() {
		running.Go(func() { c.keepRunning(ctx) })
	}
	p.report(ctx)
	refresh := time.NewTicker(p.kubelets.options.VolumeDelay)
	defer refresh.Stop()
	for {
		object, gone := p.state()
		if gone || ctx.Err() != nil {
			return
		}
		if object.DeletionTimestamp != nil {
			p.terminate(ctx, object)
			return
		}
		select {
		case <-ctx.Done():
		case <-p.changed:
			p.report(ctx) // somebody else may have written a status
		case <-refresh.C:
			for _, c := range p.containers() {
				// What cannot be read now stays as it is, as on a real node.
				_ = p.writeVolumes(ctx, c)
			}
			p.report(ctx) // in case that it went wrong before
		}
	}
}

// begin makes network and files. It says in the pod's status what hinders it.
func (p *pod) begin(ctx context.Context) bool {
	object, _ := p.state()
	if object.DeletionTimestamp != nil {
		return true
	}
	err := p.prepare(ctx, object)
	if err != nil && ctx.Err() == nil {
		p.reportWaiting(ctx, err)
	}
	return err == nil
}

func (p *pod) prepare(ctx context.Context, object *corev1.Pod) error {
	var containers []*container
	for i := range object.Spec.Containers {
		spec := &object.Spec.Containers[i]
		if program := p.kubelets.options.Programs[imageName(spec.Image)]; program != "" {
			dir := filepath.Join(p.kubelets.dir, string(object.UID), spec.Name)
			containers = append(containers, &container{pod: p, spec: spec, program: program, root: dir})
		}
	}
	if len(containers) == 0 {
		return nil
	}
	if p.space() == nil {
		namespace, err := p.kubelets.cluster.Network.Attach(ctx, "pod-"+p.address.String(), p.address)
		if err != nil {
			return err
		}
		p.mu.Lock()
		p.namespace = namespace
		p.mu.Unlock()
	}
	for _, c := range containers {
		if err := p.writeRoot(ctx, c); err != nil {
			return err
		}
	}
	p.mu.Lock()
	p.processes = containers
	p.mu.Unlock()
	return nil
}

// terminate does what a kubelet does with a deleted pod, and then removes the object.
func (p *pod) terminate(ctx context.Context, object *corev1.Pod) {
	end := object.DeletionTimestamp.Time // the grace period is in it
	for _, c := range p.containers() {
		if sleep := preStopSleep(c.spec); sleep > 0 {
			p.waitUntil(ctx, time.Now().Add(sleep), end)
		}
	}
	for _, c := range p.containers() {
		c.stop(ctx, p.untilGone, end)
	}
	if after, err := time.ParseDuration(object.Annotations[StopAfter]); err == nil {
		p.waitUntil(ctx, time.Now().Add(after), end)
	}
	if _, gone := p.state(); gone || ctx.Err() != nil {
		return
	}
	now := int64(0)
	err := p.kubelets.client.CoreV1().Pods(object.Namespace).Delete(ctx, object.Name, metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: metav1.NewUIDPreconditions(string(object.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
		wait(ctx, restartDelay, nil)
		p.terminate(ctx, object)
	}
}

// waitUntil waits until the earlier of two times, or until the object is gone.
func (p *pod) waitUntil(ctx context.Context, until, end time.Time) {
	if end.Before(until) {
		until = end
	}
	for time.Until(until) > 0 && ctx.Err() == nil && !p.untilGone() {
		wait(ctx, time.Until(until), p.changed)
	}
}

func (p *pod) untilGone() bool {
	object, gone := p.state()
	// A forced deletion takes the rest of the grace period away.
	return gone || object.DeletionGracePeriodSeconds != nil && *object.DeletionGracePeriodSeconds == 0
}

// clear ends what is left and removes files and network.
func (p *pod) clear() {
	for _, c := range p.containers() {
		if process := c.current(); process != nil {
			_ = process.Kill() // nothing is left that could be done about it
		}
	}
	if namespace := p.space(); namespace != nil {
		_ = namespace.Close()
	}
	object, _ := p.state()
	_ = os.RemoveAll(filepath.Join(p.kubelets.dir, string(object.UID)))
}

func preStopSleep(spec *corev1.Container) time.Duration {
	if spec.Lifecycle == nil || spec.Lifecycle.PreStop == nil || spec.Lifecycle.PreStop.Sleep == nil {
		return 0
	}
	return time.Duration(spec.Lifecycle.PreStop.Sleep.Seconds) * time.Second
}

// wait waits for so long, for news, or for ctx to end.
func wait(ctx context.Context, d time.Duration, news <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-news:
	case <-timer.C:
	}
}
