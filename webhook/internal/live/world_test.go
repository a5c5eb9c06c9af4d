// Package live_test holds evacuation and audit against a real API server, with the rights that the manifests give and
// no more.
package live_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"

	"outrider.dev/e2e/cluster"
	"outrider.dev/webhook/internal/evacuate"
)

const audience = "outrider.dev"

func TestMain(m *testing.M) { os.Exit(cluster.Isolated(nil, m.Run)) }

// world is a control plane without kubelets: what is deleted stays there, stopping, until the test lets it go.
type world struct {
	t       *testing.T
	cluster *cluster.Cluster
	admin   kubernetes.Interface
	rights  *rest.Config // of the webhook's service account
}

// newWorld starts the control plane with the manifests' rights.
func newWorld(t *testing.T) *world {
	t.Helper()
	c, err := cluster.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := c.Client()
	must(t, err)
	w := &world{t: t, cluster: c, admin: admin, rights: c.Config()}
	const system, account = "outrider-system", "outrider-webhook"
	w.namespace(system, nil)
	_, err = admin.CoreV1().ServiceAccounts(system).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	must(t, err)
	if out, err := c.Kubectl(t.Context(), "apply", "-f", "../../../manifests/base/rbac.yaml").CombinedOutput(); err != nil {
		t.Fatalf("applying the rights: %v\n%s", err, out)
	}
	w.rights.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + system + ":" + account,
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	c := *w
	c.t = t
	return &c
}

func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("%s: not within a minute", what)
		}
	}
}

func (w *world) namespace(name string, labels map[string]string) {
	w.t.Helper()
	_, err := w.admin.CoreV1().Namespaces().Create(w.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{})
	must(w.t, err)
	w.wait("the service account of "+name, func() bool {
		_, err := w.admin.CoreV1().ServiceAccounts(name).Get(w.t.Context(), "default", metav1.GetOptions{})
		return err == nil
	})
	// What makes a pod anew is of no interest here, but one whose maker is gone is collected.
	_, err = w.admin.CoreV1().ConfigMaps(name).Create(w.t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "maker"}}, metav1.CreateOptions{})
	must(w.t, err)
}

func (w *world) protected(name string) string {
	w.namespace(name, map[string]string{"outrider.dev/protect": "enabled"})
	return name
}

// node makes a node that says that it is ready.
func (w *world) node(name string, change func(*corev1.Node)) string {
	w.t.Helper()
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"node.alibabacloud.com/spot-strategy": "SpotAsPriceGo"}},
		Spec:       corev1.NodeSpec{ProviderID: "cn-hangzhou.i-" + name},
	}
	if change != nil {
		change(n)
	}
	_, err := w.admin.CoreV1().Nodes().Create(w.t.Context(), n, metav1.CreateOptions{})
	must(w.t, err)
	w.condition(name, corev1.NodeReady, corev1.ConditionTrue)
	return name
}

func (w *world) condition(node string, c corev1.NodeConditionType, s corev1.ConditionStatus) {
	w.t.Helper()
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{
		"nodeInfo":   map[string]any{"bootID": "boot-1"},
		"conditions": []corev1.NodeCondition{{Type: c, Status: s, Reason: "Test", LastHeartbeatTime: now, LastTransitionTime: now}},
	}})
	must(w.t, err)
	_, err = w.admin.CoreV1().Nodes().Patch(w.t.Context(), node, "application/strategic-merge-patch+json", patch, metav1.PatchOptions{}, "status")
	must(w.t, err)
}

// pod makes a protected pod of a controller.
func (w *world) pod(namespace, name, node string, change func(*corev1.Pod)) *corev1.Pod {
	w.t.Helper()
	maker, err := w.admin.CoreV1().ConfigMaps(namespace).Get(w.t.Context(), "maker", metav1.GetOptions{})
	must(w.t, err)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"name": name},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: maker.Name, UID: maker.UID, Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: node, TerminationGracePeriodSeconds: new(int64(40)),
			InitContainers: []corev1.Container{{Name: "outrider-restore", Image: "outrider"}, {Name: "outrider", Image: "outrider"}},
			Containers:     []corev1.Container{{Name: "postgres", Image: "postgres"}},
		},
	}
	if change != nil {
		change(p)
	}
	p, err = w.admin.CoreV1().Pods(namespace).Create(w.t.Context(), p, metav1.CreateOptions{})
	must(w.t, err)
	return p
}

func ordinary(p *corev1.Pod) { p.Spec.InitContainers = nil }

func bare(p *corev1.Pod) { p.OwnerReferences = nil }

