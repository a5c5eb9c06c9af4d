package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	apiversion "k8s.io/apimachinery/pkg/version"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// apiserver answers a few paths with JSON. What is not there is refused.
func apiserver(t *testing.T, handle http.HandlerFunc) kubernetes.Interface {
	t.Helper()
	srv := httptest.NewServer(handle)
	t.Cleanup(srv.Close)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: srv.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v)
}

// Before 1.29 the API server drops the restartPolicy of our container, and the pod waits for it for ever.
func TestOldKubernetesIsRefused(t *testing.T) {
	for _, c := range []struct {
		major, minor string
		ok           bool
	}{{"1", "28", false}, {"1", "28+", false}, {"1", "29", true}, {"1", "29+", true}, {"1", "37", true}, {"2", "0", true}, {"", "", false}} {
		if err := checkVersion(&apiversion.Info{Major: c.major, Minor: c.minor, GitVersion: "v" + c.major + "." + c.minor + ".3"}); (err == nil) != c.ok {
			t.Errorf("%s.%s: %v", c.major, c.minor, err)
		}
	}
	asked := 0
	client := apiserver(t, func(w http.ResponseWriter, _ *http.Request) {
		asked++
		answer(w, http.StatusOK, apiversion.Info{Major: "1", Minor: "28", GitVersion: "v1.28.9"})
	})
	_, err := identifyPatiently(t.Context(), client, quiet())
	if err == nil || !strings.Contains(err.Error(), "v1.28.9") || !strings.Contains(err.Error(), "1.29 or later") || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
}

func TestClusterIsNamedByKubeSystem(t *testing.T) {
	failures := 1 // an API server that comes up later
	client := apiserver(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case failures > 0:
			failures--
			answer(w, http.StatusServiceUnavailable, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503})
		case r.URL.Path == "/version":
			answer(w, http.StatusOK, apiversion.Info{Major: "1", Minor: "37"})
		case r.URL.Path == "/api/v1/namespaces/kube-system":
			answer(w, http.StatusOK, map[string]any{"kind": "Namespace", "apiVersion": "v1", "metadata": map[string]any{"name": "kube-system", "uid": "6d0e"}})
		default:
			t.Errorf("%s is asked for", r.URL.Path)
		}
	})
	uid, err := identifyPatiently(t.Context(), client, quiet())
	if err != nil || uid != "6d0e" {
		t.Errorf("%q, %v", uid, err)
	}
}

// leases is as much of an API server as an election needs.
type leases struct {
	mu      sync.Mutex
	version int
	lease   map[string]any
}

func (l *leases) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	status := func(code int, reason string) {
		answer(w, code, map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason})
	}
	if r.Method == http.MethodGet {
		if l.lease == nil {
			status(http.StatusNotFound, "NotFound")
			return
		}
		answer(w, http.StatusOK, l.lease)
		return
	}
	var v map[string]any
	_ = json.NewDecoder(r.Body).Decode(&v)
	meta := v["metadata"].(map[string]any)
	if l.lease != nil && meta["resourceVersion"] != l.lease["metadata"].(map[string]any)["resourceVersion"] {
		status(http.StatusConflict, "Conflict")
		return
	}
	l.version++
	meta["resourceVersion"] = strings.Repeat("i", l.version)
	l.lease = v
	answer(w, http.StatusOK, v)
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// One replica leads at a time. The one that stops hands over at once, after its work has ended.
func TestOneReplicaLeads(t *testing.T) {
	client := apiserver(t, (&leases{}).ServeHTTP)
	var mu sync.Mutex
	working, most := map[string]bool{}, 0
	begin := func(id string) (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		l := &leader{client: client, namespace: "outrider-system", name: leaseName, id: id, log: quiet(), runs: map[string]func(context.Context) error{
			"work": func(ctx context.Context) error {
				mu.Lock()
				working[id] = true
				most = max(most, len(working))
				mu.Unlock()
				<-ctx.Done()
				mu.Lock()
				delete(working, id)
				mu.Unlock()
				return nil
			},
		}}
		go func() { ended <- l.run(ctx) }()
		return sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("%s: %v", id, err)
			}
		})
	}
	leads := func(id string) func() bool {
		return func() bool { mu.Lock(); defer mu.Unlock(); return working[id] }
	}
	stopA := begin("a")
	defer stopA()
	waitFor(t, "a leads", leads("a"))
	stopB := begin("b")
	defer stopB()
	stopA()
	if leads("a")() {
		t.Error("a still works after it has ended")
	}
	waitFor(t, "b leads", leads("b"))
	stopB()
	if most != 1 {
		t.Errorf("%d worked at once", most)
	}
}

// Work that fails gives the lease back, so that another replica may try, and is tried again.
func TestWorkThatFailsIsTriedAgain(t *testing.T) {
	client := apiserver(t, (&leases{}).ServeHTTP)
	ctx, cancel := context.WithCancel(t.Context())
	failures, fine := 0, make(chan struct{})
	other := make(chan struct{}, 2) // the ends of the work beside it
	l := &leader{client: client, namespace: "outrider-system", name: leaseName, id: "a", log: quiet(), runs: map[string]func(context.Context) error{
		"fails": func(ctx context.Context) error {
			if failures++; failures == 1 {
				return errors.New("no route to host")
			}
			close(fine)
			<-ctx.Done()
			return nil
		},
		"beside it": func(ctx context.Context) error {
			<-ctx.Done()
			other <- struct{}{}
			return nil
		},
	}}
	ended := make(chan error, 1)
	go func() { ended <- l.run(ctx) }()
	<-other
	<-fine
	cancel()
	<-other
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
}
