package live_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"outrider.dev/webhook/internal/evacuate"
)

func TestEvacuation(t *testing.T) {
	w := newWorld(t)
	for name, test := range map[string]func(*world){
		"a pod is evicted, and no other":            testEvicted,
		"whoever may not ask changes nothing":       testRefused,
		"the deadline shortens the grace":           testDeadline,
		"a budget is respected while there is time": testBudget,
		"a pod with two budgets":                    testTwoBudgets,
		"a right that is missing":                   testNoEviction,
		"a pod that nobody makes anew stays":        testBare,
		"a node gets one notice":                    testOneNotice,
		"too many calls":                            testTooMany,
		"an API server that cannot be asked":        testUnknown,
		"the condition InstanceExpired":             testCondition,
		"a taint is lifted":                         testLifted,
		"a notice that did not come true":           testFalseNotice,
		"a whole node is drained":                   testDrain,
		"a pod of a lost node is replaced":          testReplace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(w.in(t))
		})
	}
}

func testEvicted(w *world) {
	ns, node := w.protected("evicted"), w.node("evicted-1", func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "pool", Value: "spot", Effect: corev1.TaintEffectNoSchedule}}
	})
	caller, other, plain := w.pod(ns, "db-0", node, nil), w.pod(ns, "db-1", node, nil), w.pod(ns, "web", node, ordinary)
	_, url := w.evacuator(evacuate.Config{})
	c := call{url: url, token: w.token(ns, caller, audience), body: releaseIn(5 * time.Minute)}
	a := w.wants(c, http.StatusOK, evacuate.Evicted)
	if a.Node != node || !a.Tainted || a.GraceSeconds != 40 {
		w.t.Errorf("the answer is %+v", a)
	}
	if grace, ok := w.stopping(caller); !ok || grace != 40 {
		w.t.Errorf("the caller stops: %v, in %d s", ok, grace)
	}
	for _, p := range []*corev1.Pod{other, plain} {
		if _, ok := w.stopping(p); ok {
			w.t.Errorf("%s was moved by a call of %s", p.Name, caller.Name)
		}
	}
	n, err := w.admin.CoreV1().Nodes().Get(w.t.Context(), node, metav1.GetOptions{})
	must(w.t, err)
	var note struct {
		ReleaseAt  time.Time `json:"release_at"`
		ProviderID string    `json:"provider_id"`
		BootID     string    `json:"boot_id"`
		Source     string    `json:"source"`
	}
	must(w.t, json.Unmarshal([]byte(n.Annotations["outrider.dev/reclaimed"]), &note))
	if want := note.ReleaseAt.Format("20060102T150405Z") + ":NoSchedule"; w.taint(node) != want || note.ProviderID != "cn-hangzhou.i-evicted-1" || note.BootID != "boot-1" || note.Source != "pod evicted/db-0" {
		w.t.Errorf("the taint is %s, the annotation %+v", w.taint(node), note)
	}
	if len(n.Spec.Taints) < 2 || n.Spec.Taints[0].Key != "pool" || n.Spec.Unschedulable {
		w.t.Errorf("the node's own taints: %v", n.Spec.Taints)
	}

	// Again and again, as the sidecar does, until the pod is gone and its token with it.
	before := w.shape(ns)
	for range 3 {
		w.wants(c, http.StatusOK, evacuate.Terminating)
	}
	if after := w.shape(ns); before != after {
		w.t.Errorf("repeating changed\n%sto\n%s", before, after)
	}
	w.wait("events on pod and node", func() bool { return w.told(ns, "Evacuated", "db-0") && w.told("default", "NodeReclaimed", node) })
	w.end(caller)
	w.wait("the end of the token", func() bool {
		status, a := c.do(w.t)
		return status == http.StatusUnauthorized && a.Outcome == evacuate.Unauthenticated
	})
	again := w.pod(ns, "db-0", w.node("evicted-2", nil), nil)
	w.wait("an answer to the old token", func() bool { // the wait before has asked more often than one address may
		status, a := c.do(w.t)
		return status == http.StatusUnauthorized && a.Outcome == evacuate.Unauthenticated
	})
	if _, ok := w.stopping(again); ok {
		w.t.Error("the token of a pod that is gone moved the one that took its name")
	}
}

// told tells whether there is an Event about an object.
func (w *world) told(namespace, reason, name string) bool {
	w.t.Helper()
	list, err := w.admin.EventsV1().Events(namespace).List(w.t.Context(), metav1.ListOptions{})
	must(w.t, err)
	for _, e := range list.Items {
		if e.Reason == reason && e.Regarding.Name == name && e.Note != "" {
			return true
		}
	}
	return false
}

