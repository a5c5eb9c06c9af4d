//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss"
)

// own has the scenarios be played in a cluster of our own.
func own(c *local.Cluster) arena {
	return arena{
		kubernetesCluster: ownCluster{c}, bucket: ownBucket{c.Cloud.OSS}, cloud: ownCloud{c.Cloud},
		oss:     "http://" + cluster.WorldAddress,
		install: func(ctx context.Context) error { return install(ctx, c.Kubectl) },
		images:  func(manifest string) string { return manifest },
	}
}

// ownCluster is in the network of the test, which reaches pods as they are.
type ownCluster struct{ *local.Cluster }

func (ownCluster) Reach(ctx context.Context, pod *corev1.Pod, port string) (net.Conn, error) {
	if pod.Status.PodIP == "" {
		return nil, errors.New("the pod has no address")
	}
	return (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, port))
}

// Claim has nothing to do where everything is ours.
func (ownCluster) Claim(context.Context, string) error { return nil }

// ownBucket is on a disk of ours.
type ownBucket struct{ *oss.Server }

func (b ownBucket) Keys(prefix string) (found []string, err error) {
	objects, err := b.Objects(local.Bucket, prefix)
	for _, o := range objects {
		found = append(found, o.Key)
	}
	return found, err
}

func (b ownBucket) Read(key string) ([]byte, error) {
	content, _, err := b.ReadObject(local.Bucket, key)
	return content, err
}

func (b ownBucket) Write(key string, content []byte) error {
	return b.WriteObject(local.Bucket, key, content)
}

// ownCloud runs in this process.
type ownCloud struct{ *local.Cloud }

func (c ownCloud) SetFaults(faults ...oss.Fault) error { return c.OSS.SetFaults(faults...) }

func (c ownCloud) Issue(key keys.Key) error { return c.Keys.Put(key) }

func (c ownCloud) Revoke(id string) error { return c.Keys.Revoke(id) }
