package report

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Tokens as they look; which of them is whose, only the API server knows.
var good, unbound, others = jwt("good"), jwt("unbound"), jwt("others")

func jwt(subject string) string {
	part := base64.RawURLEncoding.EncodeToString
	return part([]byte(`{"alg":"ES256"}`)) + "." + part([]byte(`{"aud":["outrider.dev"],"exp":4102444800,"sub":"`+subject+`"}`)) + ".c2lnbmF0dXJl"
}

// api plays the API server: it knows the token of one pod, db-0 with uid u1 of the namespace shop, and of a Deployment.
type api struct {
	mu      sync.Mutex
	uid     string // of the pod that is there now
	label   string
	broken  bool
	reviews int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch r.URL.Path {
	case "/apis/authentication.k8s.io/v1/tokenreviews":
		a.reviews++
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || a.broken {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		user := `"username":"system:serviceaccount:shop:default"`
		switch review.Spec.Token {
		case good:
			user += `,"extra":{"authentication.kubernetes.io/pod-name":["db-0"],"authentication.kubernetes.io/pod-uid":["u1"]}`
		case unbound:
		default:
			fmt.Fprint(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":false}}`)
			return
		}
		fmt.Fprintf(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true,"audiences":["outrider.dev"],"user":{%s}}}`, user)
	case "/api/v1/namespaces/shop":
		fmt.Fprintf(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"shop","labels":{"outrider.dev/protect":%q}}}`, a.label)
	case "/api/v1/namespaces/shop/pods/db-0":
		fmt.Fprintf(w, `{"kind":"Pod","apiVersion":"v1","metadata":{"name":"db-0","namespace":"shop","uid":%q,"resourceVersion":"7",
			"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"db-5f","uid":"u2","controller":true}]},
			"spec":{"initContainers":[{"name":"outrider-restore"},{"name":"outrider"}]}}`, a.uid)
	case "/apis/apps/v1/namespaces/shop/replicasets/db-5f":
		fmt.Fprint(w, `{"kind":"ReplicaSet","apiVersion":"apps/v1","metadata":{"name":"db-5f","namespace":"shop","uid":"u2",
			"ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":"db","uid":"u3","controller":true}]}}`)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// written are Events.
type written struct {
	mu  sync.Mutex
	all []string
}

func (w *written) Eventf(regarding, related runtime.Object, kind, reason, action, note string, args ...any) { //nolint:revive // the recorder's own arguments
	w.mu.Lock()
	defer w.mu.Unlock()
	name := func(o runtime.Object) string {
		switch o := o.(type) {
		case *corev1.ObjectReference:
			return fmt.Sprintf("%s %s/%s %s%s", o.Kind, o.Namespace, o.Name, o.UID, o.ResourceVersion)
		case *corev1.Pod:
			return "the pod " + o.Name
		default:
			return "nothing"
		}
	}
	w.all = append(w.all, fmt.Sprintf("%s (%s): %s %s %s: %s", name(regarding), name(related), kind, reason, action, fmt.Sprintf(note, args...)))
}

func newHandler(t *testing.T) (*api, *written, *prometheus.Registry, func(token, body string) (int, Answer)) {
	t.Helper()
	a, events, reg := &api{uid: "u1", label: "enabled"}, &written{}, prometheus.NewRegistry()
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(Options{Client: client, Recorder: events, Registerer: reg})
	if err != nil {
		t.Fatal(err)
	}
	front := httptest.NewTLSServer(r.Handler())
	t.Cleanup(front.Close)
	return a, events, reg, func(token, body string) (int, Answer) {
		t.Helper()
		q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, front.URL+Path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			q.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := front.Client().Do(q)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		var answer Answer
		if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Message == "" || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("the answer is none: %v, %+v", err, answer)
		}
		return res.StatusCode, answer
	}
}

func TestAReportIsToldOfPodAndWorkload(t *testing.T) {
	_, events, _, send := newHandler(t)
	if status, a := send(good, `{"kind":"notice_withdrawn","pod":"other","namespace":"kube-system","uid":"x"}`); status != http.StatusOK || a.Outcome != Noted {
		t.Fatalf("%d %+v", status, a)
	}
	want := "Pod shop/db-0 u1 (nothing): Normal TerminationNoticeWithdrawn Report: the node is not released after all\n" +
		"Deployment shop/db u3 (Pod shop/db-0 u1): Normal TerminationNoticeWithdrawn Report: db-0: the node is not released after all"
	if got := strings.Join(events.all, "\n"); got != want {
		t.Errorf("the Events are\n%s\nwant\n%s", got, want)
	}
}

func TestWhoMayNotReport(t *testing.T) {
	const body = `{"kind":"protected"}`
	for name, c := range map[string]struct {
		change      func(*api)
		token, body string
		status      int
		outcome     Outcome
	}{
		"no token":             {body: body, status: 401, outcome: Unauthenticated},
		"nothing of a JWT":     {token: "a.b.c", body: body, status: 401, outcome: Unauthenticated},
		"no JWT":               {token: "abc", body: body, status: 401, outcome: Unauthenticated},
		"a token of others":    {token: others, body: body, status: 401, outcome: Unauthenticated},
		"a token of no pod":    {token: unbound, body: body, status: 403, outcome: NoPod},
		"a pod made anew":      {change: func(a *api) { a.uid = "u9" }, token: good, body: body, status: 403, outcome: NoPod},
		"a namespace not ours": {change: func(a *api) { a.label = "" }, token: good, body: body, status: 403, outcome: NotOurs},
		"no report":            {token: good, body: `{"kind":"Killing"}`, status: 400, outcome: BadRequest},
		"a broken API server":  {change: func(a *api) { a.broken = true }, token: good, body: body, status: 503, outcome: Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			a, events, _, send := newHandler(t)
			if c.change != nil {
				c.change(a)
			}
			if status, answer := send(c.token, c.body); status != c.status || answer.Outcome != c.outcome {
				t.Errorf("%d %+v, want %d %s", status, answer, c.status, c.outcome)
			}
			if len(events.all) > 0 {
				t.Errorf("there are Events: %q", events.all)
			}
		})
	}
}