func testRefused(w *world) {
	ns, node := w.protected("refused"), w.node("refused-1", nil)
	w.namespace("refused-open", nil)
	_, url := w.evacuator(evacuate.Config{})
	good := w.pod(ns, "db-0", node, nil)
	token := w.token(ns, good, audience)
	gone := w.pod(ns, "gone", node, nil)
	goneToken := w.token(ns, gone, audience)
	w.end(gone)
	w.wait("the pod's end", func() bool { return w.read(gone) == nil })
	release := releaseIn(5 * time.Minute)
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(w.t, err)
	onDemand := w.node("refused-2", func(n *corev1.Node) { n.Labels = nil })
	own := func(name, node string, change func(*corev1.Pod)) string {
		return w.token(ns, w.pod(ns, name, node, change), audience)
	}
	open := w.pod("refused-open", "db-0", node, nil)
	cases := map[string]struct {
		method, token, body string
		status              int
		outcome             evacuate.Outcome
	}{
		"no token":               {status: 401, outcome: evacuate.Unauthenticated},
		"no JWT":                 {token: "abc", status: 401, outcome: evacuate.Unauthenticated},
		"garbage":                {token: "a.b.c", status: 401, outcome: evacuate.Unauthenticated},
		"the API's audience":     {token: w.token(ns, good), status: 401, outcome: evacuate.Unauthenticated},
		"another audience":       {token: w.token(ns, good, "vault"), status: 401, outcome: evacuate.Unauthenticated},
		"expired":                {token: w.resigned(token, nil, expired), status: 401, outcome: evacuate.Unauthenticated},
		"another issuer's key":   {token: w.resigned(token, foreign, nil), status: 401, outcome: evacuate.Unauthenticated},
		"a pod that is gone":     {token: goneToken, status: 401, outcome: evacuate.Unauthenticated},
		"no pod":                 {token: w.token(ns, nil, audience), status: 403, outcome: evacuate.NoPod},
		"namespace not labelled": {token: w.token("refused-open", open, audience), status: 403, outcome: evacuate.NotProtected},
		"pod not injected":       {token: own("plain", node, ordinary), status: 403, outcome: evacuate.NotProtected},
		"only annotated": {token: own("annotated", node, func(p *corev1.Pod) {
			ordinary(p)
			p.Annotations = map[string]string{"outrider.dev/status": "{}", "outrider.dev/protect": "enabled"}
		}), status: 403, outcome: evacuate.NotProtected},
		"no spot node":    {token: own("steady", onDemand, nil), status: 403, outcome: evacuate.NotSpot},
		"no such node":    {token: own("nowhere", "nowhere", nil), status: 403, outcome: evacuate.NotSpot},
		"GET":             {method: http.MethodGet, token: token, status: 405, outcome: evacuate.BadRequest},
		"no body":         {token: token, body: "-", status: 400, outcome: evacuate.BadRequest},
		"long ago":        {token: token, body: `{"release_at":"2020-04-07T17:03:00Z"}`, status: 422, outcome: evacuate.BadTime},
		"far in the time": {token: token, body: `{"release_at":"2220-04-07T17:03:00Z"}`, status: 422, outcome: evacuate.BadTime},
	}
	before := w.shape("refused")
	for name, c := range cases {
		if c.body == "" {
			c.body = release
		}
		w.wants(call{url: url, method: c.method, token: c.token, body: c.body}, c.status, c.outcome)
		if after := w.shape("refused"); after != before {
			w.t.Errorf("%s changed\n%sto\n%s", name, before, after)
		}
	}
	// The same token does it when it is asked rightly.
	w.wants(call{url: url, token: token, body: release}, http.StatusOK, evacuate.Evicted)
}

// resigned is a token with other claims, signed by a key; nil for the API server's own.
func (w *world) resigned(token string, key *ecdsa.PrivateKey, change func(claims map[string]any)) string {
	w.t.Helper()
	if key == nil {
		block, _ := pem.Decode(w.signingKey())
		parsed, err := x509.ParseECPrivateKey(block.Bytes)
		if err != nil {
			other, perr := x509.ParsePKCS8PrivateKey(block.Bytes)
			must(w.t, perr)
			parsed = other.(*ecdsa.PrivateKey)
		}
		key = parsed
	}
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	must(w.t, err)
	claims := map[string]any{}
	must(w.t, json.Unmarshal(raw, &claims))
	if change != nil {
		change(claims)
	}
	raw, err = json.Marshal(claims)
	must(w.t, err)
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(raw)
	hash := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, hash[:])
	must(w.t, err)
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func expired(claims map[string]any) {
	past := time.Now().Add(-time.Hour).Unix()
	claims["exp"], claims["iat"], claims["nbf"] = past, past-600, past-600
}