func (w *world) read(p *corev1.Pod) *corev1.Pod {
	w.t.Helper()
	got, err := w.admin.CoreV1().Pods(p.Namespace).Get(w.t.Context(), p.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	must(w.t, err)
	return got
}

// stopping tells whether a pod was asked to stop, and with how many seconds.
func (w *world) stopping(p *corev1.Pod) (grace int64, ok bool) {
	w.t.Helper()
	got := w.read(p)
	if got == nil || got.DeletionTimestamp == nil {
		return 0, false
	}
	return *got.DeletionGracePeriodSeconds, true
}

// end plays the kubelet that has stopped a pod.
func (w *world) end(p *corev1.Pod) {
	w.t.Helper()
	must(w.t, w.admin.CoreV1().Pods(p.Namespace).Delete(w.t.Context(), p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
}

// taint is the value of our taint, "" if the node has none.
func (w *world) taint(node string) string {
	w.t.Helper()
	n, err := w.admin.CoreV1().Nodes().Get(w.t.Context(), node, metav1.GetOptions{})
	must(w.t, err)
	for _, t := range n.Spec.Taints {
		if t.Key == evacuate.Taint {
			return fmt.Sprintf("%s:%s", t.Value, t.Effect)
		}
	}
	return ""
}

// token is one for a pod, or with nil for its namespace's service account alone.
func (w *world) token(namespace string, p *corev1.Pod, audiences ...string) string {
	w.t.Helper()
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, ExpirationSeconds: new(int64(600))}}
	if p != nil {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: p.Name, UID: p.UID}
	}
	r, err := w.admin.CoreV1().ServiceAccounts(namespace).CreateToken(w.t.Context(), "default", r, metav1.CreateOptions{})
	must(w.t, err)
	return r.Status.Token
}

// evacuator is one with the rights of the webhook, and its handler behind HTTP.
func (w *world) evacuator(cfg evacuate.Config) (*evacuate.Evacuator, string) {
	w.t.Helper()
	return w.evacuatorOf(evacuate.Options{Config: cfg})
}

// recorder writes Events as long as the test runs.
func (w *world) recorder(client kubernetes.Interface) evacuate.Recorder {
	w.t.Helper()
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	ctx, cancel := context.WithCancel(w.t.Context())
	must(w.t, broadcaster.StartRecordingToSinkWithContext(ctx))
	w.t.Cleanup(func() {
		cancel()
		broadcaster.Shutdown()
	})
	return broadcaster.NewRecorder(scheme.Scheme, "outrider-webhook")
}

func (w *world) evacuatorOf(o evacuate.Options) (*evacuate.Evacuator, string) {
	w.t.Helper()
	client, err := kubernetes.NewForConfig(w.rights)
	must(w.t, err)
	o.Client, o.Recorder, o.Log = client, w.recorder(client), slog.New(slog.NewTextHandler(w.t.Output(), nil))
	e, err := evacuate.New(o)
	must(w.t, err)
	s := httptest.NewServer(e.Handler())
	w.t.Cleanup(s.Close)
	return e, s.URL + evacuate.Path
}

// call is one request and its answer.
type call struct {
	url, method, token, body string
}

func (c call) do(t *testing.T) (status int, a evacuate.Answer) {
	t.Helper()
	if c.method == "" {
		c.method = http.MethodPost
	}
	r, err := http.NewRequestWithContext(t.Context(), c.method, c.url, strings.NewReader(c.body))
	must(t, err)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	if err := json.Unmarshal(b, &a); err != nil || a.Message == "" || res.Header.Get("Content-Type") != "application/json" {
		t.Errorf("the answer is no answer: %v %q", err, b)
	}
	return res.StatusCode, a
}

func releaseIn(d time.Duration) string {
	return fmt.Sprintf(`{"release_at":%q}`, time.Now().Add(d).UTC().Format(time.RFC3339))
}

// wants fails unless a call for evacuation has this answer.
func (w *world) wants(c call, status int, outcome evacuate.Outcome) evacuate.Answer {
	w.t.Helper()
	got, a := c.do(w.t)
	if got != status || a.Outcome != outcome {
		w.t.Fatalf("%d %+v, want %d %s", got, a, status, outcome)
	}
	return a
}

// shape is everything that an evacuation could change, of what has a word in its name: other tests have their own.
func (w *world) shape(word string) string {
	w.t.Helper()
	nodes, err := w.admin.CoreV1().Nodes().List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	pods, err := w.admin.CoreV1().Pods("").List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	var b bytes.Buffer
	for _, n := range nodes.Items {
		if !strings.Contains(n.Name, word) {
			continue
		}
		fmt.Fprintln(&b, n.Name, n.Spec.Unschedulable, w.taint(n.Name), slices.Sorted(maps.Keys(n.Annotations)))
	}
	for _, p := range pods.Items {
		if !strings.Contains(p.Namespace, word) {
			continue
		}
		fmt.Fprintln(&b, p.Namespace, p.Name, p.UID, p.DeletionTimestamp, p.Labels, p.Annotations)
	}
	return b.String()
}

func (w *world) signingKey() []byte {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(filepath.Dir(w.cluster.Kubeconfig()), "accounts.key"))
	must(w.t, err)
	return b
}
