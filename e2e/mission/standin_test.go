//go:build e2e

package mission_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/cluster/foreign"
	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss"
)

// Where the stand-in for Alibaba Cloud is in a cluster that is not ours, and its ports: of OSS, and of its switches.
const (
	standInNamespace      = "outrider-e2e"
	ossPort, switchesPort = "9000", "9001"
)

// patience is how long one question to the stand-in may take.
const patience = 30 * time.Second

// standIn is devcloud in a cluster that is not ours, with what it stores. It implements bucket and cloud.
type standIn struct {
	store, switches *door
	doors           []func() // close them
	client          *sdk.Client
}

// newStandIn opens the ways to it, which may be before it runs.
func newStandIn(c *foreign.Cluster) (*standIn, error) {
	find := func(ctx context.Context) (*corev1.Pod, error) { return standInPod(ctx, c) }
	s := &standIn{}
	for port, way := range map[string]**door{ossPort: &s.store, switchesPort: &s.switches} {
		d, closeDoor, err := openDoor(find, port)
		if err != nil {
			s.close()
			return nil, err
		}
		*way = d
		s.doors = append(s.doors, closeDoor)
	}
	s.client = sdk.NewClient(sdk.LoadDefaultConfig().WithEndpoint(s.endpoint()).WithRegion(local.Region).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(local.AccessKeyID, local.AccessKeySecret)))
	return s, nil
}

// standInPod finds the one that runs.
func standInPod(ctx context.Context, c *foreign.Cluster) (*corev1.Pod, error) {
	client, err := c.Client()
	if err != nil {
		return nil, err
	}
	pods, err := client.CoreV1().Pods(standInNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=devcloud"})
	if err != nil {
		return nil, err
	}
	for _, pod := range pods.Items {
		if pod.DeletionTimestamp == nil && pod.Status.PodIP != "" {
			return &pod, nil
		}
	}
	return nil, apierrors.NewNotFound(corev1.Resource("pods"), "devcloud")
}

// endpoint is the URL of OSS, seen from here.
func (s *standIn) endpoint() string { return "http://" + s.store.listener.Addr().String() }

func (s *standIn) close() {
	for _, f := range s.doors {
		f()
	}
}

// Asked is 0 if the stand-in does not answer: it is a figure for the table, and nothing fails for it.
func (s *standIn) Asked(folder string) int64 {
	var said oss.Requests
	if err := s.turn(http.MethodGet, "requests", nil, &said); err != nil {
		return 0
	}
	return int64(said.Folders[folder])
}

func (s *standIn) SetFaults(faults ...oss.Fault) error {
	return s.turn(http.MethodPut, "faults", faults, nil)
}

func (s *standIn) Issue(key keys.Key) error {
	return s.turn(http.MethodPut, "keys", map[string]any{"add": []keys.Key{key}}, nil)
}

func (s *standIn) Revoke(id string) error {
	return s.turn(http.MethodPut, "keys", map[string]any{"revoke": []string{id}}, nil)
}

// turn turns one of the switches, or reads it into answer.
func (s *standIn) turn(method, name string, to, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	body, err := json.Marshal(to)
	if err != nil {
		return err
	}
	url := "http://" + s.switches.listener.Addr().String() + "/control/" + name
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	got, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("turning the stand-in's switch %s: %w", name, err)
	}
	defer got.Body.Close()
	content, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("it says: %s", content)
	}
	if err == nil && answer != nil {
		err = json.Unmarshal(content, answer)
	}
	if err != nil {
		return fmt.Errorf("turning the stand-in's switch %s: %w", name, err)
	}
	return nil
}
