// Package local is a whole Kubernetes on this machine: a control plane, workers with everything that runs on real ones,
// names, a stand-in for Alibaba Cloud, and the images of this repository. Tests start it inside of [cluster.Isolated], and
// `make cluster` for people.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/names"
	"outrider.dev/e2e/images"
)

// SpotLabel and SpotValue mark the workers as instances that may be reclaimed, as ACK does.
const (
	SpotLabel = "node.alibabacloud.com/spot-strategy"
	SpotValue = "SpotAsPriceGo"
)

// DiskVariable names a directory of the host for the nodes' disks, which goes with the last of them. Without it they are in memory, which leaves no trace
// whatever happens, and suits small databases: what they store counts as memory that their containers use.
const DiskVariable = "OUTRIDER_CLUSTER_DISK"

// Cluster is a running one. Its methods are safe for concurrent use.
type Cluster struct {
	*cluster.Cluster

	Cloud *Cloud
	Names *names.Server

	dir      string
	archives []string
	log      *slog.Logger
}

// Start starts a cluster with workers worker-1, worker-2 and so on, which have the images that [images.Build] has built.
func Start(ctx context.Context, workers int, log *slog.Logger, options ...cluster.Option) (*Cluster, error) {
	c := &Cluster{log: log}
	if err := c.start(ctx, workers, options); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context, workers int, options []cluster.Option) (err error) {
	if c.dir, err = os.MkdirTemp("", "local-"); err != nil {
		return err
	}
	if c.archives, err = images.Archives(); err != nil {
		return err
	}
	c.log.Info("starting the control plane")
	if c.Cluster, err = cluster.Start(ctx, options...); err != nil {
		return err
	}
	client, err := c.Client()
	if err != nil {
		return err
	}
	if c.Names, err = names.Start(ctx, client, cluster.WorldAddress+":53"); err != nil {
		return err
	}
	c.Names.Set("*."+ossDomain, netip.MustParseAddr(cloudAddress))
	if c.Cloud, err = startCloud(ctx, filepath.Join(c.dir, "oss"), slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	for i := range workers {
		if _, err := c.AddWorker(ctx, fmt.Sprintf("worker-%d", i+1), nil); err != nil {
			return err
		}
	}
	return nil
}

// AddWorker adds a node: an instance that may be reclaimed, with a metadata service. The labels are added to its usual ones, and
// it has the taints from its first moment.
func (c *Cluster) AddWorker(ctx context.Context, name string, labels map[string]string, taints ...corev1.Taint) (*cluster.Node, error) {
	c.log.Info("starting a node", "node", name)
	all := map[string]string{
		SpotLabel: SpotValue, "topology.kubernetes.io/region": Region, "topology.kubernetes.io/zone": Region + "-h",
		"node.kubernetes.io/instance-type": "ecs.g7.large",
	}
	maps.Copy(all, labels)
	instance := "i-" + name
	spec := cluster.NodeSpec{Name: name, Labels: all, Taints: taints, ProviderID: "alicloud://" + Region + "." + instance, Images: c.archives}
	if dir := os.Getenv(DiskVariable); dir != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
		var err error
		if spec.Disk, err = os.MkdirTemp(dir, name+"-"); err != nil {
			return nil, err
		}
	}
	n, err := c.AddNode(ctx, spec)
	if err != nil {
		return nil, err
	}
	return n, c.Cloud.attend(ctx, n, instance)
}

// Stop ends it and removes all of it.
func (c *Cluster) Stop() error {
	var errs []error
	if c.Names != nil {
		errs = append(errs, c.Names.Close())
	}
	if c.Cluster != nil {
		errs = append(errs, c.Cluster.Stop())
	}
	if c.Cloud != nil {
		errs = append(errs, c.Cloud.close())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if dir := os.Getenv(DiskVariable); dir != "" {
		_ = os.Remove(dir) // it is empty, unless others have their disks there
	}
	return errors.Join(errs...)
}
