package hand_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/hand"
)

func TestMain(m *testing.M) { os.Exit(cluster.Isolated(nil, m.Run)) }

const manifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: config}
data: {greeting: hello}
---
apiVersion: v1
kind: Service
metadata: {name: agent}
spec: {selector: {app: agent}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: agent}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}} # for a third pod there is no node
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      securityContext: {runAsUser: 4242, fsGroup: 4242}
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: agent}}}
      containers:
      - name: agent
        image: registry.example:5000/some/agent:v1
        args: ["--pod=$(POD)", "$(UNKNOWN)"]
        env: [{name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
        ports: [{name: http, containerPort: 8000}]
        readinessProbe: {httpGet: {path: /ready, port: http}}
        lifecycle: {preStop: {sleep: {seconds: 1}}}
        volumeMounts: [{name: config, mountPath: /etc/config}, {name: mine, mountPath: /var/run/mine}]
      volumes:
      - {name: config, configMap: {name: config, defaultMode: 0440}}
      - {name: mine, projected: {sources: [{serviceAccountToken: {path: token, audience: tests}}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      initContainers: [{name: sidecar, image: sidecar, restartPolicy: Always}, {name: first, image: first}]
      containers: [{name: postgres, image: postgres:17}]
`

type world struct {
	*testing.T
	cluster *cluster.Cluster
	client  kubernetes.Interface
	nodes   *hand.Kubelets
}

func newWorld(t *testing.T) world {
	agent := filepath.Join(t.TempDir(), "agent")
	build := exec.Command("go", "build", "-o", agent, "./agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the agent: %v\n%s", err, out)
	}
	c, err := cluster.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	nodes, err := hand.Start(t.Context(), c, hand.Options{Programs: map[string]string{"agent": agent}, VolumeDelay: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nodes.Stop(); err != nil {
			t.Error(err)
		}
	})
	for _, name := range []string{"one", "two"} {
		if err := nodes.AddNode(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}); err != nil {
			t.Fatal(err)
		}
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	apply := c.Kubectl(t.Context(), "apply", "-f", "-")
	apply.Stdin = strings.NewReader(manifest)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	return world{t, c, client, nodes}
}

// TestPods goes through the life of pods: the Deployment's have processes, the StatefulSet's is played.
func TestPods(t *testing.T) {
	w := newWorld(t)
	w.await("two endpoints that are ready", func(ctx context.Context) error {
		return w.endpoints(ctx, 2)
	})
	pods := w.pods("app=agent")
	if pods[0].Spec.NodeName == pods[1].Spec.NodeName {
		t.Errorf("both pods are on node %s", pods[0].Spec.NodeName)
	}
	for i := range pods {
		want := "4242 [/agent --pod=" + pods[i].Name + " $(UNKNOWN)]"
		if got, err := w.get(&pods[i], "/user"); got != want {
			t.Errorf("user and arguments: %q, %v, want %q", got, err, want)
		}
	}
	with := func(t *testing.T) world { return world{t, w.cluster, w.client, w.nodes} }
	t.Run("a played pod", func(t *testing.T) { with(t).testPlayed() })
	t.Run("a ConfigMap's change arrives", func(t *testing.T) { with(t).testConfigMap(&pods[0]) })
	t.Run("the token is the pod's", func(t *testing.T) { with(t).testToken(&pods[0]) })
	t.Run("a process that dies is started again", func(t *testing.T) { with(t).testCrash(&pods[0]) })
	t.Run("an orderly stop", func(t *testing.T) { with(t).testStop(&pods[1]) })
	t.Run("a rollout is complete", func(t *testing.T) { with(t).testRollout() })
}

func (w world) testPlayed() {
	w.await("db-0 to be ready", func(ctx context.Context) error {
		set, err := w.client.AppsV1().StatefulSets("default").Get(ctx, "db", metav1.GetOptions{})
		if err == nil && set.Status.ReadyReplicas != 1 {
			err = fmt.Errorf("%d ready", set.Status.ReadyReplicas)
		}
		return err
	})
	db := w.pods("app=db")[0]
	init := db.Status.InitContainerStatuses
	if len(init) != 2 || init[0].State.Running == nil || init[1].State.Terminated == nil {
		w.Errorf("init containers: %+v, want a native sidecar that runs and one that has ended", init)
	}
	grace := int64(30)
	db.Annotations = map[string]string{hand.StopAfter: "2s"}
	if _, err := w.client.CoreV1().Pods("default").Update(w.Context(), &db, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	if err := w.client.CoreV1().Pods("default").Delete(w.Context(), "db-0", metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		w.Fatal(err)
	}
	began := time.Now()
	w.await("another db-0", func(ctx context.Context) error {
		again, err := w.client.CoreV1().Pods("default").Get(ctx, "db-0", metav1.GetOptions{})
		if err == nil && again.UID == db.UID {
			err = fmt.Errorf("the old one is still there")
		}
		return err
	})
	if took := time.Since(began); took < 2*time.Second {
		w.Errorf("it stopped after %v, want 2 s or more", took)
	}
}

func (w world) testConfigMap(pod *corev1.Pod) {
	config, err := w.client.CoreV1().ConfigMaps("default").Get(w.Context(), "config", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	config.Data["greeting"] = "goodbye"
	if _, err := w.client.CoreV1().ConfigMaps("default").Update(w.Context(), config, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
	w.await("the file to follow", func(context.Context) error {
		if got, err := w.get(pod, "/file/etc/config/greeting"); got != "goodbye" {
			return fmt.Errorf("it is %q: %w", got, err)
		}
		return nil
	})
}

func (w world) testToken(pod *corev1.Pod) {
	token, err := w.get(pod, "/file/var/run/mine/token")
	if err != nil {
		w.Fatal(err)
	}
	review, err := w.client.AuthenticationV1().TokenReviews().Create(w.Context(), &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: []string{"tests"}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.Fatal(err)
	}
	extra := review.Status.User.Extra["authentication.kubernetes.io/pod-uid"]
	if !review.Status.Authenticated || len(extra) != 1 || extra[0] != string(pod.UID) {
		w.Errorf("token review: %+v, want a token of pod %s", review.Status, pod.UID)
	}
}

func (w world) testCrash(pod *corev1.Pod) {
	if err := w.nodes.Signal("default", pod.Name, syscall.SIGKILL); err != nil {
		w.Fatal(err)
	}
	w.await("a restart", func(ctx context.Context) error {
		now, err := w.client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && (now.Status.ContainerStatuses[0].RestartCount != 1 || !now.Status.ContainerStatuses[0].Ready) {
			err = fmt.Errorf("its status is %+v", now.Status.ContainerStatuses[0])
		}
		return err
	})
}

func (w world) testStop(pod *corev1.Pod) {
	if err := w.client.CoreV1().Pods("default").Delete(w.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
		w.Fatal(err)
	}
	began := time.Now()
	w.await("the pod to be gone", func(ctx context.Context) error {
		_, err := w.client.CoreV1().Pods("default").Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is there")
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	if took := time.Since(began); took < 2*time.Second || !strings.Contains(w.nodes.Logs(), "stopped in order") {
		w.Errorf("it was gone after %v, want a second of preStop and one of stopping; logs:\n%s", took, w.nodes.Logs())
	}
}

func (w world) testRollout() {
	for _, args := range [][]string{
		{"set", "env", "deployment/agent", "ROUND=2"},
		{"rollout", "status", "deployment/agent", "--timeout=60s"},
	} {
		if out, err := w.cluster.Kubectl(w.Context(), args...).CombinedOutput(); err != nil {
			w.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
	}
	for _, pod := range w.pods("app=agent") {
		if got, err := w.get(&pod, "/env/ROUND"); pod.DeletionTimestamp == nil && got != "2" {
			w.Errorf("pod %s: ROUND=%q: %v", pod.Name, got, err)
		}
	}
}

// endpoints says what is wrong if the Service does not have so many endpoints that are ready.
func (w world) endpoints(ctx context.Context, want int) error {
	slices, err := w.client.DiscoveryV1().EndpointSlices("default").List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=agent"})
	if err != nil {
		return err
	}
	ready := 0
	for _, slice := range slices.Items {
		for _, e := range slice.Endpoints {
			if *e.Conditions.Ready {
				ready++
			}
		}
	}
	if ready != want {
		return fmt.Errorf("%d are ready, want %d", ready, want)
	}
	return nil
}

func (w world) pods(selector string) []corev1.Pod {
	w.Helper()
	list, err := w.client.CoreV1().Pods("default").List(w.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil || len(list.Items) == 0 {
		w.Fatalf("pods with %s: %d, %v", selector, len(list.Items), err)
	}
	return list.Items
}

func (w world) get(pod *corev1.Pod, path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get("http://" + pod.Status.PodIP + ":8000" + path)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// await tries until it works, for a minute and a half.
func (w world) await(what string, try func(context.Context) error) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 90*time.Second)
	defer cancel()
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			w.Fatalf("waiting for %s: %v\n%s", what, err, w.nodes.Logs())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
