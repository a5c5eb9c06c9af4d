package live_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/evacuate"
)

func (w *world) serve(e *evacuate.Evacuator) string {
	s := httptest.NewServer(e.Handler())
	w.t.Cleanup(s.Close)
	return s.URL + evacuate.Path
}

// lead runs what the leader does until the test ends.
func (w *world) lead(cfg evacuate.Config) {
	w.t.Helper()
	e, _ := w.evacuator(cfg)
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

// round runs the leader until it has seen to all nodes once.
func (w *world) round(cfg evacuate.Config) {
	w.t.Helper()
	reg := prometheus.NewRegistry()
	e, _ := w.evacuatorOf(evacuate.Options{Config: cfg, Registerer: reg})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	counted := func() bool {
		n, err := testutil.GatherAndCount(reg, "outrider_evacuation_reclaimed_nodes")
		must(w.t, err)
		return n == 1
	}
	w.wait("a round", counted)
	cancel()
	must(w.t, <-done)
	if counted() {
		w.t.Error("who does not lead any more still counts nodes")
	}
}

func (w *world) stops(p *corev1.Pod) {
	w.t.Helper()
	w.wait(p.Name+" to stop", func() bool { _, ok := w.stopping(p); return ok })
}

func (w *world) stays(p *corev1.Pod) {
	w.t.Helper()
	if got := w.read(p); got == nil || got.DeletionTimestamp != nil {
		w.t.Errorf("%s/%s was moved", p.Namespace, p.Name)
	}
}

func testCondition(w *world) {
	ns := w.protected("condition")
	w.namespace("condition-open", nil)
	node := w.node("condition-1", func(n *corev1.Node) { n.Labels = nil }) // the condition is enough
	elsewhere := w.node("condition-2", nil)
	db, single := w.pod(ns, "db", node, nil), w.pod(ns, "single", node, bare)
	others := []*corev1.Pod{
		single, w.pod(ns, "plain", node, ordinary), w.pod(ns, "elsewhere", elsewhere, nil), w.pod("condition-open", "db", node, nil),
	}
	w.lead(evacuate.Config{})
	w.condition(node, "InstanceExpired", corev1.ConditionTrue)
	w.stops(db)
	if grace, _ := w.stopping(db); grace != 40 {
		w.t.Errorf("it has %d s", grace)
	}
	w.wait("the taint", func() bool { return w.taint(node) != "" })
	for _, p := range others {
		w.stays(p)
	}
	// One that comes later goes as well.
	late := w.pod(ns, "late", node, nil)
	w.stops(late)
	if w.taint(elsewhere) != "" {
		w.t.Error("another node was tainted")
	}
}

// reclaimed puts the taint on a node as it was put there some time ago.
func (w *world) reclaimed(node string, release time.Time) {
	w.t.Helper()
	release = release.UTC().Truncate(time.Second)
	note, err := json.Marshal(map[string]any{"release_at": release, "provider_id": "cn-hangzhou.i-" + node, "boot_id": "boot-1", "source": "test"})
	must(w.t, err)
	w.taints(node, string(note), corev1.Taint{Key: evacuate.Taint, Value: release.Format(evacuate.ValueForm), Effect: corev1.TaintEffectNoSchedule})
}

func (w *world) taints(node, note string, added ...corev1.Taint) {
	w.t.Helper()
	w.wait("the taint to be written", func() bool {
		n, err := w.admin.CoreV1().Nodes().Get(w.t.Context(), node, metav1.GetOptions{})
		must(w.t, err)
		if note != "" {
			metav1.SetMetaDataAnnotation(&n.ObjectMeta, evacuate.Taint, note)
		}
		for _, t := range added {
			// The node's controller may have been here before.
			if !slices.ContainsFunc(n.Spec.Taints, func(has corev1.Taint) bool { return has.MatchTaint(&t) }) {
				n.Spec.Taints = append(n.Spec.Taints, t)
			}
		}
		_, err = w.admin.CoreV1().Nodes().Update(w.t.Context(), n, metav1.UpdateOptions{})
		return err == nil
	})
}

func testLifted(w *world) {
	alive, young, other := w.node("lifted-1", nil), w.node("lifted-2", nil), w.node("lifted-3", func(n *corev1.Node) { n.Spec.ProviderID = "cn-hangzhou.i-new" })
	own := corev1.Taint{Key: "pool", Value: "spot", Effect: corev1.TaintEffectNoExecute}
	w.taints(alive, "", own)
	w.reclaimed(alive, time.Now().Add(-16*time.Minute))
	w.reclaimed(young, time.Now().Add(-10*time.Minute))
	w.reclaimed(other, time.Now().Add(3*time.Minute))
	w.lead(evacuate.Config{})
	w.wait("two taints to go", func() bool {
		// A node that nobody renews is unknown to its controller after a while.
		w.condition(alive, corev1.NodeReady, corev1.ConditionTrue)
		w.condition(other, corev1.NodeReady, corev1.ConditionTrue)
		return w.taint(alive) == "" && w.taint(other) == ""
	})
	if w.taint(young) == "" {
		w.t.Error("a taint went after 10 minutes")
	}
	n, err := w.admin.CoreV1().Nodes().Get(w.t.Context(), alive, metav1.GetOptions{})
	must(w.t, err)
	kept := false
	for _, t := range n.Spec.Taints {
		kept = kept || t.Key == own.Key
	}
	if _, left := n.Annotations[evacuate.Taint]; left || !kept {
		w.t.Errorf("the node is left with annotations %v and taints %v", n.Annotations, n.Spec.Taints)
	}
	w.wait("an event", func() bool { return w.told("default", "NodeKept", alive) })
}

// testFalseNotice: a pod that nobody makes anew stays, and could have its node tainted again as soon as the taint is lifted.
func testFalseNotice(w *world) {
	ns, name := w.protected("false"), w.node("false-1", nil)
	p := w.pod(ns, "db", name, bare)
	other := w.pod(ns, "other", name, bare)
	_, url := w.evacuator(evacuate.Config{})
	c := call{url: url, token: w.token(ns, p, audience), body: releaseIn(time.Minute)}
	if a := w.wants(c, http.StatusOK, evacuate.PreparedOnly); !a.Tainted {
		w.t.Fatalf("the answer is %+v", a)
	}
	// Time goes by: the notice is moved into the past, taint and annotation alike.
	past := time.Now().Add(-20 * time.Minute).UTC().Truncate(time.Second)
	n, err := w.admin.CoreV1().Nodes().Get(w.t.Context(), name, metav1.GetOptions{})
	must(w.t, err)
	var note map[string]any
	must(w.t, json.Unmarshal([]byte(n.Annotations[evacuate.Taint]), &note))
	note["release_at"] = past
	raw, err := json.Marshal(note)
	must(w.t, err)
	n.Annotations[evacuate.Taint] = string(raw)
	for i := range n.Spec.Taints {
		if n.Spec.Taints[i].Key == evacuate.Taint {
			n.Spec.Taints[i].Value = past.Format(evacuate.ValueForm)
		}
	}
	_, err = w.admin.CoreV1().Nodes().Update(w.t.Context(), n, metav1.UpdateOptions{})
	must(w.t, err)
	w.lead(evacuate.Config{})
	w.wait("the taint to go", func() bool {
		w.condition(name, corev1.NodeReady, corev1.ConditionTrue)
		return w.taint(name) == ""
	})
	_, url = w.evacuator(evacuate.Config{}) // another replica
	c.url, c.body = url, releaseIn(time.Minute)
	if a := w.wants(c, http.StatusOK, evacuate.PreparedOnly); a.Tainted || w.taint(name) != "" {
		w.t.Errorf("the same pod has its node tainted again: %+v, %s", a, w.taint(name))
	}
	c.token = w.token(ns, other, audience)
	if a := w.wants(c, http.StatusOK, evacuate.PreparedOnly); !a.Tainted || w.taint(name) == "" {
		w.t.Errorf("another pod is not believed: %+v", a)
	}
}

func testDrain(w *world) {
	ns := w.protected("drain")
	w.namespace("drain-open", nil)
	node, kept := w.node("drain-1", nil), w.node("drain-2", func(n *corev1.Node) { n.Labels = nil })
	db, web, single := w.pod(ns, "db", node, nil), w.pod("drain-open", "web", node, scratch), w.pod("drain-open", "single", node, func(p *corev1.Pod) { ordinary(p); bare(p) })
	steady := w.pod("drain-open", "steady", kept, ordinary)
	w.reclaimed(kept, time.Now().Add(3*time.Minute)) // by whoever: it is no spot node
	w.lead(evacuate.Config{Drain: evacuate.DrainNode})
	w.condition(node, "InstanceExpired", corev1.ConditionTrue)
	w.stops(db)
	w.stops(web)
	w.stays(single)
	w.stays(steady)
}

// scratch is an ordinary pod with data that dies with it.
func scratch(p *corev1.Pod) {
	ordinary(p)
	p.Spec.Volumes = []corev1.Volume{{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
}

func testReplace(w *world) {
	ns, node := w.protected("replace"), w.node("replace-1", nil)
	db, single := w.pod(ns, "db", node, nil), w.pod(ns, "single", node, bare)
	disk := w.pod(ns, "disk", node, func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	})
	w.reclaimed(node, time.Now().Add(-time.Minute))
	w.condition(node, corev1.NodeReady, corev1.ConditionUnknown)
	w.taints(node, "", corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule})
	w.round(evacuate.Config{})
	w.stays(db)
	w.lead(evacuate.Config{FastReplace: true})
	w.wait("the pod to be given up", func() bool { return w.read(db) == nil })
	w.stays(single)
	w.stays(disk)
	w.wait("an event", func() bool { return w.told(ns, "Replaced", "db") })
}