func testDeadline(w *world) {
	ns, node := w.protected("deadline"), w.node("deadline-1", nil)
	_, url := w.evacuator(evacuate.Config{})
	// That a token signed here is believed proves that the expired one was refused for its time.
	long := w.pod(ns, "long", node, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(600)) })
	token := w.resigned(w.token(ns, long, audience), nil, func(map[string]any) {})
	w.wants(call{url: url, token: token, body: releaseIn(time.Minute)}, http.StatusOK, evacuate.Evicted)
	if grace, ok := w.stopping(long); !ok || grace > 50 || grace < 40 {
		w.t.Errorf("a minute before the release it stops: %v, in %d s", ok, grace)
	}
	// Somebody has asked for more time than there is by now.
	slow := w.pod(ns, "slow", node, func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(600)) })
	must(w.t, w.admin.CoreV1().Pods(ns).Delete(w.t.Context(), slow.Name, metav1.DeleteOptions{}))
	c := call{url: url, token: w.token(ns, slow, audience), body: releaseIn(time.Minute)}
	w.wants(c, http.StatusOK, evacuate.Terminating)
	if grace, ok := w.stopping(slow); !ok || grace > 50 || grace < 40 {
		w.t.Errorf("it stops: %v, in %d s", ok, grace)
	}
	late := w.pod(ns, "late", node, nil)
	w.wants(call{url: url, token: w.token(ns, late, audience), body: releaseIn(-time.Minute)}, http.StatusOK, evacuate.Evicted)
	if grace, ok := w.stopping(late); !ok || grace != 15 {
		w.t.Errorf("after the release it stops: %v, in %d s", ok, grace)
	}
}

// budget keeps a pod that runs where it is. One that is pending would be evicted whatever a budget says.
func (w *world) budget(namespace, name, pod string) {
	w.t.Helper()
	_, err := w.admin.CoreV1().Pods(namespace).Patch(w.t.Context(), pod, types.StrategicMergePatchType,
		[]byte(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status")
	must(w.t, err)
	_, err = w.admin.PolicyV1().PodDisruptionBudgets(namespace).Create(w.t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: new(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"name": pod}}},
	}, metav1.CreateOptions{})
	must(w.t, err)
	w.wait("the budget to be counted", func() bool {
		b, err := w.admin.PolicyV1().PodDisruptionBudgets(namespace).Get(w.t.Context(), name, metav1.GetOptions{})
		return err == nil && b.Status.ObservedGeneration == b.Generation && b.Status.CurrentHealthy == 1
	})
}

func testBudget(w *world) {
	ns, node := w.protected("budget"), w.node("budget-1", nil)
	p := w.pod(ns, "db-0", node, nil)
	w.budget(ns, "one", "db-0")
	_, url := w.evacuator(evacuate.Config{})
	token := w.token(ns, p, audience)
	for range 2 {
		a := w.wants(call{url: url, token: token, body: releaseIn(5 * time.Minute)}, http.StatusAccepted, evacuate.Waiting)
		// 5 min less 40 s of grace and 30 s of patience.
		if left := time.Until(*a.ForcedAt); left > 231*time.Second || left < 200*time.Second || !strings.Contains(a.Message, "disruption budget") || !a.Tainted {
			w.t.Errorf("the answer is %+v, %v", a, left)
		}
	}
	if _, ok := w.stopping(p); ok {
		w.t.Error("the budget was overruled while there was time")
	}
	w.wait("an event", func() bool { return w.told(ns, "EvacuationWaits", "db-0") })
	a := w.wants(call{url: url, token: token, body: releaseIn(69 * time.Second)}, http.StatusOK, evacuate.Deleted)
	if grace, ok := w.stopping(p); !ok || grace != 40 || a.GraceSeconds != 40 {
		w.t.Errorf("it stops: %v, in %d s; %+v", ok, grace, a)
	}
}

func testTwoBudgets(w *world) {
	ns, node := w.protected("budgets"), w.node("budgets-1", nil)
	p := w.pod(ns, "db-0", node, nil)
	w.budget(ns, "one", "db-0")
	w.budget(ns, "two", "db-0")
	_, url := w.evacuator(evacuate.Config{})
	token := w.token(ns, p, audience)
	a := w.wants(call{url: url, token: token, body: releaseIn(5 * time.Minute)}, http.StatusAccepted, evacuate.Waiting)
	if !strings.Contains(a.Message, "more than one") {
		w.t.Errorf("the answer is %+v", a)
	}
	w.wants(call{url: url, token: token, body: releaseIn(time.Minute)}, http.StatusOK, evacuate.Deleted)
}

