package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"outrider.dev/webhook/internal/admit"
	"outrider.dev/webhook/internal/audit"
	"outrider.dev/webhook/internal/certs"
	"outrider.dev/webhook/internal/evacuate"
	"outrider.dev/webhook/internal/inject"
	"outrider.dev/webhook/internal/namespaces"
	"outrider.dev/webhook/internal/report"
	"outrider.dev/webhook/internal/serve"
)

// Names of what the manifests install.
const (
	serviceName      = "outrider-webhook"
	secretName       = "outrider-webhook-tls"
	leaseName        = "outrider-webhook"
	registrationName = "outrider"
)

// drainFor is how long a request may take after the last one could come. With the longest lame duck it is within the
// grace period that the manifests give.
const drainFor = 10 * time.Second

// server is where all parts meet.
type server struct {
	flags serveFlags
	log   *slog.Logger
	reg   *prometheus.Registry

	settings  *settings
	client    kubernetes.Interface
	manager   manager.Manager
	keeper    *certs.Keeper
	tls       *serve.Server
	evacuator *evacuate.Evacuator
	reporter  *report.Reporter
	leader    *leader

	clusterUID string // of kube-system
}

func newServer(f serveFlags, log *slog.Logger) *server {
	s := &server{flags: f, log: log, reg: prometheus.NewRegistry()}
	s.reg.MustRegister(buildInfo())
	return s
}

// run puts the parts together and runs them until ctx ends.
func (s *server) run(ctx context.Context) error {
	var err error
	if s.settings, err = newSettings(s.flags.config, s.log, s.reg); err != nil {
		return err
	}
	connection, err := connection(s.flags.kubeconfig)
	if err != nil {
		return err
	}
	if s.client, err = kubernetes.NewForConfig(connection); err != nil {
		return fmt.Errorf("making a client of the API server: %w", err)
	}
	probes := newHealth(s.log)
	small := map[string]func(context.Context) error{}
	if small["probes"], err = answering(ctx, "probes", s.flags.healthListen, probes); err != nil {
		return err
	}
	if s.flags.metricsListen != "0" {
		mux := http.NewServeMux()
		mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{s.reg, ctrlmetrics.Registry}, promhttp.HandlerOpts{}))
		if small["metrics"], err = answering(ctx, "metrics", s.flags.metricsListen, mux); err != nil {
			return errors.Join(err, small["probes"](ended(ctx)))
		}
	}
	synced, err := s.prepare(ctx, connection)
	if err != nil {
		if ctx.Err() != nil {
			err = nil // told to stop before it began
		}
		for _, run := range small {
			err = errors.Join(err, run(ended(ctx)))
		}
		return err
	}
	probes.require(s.checks(synced)...)
	return s.runAll(ctx, small)
}

// ended is a context that has ended.
func ended(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return ctx
}

// prepare makes the parts, which needs an API server that answers.
func (s *server) prepare(ctx context.Context, connection *rest.Config) (synced func() bool, err error) {
	if s.clusterUID, err = identifyPatiently(ctx, s.client, s.log); err != nil {
		return nil, err
	}
	s.log.InfoContext(ctx, "starting", "version", version(), "kubernetes_cluster", s.settings.clusterOr(s.clusterUID), "namespace", s.flags.namespace)
	if err := s.makeManager(connection); err != nil {
		return nil, err
	}
	s.makeKeeper()
	events := s.manager.GetEventRecorder("outrider-webhook")
	s.evacuator, err = evacuate.New(evacuate.Options{
		Client: s.client, Config: s.settings.get().Evacuation, Recorder: report.ToOwners(events, s.client, s.log), Registerer: s.reg, Log: s.log,
	})
	if err != nil {
		return nil, fmt.Errorf("preparing the evacuation of pods: %w", err)
	}
	if s.reporter, err = report.New(report.Options{Client: s.client, Recorder: events, Registerer: s.reg, Log: s.log}); err != nil {
		return nil, fmt.Errorf("preparing what sidecars report: %w", err)
	}
	auditor, err := audit.New(audit.Options{Client: s.client, Input: s.input, Recorder: events, Registerer: s.reg, Log: s.log})
	if err != nil {
		return nil, fmt.Errorf("preparing the audit: %w", err)
	}
	s.leader = &leader{
		client: s.client, namespace: s.flags.namespace, name: leaseName, id: replica(), log: s.log,
		runs: map[string]func(context.Context) error{
			"evacuation": s.evacuator.Run,
			"audit":      s.whenReady(auditor.Run),
		},
	}
	return s.makeServer(ctx)
}

// runAll runs all parts. What answers outlives the signal; what it needs for answering outlives the answers.
func (s *server) runAll(ctx context.Context, small map[string]func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var g errgroup.Group
	part := func(name string, ctx context.Context, run func(context.Context) error) {
		g.Go(func() error {
			defer stop() // one part that ends takes the others with it, in good order
			if err := run(ctx); err != nil {
				s.log.ErrorContext(ctx, "a part ended with an error", "part", name, "error", err)
				return err
			}
			return nil
		})
	}
	for name, run := range small {
		part(name, life, run)
	}
	part("manager", life, s.manager.Start)
	part("certificates", life, s.keeper.Run)
	part("configuration", life, s.settings.run)
	part("leader", ctx, s.leader.run)
	part("server", ctx, func(ctx context.Context) error {
		defer end()
		return s.tls.Run(ctx)
	})
	return g.Wait()
}

