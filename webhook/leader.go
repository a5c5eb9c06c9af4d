package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leader runs what only one replica shall run, on the one that holds the lease. Losing the lease ends those runs and
// nothing else: the admission of pods goes on. That is why it is not the election of controller-runtime's manager, which
// ends the process.
type leader struct {
	client          kubernetes.Interface
	namespace, name string // of the lease
	id              string // of this replica
	log             *slog.Logger
	runs            map[string]func(context.Context) error
}

// Times of the lease: the defaults of Kubernetes' own components.
const (
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
)

// run takes part in the election until ctx ends.
func (l *leader) run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := l.term(ctx); err != nil {
			return err
		}
		t := time.NewTimer(retryPeriod) // the other replica's turn
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
	return nil
}

// term waits for the lease, and returns when it is lost and everything that ran under it has ended.
func (l *leader) term(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan context.Context, 1)
	e, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: l.namespace, Name: l.name},
			Client:     l.client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.id},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: l.name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { started <- ctx },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("taking part in the election of a leader: %w", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		e.Run(ctx)
	}()
	select {
	case <-over:
	case lead := <-started:
		l.log.InfoContext(ctx, "this replica leads")
		l.all(lead)
		cancel() // the lease is given back
		<-over
		l.log.InfoContext(ctx, "this replica does not lead any more")
	}
	return nil
}

// all runs everything until ctx ends, and waits for it. One that fails ends the others and the term: another replica may do
// better.
func (l *leader) all(ctx context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	for name, run := range l.runs {
		g.Go(func() error {
			err := run(ctx)
			if err != nil && ctx.Err() == nil {
				l.log.ErrorContext(ctx, "work of the leader ended", "work", name, "error", err)
			}
			return err
		})
	}
	_ = g.Wait() // logged
}