func TestAPodThatRunsWild(t *testing.T) {
	a, events, reg, send := newHandler(t)
	for range podBurst {
		if status, answer := send(good, `{"kind":"protected"}`); status != http.StatusOK {
			t.Fatalf("%d %+v", status, answer)
		}
	}
	if status, answer := send(good, `{"kind":"protected"}`); status != http.StatusTooManyRequests || answer.Outcome != TooMany {
		t.Errorf("%d %+v", status, answer)
	}
	if len(events.all) != 2*podBurst {
		t.Errorf("%d Events", len(events.all))
	}
	before := a.reviews
	for range reviewsBurst + 50 {
		send(others, "")
	}
	if n := a.reviews - before; n > reviewsBurst+20 {
		t.Errorf("somebody without a token had the API server asked %d times", n)
	}
	before = a.reviews
	for range 20 {
		send("a.b.c", "")
	}
	if a.reviews != before {
		t.Errorf("the API server was asked %d times about what is no token", a.reviews-before)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	noted := 0.0
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == "Protected" && m.GetLabel()[1].GetValue() == string(Noted) {
			noted = m.GetCounter().GetValue()
		}
	}
	if noted != podBurst {
		t.Errorf("%v reports were counted", noted)
	}
}

// What the evacuation says of a pod, its workload says too; what it says of a node stays as it is.
func TestOwnersAreTold(t *testing.T) {
	server := httptest.NewServer(&api{})
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}})
	if err != nil {
		t.Fatal(err)
	}
	events := &written{}
	r := ToOwners(events, client, nil)
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.UID = "db-0", "shop", "u1"
	r.Eventf(pod, nil, "Normal", "Evacuated", "Evict", "with %d s", 30)
	pod.OwnerReferences = append(pod.OwnerReferences, metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "db", UID: "u3", Controller: new(true)})
	r.Eventf(pod, nil, "Normal", "Evacuated", "Evict", "with %d s", 30)
	r.Eventf(&corev1.Node{}, nil, "Normal", "NodeReclaimed", "Taint", "100 %%")
	want := []string{
		"the pod db-0 (nothing): Normal Evacuated Evict: with 30 s",
		"the pod db-0 (nothing): Normal Evacuated Evict: with 30 s",
		"StatefulSet shop/db u3 (Pod shop/db-0 u1): Normal Evacuated Evict: db-0: with 30 s",
		"nothing (nothing): Normal NodeReclaimed Taint: 100 %",
	}
	if got := strings.Join(events.all, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("the Events are\n%s", got)
	}
}
