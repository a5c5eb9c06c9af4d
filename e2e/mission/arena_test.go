//go:build e2e

package mission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss"
)

// arena is where the scenarios are played: a cluster with the webhook and a stand-in for Alibaba Cloud. It is one of our own,
// or somebody else's. What is used of either is safe for concurrent use.
type arena struct {
	kubernetesCluster
	bucket  bucket
	cloud   cloud
	oss     string                      // where OSS is, seen from here: a URL
	install func(context.Context) error // installs the webhook, and waits until it answers
	images  func(string) string         // what becomes of a manifest, so that nodes find its images
}

// kubernetesCluster is what all scenarios need of Kubernetes. Those that need more say so with [ours].
type kubernetesCluster interface {
	// Client is a client with an administrator's rights.
	Client() (kubernetes.Interface, error)
	// Kubectl is a call of kubectl with them, not yet started.
	Kubectl(ctx context.Context, args ...string) *exec.Cmd
	// Reach connects to a port of a pod.
	Reach(ctx context.Context, pod *corev1.Pod, port string) (net.Conn, error)
	// Claim makes sure that a namespace is the scenarios' own, and that it goes with them.
	Claim(ctx context.Context, namespace string) error
}

// bucket is the one with the archives, as its owner sees it.
type bucket interface {
	// Keys are those that begin so, in their order.
	Keys(prefix string) ([]string, error)
	// Read is fs.ErrNotExist if there is no such object.
	Read(key string) ([]byte, error)
	// Write writes an object, also one that is there.
	Write(key string, content []byte) error
}

// cloud are the switches of the stand-in.
type cloud interface {
	// Asked is how many requests there were about what is in a folder of the bucket.
	Asked(folder string) int64
	// SetFaults replaces what is wrong with OSS.
	SetFaults(faults ...oss.Fault) error
	// Issue makes a key that opens OSS.
	Issue(key keys.Key) error
	// Revoke has a key open nothing any more.
	Revoke(id string) error
}

// ours skips a scenario that does to a cluster what is not to be done to somebody else's.
func ours(t *testing.T, does string) {
	t.Helper()
	if field == nil {
		t.Skipf("it %s, which is not ours to do in %s", does, ground.kubernetesCluster)
	}
}

// sidecarPort is where the sidecar says how it is.
const sidecarPort = "9850"

// statusOf is what the sidecar of a pod says of itself.
func statusOf(ctx context.Context, pod *corev1.Pod) (map[string]any, error) {
	way := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return ground.Reach(ctx, pod, sidecarPort)
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://sidecar/status", nil)
	if err != nil {
		return nil, err
	}
	answer, err := way.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var status map[string]any
	if err := json.NewDecoder(answer.Body).Decode(&status); err != nil {
		return nil, fmt.Errorf("%s: %w", answer.Status, err)
	}
	return status, nil
}
