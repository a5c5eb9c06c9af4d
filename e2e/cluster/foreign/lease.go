package foreign

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// One run at a time is a cluster's guest. It says every now and then that it goes on, in a Lease of the namespace home; one
// that has not done so for a while was killed, and what it has left may be removed.
const (
	home      = "outrider-e2e-run"
	leaseName = "scenarios"
	sayEvery  = 20 * time.Second
	believed  = 2 * time.Minute
)

// lease is that of a run.
type lease struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// end stops saying that the run goes on.
func (l *lease) end() {
	l.cancel()
	l.running.Wait()
}

// occupied is an error if another run goes on.
func (c *Cluster) occupied(ctx context.Context) error {
	there, err := c.client.CoordinationV1().Leases(home).Get(ctx, leaseName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("looking for another run in %s: %w", c, err)
	case there.Spec.RenewTime == nil || there.Spec.HolderIdentity == nil || time.Since(there.Spec.RenewTime.Time) > believed:
		return nil
	}
	return fmt.Errorf("%s has scenarios already: those of %s; they were alive at %s. If they were killed, try again %s later",
		c, *there.Spec.HolderIdentity, there.Spec.RenewTime.Format(time.TimeOnly), believed)
}

// occupy says that this run goes on, until the lease is ended.
func (c *Cluster) occupy(ctx context.Context) error {
	if err := c.Claim(ctx, home); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	holder := fmt.Sprintf("process %d on %s, which came at %s", os.Getpid(), host, time.Now().Format(time.TimeOnly))
	leases := c.client.CoordinationV1().Leases(home)
	_, err = leases.Create(ctx, &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Name: leaseName},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, RenewTime: &metav1.MicroTime{Time: time.Now()}},
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("saying that scenarios are played in %s: %w", c, err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &lease{cancel: cancel}
	l.running.Go(func() {
		for {
			select {
			case <-life.Done():
				return
			case <-time.After(sayEvery):
				c.renew(life, holder) // or the next time
			}
		}
	})
	c.mu.Lock()
	c.lease = l
	c.mu.Unlock()
	return nil
}

// renew says that the run of this holder still goes on.
func (c *Cluster) renew(ctx context.Context, holder string) {
	leases := c.client.CoordinationV1().Leases(home)
	there, err := leases.Get(ctx, leaseName, metav1.GetOptions{})
	if err != nil || there.Spec.HolderIdentity == nil || *there.Spec.HolderIdentity != holder {
		return
	}
	there.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	_, _ = leases.Update(ctx, there, metav1.UpdateOptions{})
}
