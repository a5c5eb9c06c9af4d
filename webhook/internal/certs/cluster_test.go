package certs

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	mutatingPath   = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider"
	validatingPath = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/outrider"
)

// request is what an API server was asked to change.
type request struct{ method, path, kind, body string }

// inCluster talks to an API server that has what objects says, refuses changes with a status, and remembers them.
func inCluster(t *testing.T, objects map[string]any, status int) (c Kubernetes, asked *[]request) {
	t.Helper()
	asked = &[]request{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer := func(code int, v any) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(v)
		}
		object, ok := objects[r.URL.Path]
		switch {
		case !ok:
			answer(http.StatusNotFound, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound"})
		case r.Method == http.MethodGet:
			answer(http.StatusOK, object)
		default:
			body, _ := io.ReadAll(r.Body)
			*asked = append(*asked, request{r.Method, r.URL.Path, r.Header.Get("Content-Type"), string(body)})
			if status != http.StatusOK {
				reason := map[int]string{http.StatusConflict: "Conflict", http.StatusForbidden: "Forbidden"}[status]
				answer(status, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason})
				return
			}
			answer(http.StatusOK, object)
		}
	}))
	t.Cleanup(srv.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: srv.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return Kubernetes{Client: client, Namespace: "outrider-system", SecretName: "outrider-webhook-tls", Registration: "outrider"}, asked
}

func registration(kind string) map[string]any {
	hook := func(bundle string) map[string]any {
		return map[string]any{"name": "x", "newer": true, "clientConfig": map[string]any{"caBundle": bundle}}
	}
	return map[string]any{
		"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1",
		"metadata": map[string]any{"name": "outrider", "resourceVersion": "7"}, "webhooks": []any{hook("YQ=="), hook("")},
	}
}

// The bundles of a registration are patched and nothing else, and only in the version that was read.
func TestOnlyBundlesArePatched(t *testing.T) {
	for kind, path := range map[string]string{mutating: mutatingPath, validating: validatingPath} {
		t.Run(kind, func(t *testing.T) { onlyBundlesArePatched(t, kind, path) })
	}
}

func onlyBundlesArePatched(t *testing.T, kind, path string) {
	t.Helper()
	c, asked := inCluster(t, map[string]any{path: registration(kind)}, http.StatusOK)
	regs, err := c.Registrations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Registration{{Kind: kind, Name: "outrider", Version: "7", Bundles: [][]byte{[]byte("a"), {}}}}
	if diff := cmp.Diff(want, regs, cmp.Comparer(func(a, b []byte) bool { return string(a) == string(b) })); diff != "" {
		t.Fatalf("the registrations (-want +got), of which one does not exist:\n%s", diff)
	}
	if err := c.Publish(t.Context(), regs[0], []byte("b")); err != nil {
		t.Fatal(err)
	}
	patch := `[{"op":"replace","path":"/metadata/resourceVersion","value":"7"},` +
		`{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"Yg=="},{"op":"add","path":"/webhooks/1/clientConfig/caBundle","value":"Yg=="}]`
	if diff := cmp.Diff([]request{{http.MethodPatch, path, "application/json-patch+json", patch}}, *asked, cmp.AllowUnexported(request{})); diff != "" {
		t.Errorf("the changes (-want +got):\n%s", diff)
	}
}

func TestConflictsAreToldFromErrors(t *testing.T) {
	const secret = "/api/v1/namespaces/outrider-system/secrets/outrider-webhook-tls"
	for status, conflict := range map[int]bool{http.StatusConflict: true, http.StatusForbidden: false} {
		c, asked := inCluster(t, map[string]any{mutatingPath: registration(mutating), secret: map[string]any{"kind": "Secret", "apiVersion": "v1"}}, status)
		err := c.Publish(t.Context(), Registration{Kind: mutating, Name: "outrider", Version: "6", Bundles: [][]byte{nil}}, []byte("b"))
		if err == nil || errors.Is(err, ErrConflict) != conflict {
			t.Errorf("publishing with the answer %d: %v", status, err)
		}
		s := &corev1.Secret{}
		s.Name, s.Namespace = c.SecretName, c.Namespace
		if err := c.UpdateSecret(t.Context(), s); err == nil || errors.Is(err, ErrConflict) != conflict {
			t.Errorf("writing the Secret with the answer %d: %v", status, err)
		}
		if len(*asked) != 2 {
			t.Errorf("%d changes were asked for", len(*asked))
		}
	}
}

func TestMissingSecretSaysWhatToDo(t *testing.T) {
	c, _ := inCluster(t, nil, http.StatusOK)
	if _, err := c.Secret(t.Context()); err == nil || !strings.Contains(err.Error(), "outrider-system/outrider-webhook-tls") || !strings.Contains(err.Error(), "manifests") {
		t.Errorf("%v", err)
	}
}