// whenReady waits for certificates that are trusted: without them every pod would look as if it had been made with others.
func (s *server) whenReady(run func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for s.keeper.Ready() != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-t.C:
			}
		}
		return run(ctx)
	}
}

// makeManager makes what controller-runtime is used for: the cache of namespaces, and Events. The servers and the
// election of a leader are our own, because theirs cut requests off, do not say what is missing, or end the process.
func (s *server) makeManager(connection *rest.Config) error {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return fmt.Errorf("preparing the types of Kubernetes: %w", err)
	}
	m, err := manager.New(connection, manager.Options{
		Scheme:                 scheme,
		Metrics:                metricsserver.Options{BindAddress: "0"},
		HealthProbeBindAddress: "0",
		Cache:                  cache.Options{DefaultTransform: cache.TransformStripManagedFields()},
	})
	if err != nil {
		return fmt.Errorf("preparing the cache of namespaces: %w", err)
	}
	s.manager = m
	return nil
}

func (s *server) makeKeeper() {
	base := serviceName + "." + s.flags.namespace
	s.keeper = certs.New(certs.Config{
		Cluster:  certs.Kubernetes{Client: s.client, Namespace: s.flags.namespace, SecretName: secretName, Registration: registrationName},
		DNSNames: append([]string{base + ".svc", base + ".svc.cluster.local", base}, s.flags.dnsNames...),
		Durations: func() certs.Durations {
			c := s.settings.get().Certificates
			return certs.Durations{CA: time.Duration(c.CA), Leaf: time.Duration(c.Server), Settle: time.Duration(c.Settle)}
		},
		Log: s.log, Metrics: s.reg,
	})
}

// makeServer makes the TLS server with all that it answers. What it returns tells whether namespaces are known.
func (s *server) makeServer(ctx context.Context) (synced func() bool, err error) {
	informer, err := s.manager.GetCache().GetInformer(ctx, &corev1.Namespace{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("preparing the cache of namespaces: %w", err)
	}
	handlers := admit.New(admit.Config{
		Namespaces: namespaces.Reader{Cached: s.cachedNamespace, Live: s.liveNamespace},
		Workloads:  scaledWorkloads{s.client},
		Input:      s.input, Log: s.log, Metrics: s.reg,
	})
	mux := http.NewServeMux()
	mux.Handle("/mutate-pod", handlers.Pods())
	mux.Handle("/review-workload", handlers.Workloads())
	mux.Handle("/review-scale", handlers.Scales())
	mux.Handle(evacuate.Path, s.evacuator.Handler())
	mux.Handle(report.Path, s.reporter.Handler())
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.flags.listen)
	if err != nil {
		return nil, fmt.Errorf("listening for the API server: %w", err)
	}
	s.tls = serve.New(serve.Config{
		Listener: listener, Handler: mux, Certificate: s.keeper.Certificate,
		LameDuck: func() time.Duration { return time.Duration(s.settings.get().LameDuck) }, Drain: drainFor, Log: s.log,
	})
	return informer.HasSynced, nil
}

// input is what is in force at the moment for pods of a namespace.
func (s *server) input(namespace string, annotations map[string]string) inject.Input {
	c := s.settings.get()
	in := c.input(namespace, annotations)
	in.KubernetesCluster = s.settings.clusterOr(s.clusterUID)
	in.Evacuation.CA = s.keeper.Bundle()
	return in
}

func (s *server) cachedNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	ns := &corev1.Namespace{}
	return ns, s.manager.GetCache().Get(ctx, types.NamespacedName{Name: name}, ns, client.UnsafeDisableDeepCopy) // it is only read
}

func (s *server) liveNamespace(ctx context.Context, name string) (*corev1.Namespace, error) {
	return s.client.CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
}

// scaledWorkloads asks the API server. Scaling is rare, and a cache of all workloads would need the right to list them.
type scaledWorkloads struct{ client kubernetes.Interface }

func (w scaledWorkloads) StatefulSet(ctx context.Context, namespace, name string) (*appsv1.StatefulSet, error) {
	return w.client.AppsV1().StatefulSets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (w scaledWorkloads) Deployment(ctx context.Context, namespace, name string) (*appsv1.Deployment, error) {
	return w.client.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
}

// checks are what has to be in order before admissions may be sent here.
func (s *server) checks(synced func() bool) []check {
	return []check{
		{"serving", s.tls.Ready},
		{"certificates", s.keeper.Ready},
		{"namespaces", func() error {
			if !synced() {
				return errors.New("they are not known yet")
			}
			return nil
		}},
	}
}

// replica is the name of this one in the election.
func replica() string {
	name, err := os.Hostname()
	if pod := os.Getenv("POD_NAME"); pod != "" {
		name = pod
	} else if err != nil {
		name = "outrider-webhook"
	}
	return fmt.Sprintf("%s-%d", name, time.Now().UnixNano())
}
