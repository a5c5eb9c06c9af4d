package admission

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// report sends a report with a token, as the pod's sidecar would: beside where the pod was told at its admission to ask for
// evacuation.
func (w *world) report(t *testing.T, pod *corev1.Pod, token, body string) (int, answer) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(environment(pod, "outrider-restore", "OUTRIDER_EVACUATION_CA"))) {
		t.Fatalf("the restore of pod %s/%s was told of no authority", pod.Namespace, pod.Name)
	}
	url := strings.TrimSuffix(environment(pod, "outrider-restore", "OUTRIDER_EVACUATION_URL"), "evacuations") + "reports"
	replica := w.replicas(t)[0].Status.PodIP // there is no kube-proxy
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(replica, "9443"))
		},
	}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var a answer
	if err := json.Unmarshal(raw, &a); err != nil {
		t.Fatalf("%s: %v\n%s", response.Status, err, raw)
	}
	return response.StatusCode, a
}

// TestReports: a pod without any right has Events written about itself and its workload, and about nobody else.
func TestReports(t *testing.T) {
	w := shared
	ns, plain := w.protected(t), w.namespace(t, &corev1.Namespace{})
	for _, name := range []string{"db", "other", "dead"} {
		w.apply(t, database(ns, name))
	}
	w.apply(t, database(plain, "db"))
	db, other, dead, unprotected := w.ready(t, ns, "db-0"), w.ready(t, ns, "other-0"), w.ready(t, ns, "dead-0"), w.ready(t, plain, "db-0")
	lost := w.token(t, dead, audience)
	if out, err := w.kubectl(t, "", "-n", ns, "delete", "statefulset/dead", "pod/dead-0", "--force", "--cascade=orphan"); err != nil {
		t.Fatalf("kubectl delete: %v\n%s", err, out)
	}
	w.await(t, "pod dead-0 to be gone", func(ctx context.Context) error {
		_, err := w.client.CoreV1().Pods(ns).Get(ctx, "dead-0", metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return ignoreNotFound(err)
	})
	good := w.token(t, db, audience)
	for _, tt := range []struct {
		name, token string
		status      int
		outcome     string
	}{
		{"a token for the API server", w.token(t, db, "https://kubernetes.default.svc"), http.StatusUnauthorized, "unauthenticated"},
		{"a token with another signature", good[:len(good)-8] + "AAAAAAAA", http.StatusUnauthorized, "unauthenticated"},
		{"the token of a pod that is gone", lost, http.StatusUnauthorized, "unauthenticated"},
		{"a pod that is not protected", w.token(t, unprotected, audience), http.StatusForbidden, "not_ours"},
	} {
		if status, got := w.report(t, db, tt.token, `{"kind":"superseded","detail":"not to be seen"}`); status != tt.status || got.Outcome != tt.outcome {
			t.Errorf("%s: the answer is %d %+v, want %d %s", tt.name, status, got, tt.status, tt.outcome)
		}
	}
	// It says that it is another, which is passed over.
	body := `{"kind":"not_protected","since":"2026-04-07T17:03:00Z","detail":"the slot is gone","pod":"other-0","name":"other-0","namespace":"` + plain +
		`","uid":"` + string(other.UID) + `","reason":"Killing"}`
	if status, a := w.report(t, db, good, body); status != http.StatusOK || a.Outcome != "noted" {
		t.Fatalf("the answer is %d %+v, want 200 noted", status, a)
	}
	const note = "not protected since 2026-04-07T17:03:00Z: the slot is gone"
	if e := w.event(t, ns, "Pod", "NotProtected", note); e.InvolvedObject.UID != db.UID || e.Type != corev1.EventTypeWarning {
		t.Errorf("the Event is %+v", e)
	}
	if e := w.event(t, ns, "StatefulSet", "NotProtected", "db-0: "+note); e.InvolvedObject.Name != "db" {
		t.Errorf("the Event is about %+v", e.InvolvedObject)
	}
	for _, namespace := range []string{ns, plain} {
		events, err := w.client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events.Items {
			if about := e.InvolvedObject.Name; strings.Contains(e.Message, "not to be seen") || strings.Contains(e.Message, note) && about != "db" && about != "db-0" {
				t.Errorf("there is an Event of %s: %s", about, e.Message)
			}
		}
	}
	w.unmoved(t, db)
	w.unmoved(t, other)
}

// TestSidecarReports: the real program, with what the pod was given at its admission, reports that a restore waits.
func TestSidecarReports(t *testing.T) {
	w := shared
	dir := t.TempDir()
	program, token := filepath.Join(dir, "outrider"), filepath.Join(dir, "token")
	// First of all: what a pod is told at its admission about the webhook's authority holds for minutes here.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "outrider.dev/sidecar")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building outrider: %v\n%s", err, out)
	}
	ns := w.protected(t)
	w.apply(t, database(ns, "db"))
	pod := w.ready(t, ns, "db-0")
	if err := os.WriteFile(token, []byte(w.token(t, pod, audience)), 0o600); err != nil {
		t.Fatal(err)
	}
	// There is no DNS and no kube-proxy: a hosts file of its own leads the program to a replica.
	hosts, name := filepath.Join(dir, "hosts"), webhook+"."+system+".svc"
	if err := os.WriteFile(hosts, []byte(w.replicas(t)[0].Status.PodIP+" "+name+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", `mount --bind "$1" /etc/hosts && exec "$2" restore --auto`, "sh", hosts, program)
	url := "https://" + name + ":9443/v1/evacuations"
	cmd.Env = append(os.Environ(), "PGDATA="+filepath.Join(dir, "pgdata"), "OUTRIDER_ARCHIVE=oss://nowhere/prod/shop/db", "OSS_ENDPOINT=http://127.0.0.1:1", "OSS_REGION=cn-hangzhou",
		"OSS_ACCESS_KEY_ID=key", "OSS_ACCESS_KEY_SECRET=secret", "OUTRIDER_EVACUATION_URL="+url,
		"OUTRIDER_EVACUATION_CA="+environment(pod, "outrider-restore", "OUTRIDER_EVACUATION_CA"), "OUTRIDER_EVACUATION_TOKEN_FILE="+token)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("outrider said\n%s", out.String())
		}
	})
	w.event(t, ns, "Pod", "RestoreWaiting", "before the archive has answered")
	w.event(t, ns, "StatefulSet", "RestoreWaiting", "db-0: ")
}