// testNoEviction: somebody has put rights together by hand. That is no disruption budget, and whoever looks for one finds none.
func testNoEviction(w *world) {
	ns, node := w.protected("rights"), w.node("rights-1", nil)
	p := w.pod(ns, "db-0", node, nil)
	roles := w.admin.RbacV1().ClusterRoles()
	role, err := roles.Get(w.t.Context(), "outrider-evacuation", metav1.GetOptions{})
	must(w.t, err)
	without := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "no-eviction"}}
	for _, r := range role.Rules {
		if !slices.Contains(r.Resources, "pods/eviction") {
			without.Rules = append(without.Rules, r)
		}
	}
	_, err = roles.Create(w.t.Context(), without, metav1.CreateOptions{})
	must(w.t, err)
	_, err = w.admin.RbacV1().ClusterRoleBindings().Create(w.t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "no-eviction"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "no-eviction"},
		Subjects: []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: "no-eviction"}},
	}, metav1.CreateOptions{})
	must(w.t, err)
	w.rights = w.cluster.Config()
	w.rights.Impersonate = rest.ImpersonationConfig{UserName: "no-eviction"}
	_, url := w.evacuator(evacuate.Config{})
	c := call{url: url, token: w.token(ns, p, audience), body: releaseIn(5 * time.Minute)}
	w.wait("the rights to be known", func() bool {
		status, _ := c.do(w.t)
		return status == http.StatusAccepted
	})
	a := w.wants(c, http.StatusAccepted, evacuate.Waiting)
	if !strings.Contains(a.Message, "create pods/eviction") || !strings.Contains(a.Message, "manifests/base") {
		w.t.Errorf("the answer is %+v", a)
	}
	w.wait("an event", func() bool { return w.told(ns, "EvacuationForbidden", "db-0") })
	if w.told(ns, "EvacuationWaits", "db-0") {
		w.t.Error("an Event speaks of a disruption budget")
	}
	c.body = releaseIn(time.Minute)
	w.wants(c, http.StatusOK, evacuate.Deleted)
}

func testBare(w *world) {
	ns, node := w.protected("bare"), w.node("bare-1", nil)
	p := w.pod(ns, "db", node, bare)
	_, url := w.evacuator(evacuate.Config{})
	a := w.wants(call{url: url, token: w.token(ns, p, audience), body: releaseIn(time.Minute)}, http.StatusOK, evacuate.PreparedOnly)
	if _, ok := w.stopping(p); ok || !a.Tainted || w.taint(node) == "" {
		w.t.Errorf("it stops: %v; taint %q; %+v", ok, w.taint(node), a)
	}
}

func testOneNotice(w *world) {
	ns, node := w.protected("notice"), w.node("notice-1", nil)
	p := w.pod(ns, "db", node, bare)
	_, url := w.evacuator(evacuate.Config{})
	token := w.token(ns, p, audience)
	w.wants(call{url: url, token: token, body: releaseIn(5 * time.Minute)}, http.StatusOK, evacuate.PreparedOnly)
	first := w.taint(node)
	w.wants(call{url: url, token: token, body: releaseIn(10 * time.Minute)}, http.StatusOK, evacuate.PreparedOnly)
	if again := w.taint(node); again != first || first == "" {
		w.t.Errorf("the taint went from %q to %q", first, again)
	}
}

func testTooMany(w *world) {
	ns, node := w.protected("many"), w.node("many-1", nil)
	p, other := w.pod(ns, "db", node, bare), w.pod(ns, "other", node, bare)
	_, url := w.evacuator(evacuate.Config{})
	c := call{url: url, token: w.token(ns, p, audience), body: releaseIn(time.Minute)}
	w.wait("an end of patience", func() bool {
		status, a := c.do(w.t)
		return status == http.StatusTooManyRequests && a.Outcome == evacuate.TooMany
	})
	c.token = w.token(ns, other, audience)
	w.wants(c, http.StatusOK, evacuate.PreparedOnly)
}

func testUnknown(w *world) {
	ns, node := w.protected("unknown"), w.node("unknown-1", nil)
	p := w.pod(ns, "db", node, nil)
	token := w.token(ns, p, audience)
	for name, cfg := range map[string]*rest.Config{
		"nobody listens": {Host: "https://127.0.0.1:1"},
		// A webhook whose rights were taken away.
		"no rights": func() *rest.Config {
			c := w.cluster.Config()
			c.Impersonate = rest.ImpersonationConfig{UserName: "nobody"}
			return c
		}(),
	} {
		client, err := kubernetes.NewForConfig(cfg)
		must(w.t, err)
		e, err := evacuate.New(evacuate.Options{Client: client})
		must(w.t, err)
		s := w.serve(e)
		a := w.wants(call{url: s, token: token, body: releaseIn(time.Minute)}, http.StatusServiceUnavailable, evacuate.Unknown)
		if strings.Contains(a.Message, "127.0.0.1") {
			w.t.Errorf("%s: the answer tells too much: %s", name, a.Message)
		}
	}
	if _, ok := w.stopping(p); ok || w.taint(node) != "" {
		w.t.Error("something was changed")
	}
}
