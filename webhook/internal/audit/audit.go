package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// Recorder writes Events. Recorders of k8s.io/client-go/tools/events and those of a controller-runtime manager are such.
type Recorder interface {
	Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any)
}

// Options are what New needs. Client and Input are required.
type Options struct {
	Client kubernetes.Interface
	// Input is what the webhook would inject with, now, in a namespace with these annotations.
	Input      func(namespace string, annotations map[string]string) inject.Input
	Recorder   Recorder              // nil for no Events
	Registerer prometheus.Registerer // nil for no metrics
	Log        *slog.Logger          // nil for none
	Interval   time.Duration         // between two rounds; default 1 min
}

// Auditor looks at all protected namespaces from time to time.
type Auditor struct {
	client   kubernetes.Interface
	input    func(namespace string, annotations map[string]string) inject.Input
	recorder Recorder
	metrics  *metrics
	log      *slog.Logger
	interval time.Duration
	said     memory
}

// New makes an Auditor that has not looked yet.
func New(o Options) (*Auditor, error) {
	if o.Client == nil || o.Input == nil {
		return nil, errors.New("the audit needs a client of the API server and what the webhook would inject with")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Interval <= 0 {
		o.Interval = time.Minute
	}
	return &Auditor{
		client: o.Client, input: o.Input, recorder: o.Recorder, metrics: newMetrics(o.Registerer), log: o.Log, interval: o.Interval,
		said: memory{},
	}, nil
}

// Run looks until ctx ends, which is no error. It has no other: what cannot be read is unknown, is said, and is tried
// again. Two calls at the same time are not allowed.
func (a *Auditor) Run(ctx context.Context) error {
	defer a.metrics.forget()
	tick := time.NewTicker(a.interval)
	defer tick.Stop()
	for {
		a.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// round looks at all namespaces once. One that cannot be read has no metrics until it can.
func (a *Auditor) round(ctx context.Context) {
	list, err := a.client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: policy.Prefix + "protect=" + string(policy.ProtectEnabled)})
	if err != nil {
		a.trouble(ctx, fmt.Errorf("listing the protected namespaces: %w", err))
		return
	}
	counts := map[string]count{}
	whole := true
	waits, err := a.waiting(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		whole = false
		a.trouble(ctx, fmt.Errorf("looking for workloads that wait: %w", err))
	}
	for _, ns := range list.Items {
		if slices.Contains(excluded(), ns.Name) {
			continue
		}
		c, err := a.look(ctx, &ns)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			whole = false
			a.trouble(ctx, fmt.Errorf("looking at namespace %s: %w", ns.Name, err))
			continue
		}
		counts[ns.Name] = c
	}
	a.metrics.publish(counts, waits, whole)
	a.said.forget(time.Now())
}

// excluded are the namespaces in which the webhook is not asked, whatever their labels.
func excluded() []string { return []string{metav1.NamespaceSystem, "outrider-system"} }

func (a *Auditor) trouble(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	a.metrics.errors.Inc()
	a.log.Error("the audit could not see everything, it looks again", "error", err)
}

// count is what was found in one namespace.
type count struct {
	pods    map[State]int
	budgets int
}

// look audits a namespace.
func (a *Auditor) look(ctx context.Context, ns *corev1.Namespace) (count, error) {
	c := count{pods: map[State]int{}}
	for _, s := range States() {
		c.pods[s] = 0
	}
	pods, err := a.client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return c, fmt.Errorf("listing pods: %w", err)
	}
	budgets, err := a.client.PolicyV1().PodDisruptionBudgets(ns.Name).List(ctx, metav1.ListOptions{})
	if err != nil {
		return c, fmt.Errorf("listing disruption budgets: %w", err)
	}
	in := a.input(ns.Name, ns.Annotations)
	blocked := map[string]bool{}
	for _, pod := range pods.Items {
		v := judge(&pod, in)
		if v.state == "" {
			continue
		}
		c.pods[v.state]++
		if err := a.tell(ctx, &pod, v); err != nil {
			return c, err
		}
		if !claims(&pod) {
			continue
		}
		found, text := blocking(&pod, budgets.Items)
		for _, b := range found {
			blocked[b.Name] = true
		}
		if text != "" {
			a.say(&pod, &found[0], "EvacuationBlocked", text)
		}
	}
	c.budgets = len(blocked)
	return c, nil
}

// tell says what was found about a pod: on the pod, and on the workload that people know.
func (a *Auditor) tell(ctx context.Context, pod *corev1.Pod, v verdict) error {
	if v.text == "" && len(v.warnings) == 0 {
		return nil
	}
	owner, err := a.workload(ctx, pod.Namespace, metav1.GetControllerOf(pod))
	if err != nil {
		return err
	}
	on := []runtime.Object{pod}
	if owner != nil {
		on = append(on, owner)
	}
	if v.text != "" {
		for _, o := range on {
			a.say(o, nil, reasonFor(v.state), v.text)
		}
	}
	for _, w := range v.warnings {
		// Pods come and go, and each of them deserves the same warning: the workload is told, or the pod if there is none.
		a.say(on[len(on)-1], nil, "CheckProtection", w)
	}
	return nil
}

func reasonFor(s State) string {
	switch s {
	case Outdated:
		return "ProtectionOutdated"
	case Refused:
		return "ProtectionRefused"
	default:
		return "NotProtected"
	}
}
