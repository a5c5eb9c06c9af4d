package kubectl

import (
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/inject"
)

var shop = place{
	name: "shop", labels: map[string]string{protectLabel: "enabled"},
	annotations: map[string]string{"outrider.dev/archive": "oss://backups/prod", "outrider.dev/credentials": "secret:outrider-oss"},
}

// server is a pod of a StatefulSet that runs PostgreSQL, without a sidecar.
func server(name string) *corev1.Pod {
	set, _, _ := strings.Cut(name, "-")
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Namespace: "shop", Labels: map[string]string{"app": set},
			OwnerReferences: []metav1.OwnerReference{{Kind: "StatefulSet", Name: set, Controller: new(true)}},
		},
		Spec:   corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "postgres", Image: "postgres:17"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
}

// guarded is a pod as the webhook makes it, with the statuses of the restore and of the sidecar.
func guarded(t *testing.T, name string, restore, sidecar corev1.ContainerState) *corev1.Pod {
	t.Helper()
	pod := injected(t, server(name))
	pod.Status.InitContainerStatuses = []corev1.ContainerStatus{
		{Name: inject.RestoreContainer, State: restore}, {Name: inject.SidecarContainer, State: sidecar},
	}
	return pod
}

// injected is what the webhook makes of a pod.
func injected(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	d, err := inject.Pod(pod, shop.input(configuration{}))
	if err != nil || d.Pod == nil {
		t.Fatalf("injecting: %v", err)
	}
	return d.Pod
}

func ended(code int32, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: message}}
}

var (
	running = corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}}
)

// one is the only database that is found.
func one(t *testing.T, where place, pod *corev1.Pod) Database {
	t.Helper()
	all := databases([]place{where}, []corev1.Pod{*pod}, configuration{})
	if len(all) != 1 {
		t.Fatalf("found %d databases, want 1: %+v", len(all), all)
	}
	return all[0]
}

func TestProgressOfProtectedPods(t *testing.T) {
	again := guarded(t, "orders-0", corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}}, waiting)
	again.Status.InitContainerStatuses[0].LastTerminationState = ended(4, "reading the archive\nthe store refuses: AccessDenied")
	crash := guarded(t, "orders-0", ended(0, ""), corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}})
	crash.Status.InitContainerStatuses[1].LastTerminationState = ended(2, "OSS_REGION is missing")
	unscheduled := guarded(t, "orders-0", waiting, waiting)
	unscheduled.Status.InitContainerStatuses = nil
	unscheduled.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "0/3 nodes are available"}}
	for name, test := range map[string]struct {
		pod           *corev1.Pod
		state, reason string
	}{
		"asked":         {guarded(t, "orders-0", ended(0, ""), running), "", ""},
		"restoring":     {guarded(t, "orders-0", running, waiting), StateRestoring, "logs orders-0 -c outrider-restore"},
		"restore fails": {again, StateRestoreFail, "exit code 4, Error: the store refuses: AccessDenied"},
		"sidecar fails": {crash, StateUnknown, "OSS_REGION is missing"},
		"image":         {guarded(t, "orders-0", waiting, waiting), StatePending, "PodInitializing"},
		"no node":       {unscheduled, StatePending, "0/3 nodes"},
	} {
		t.Run(name, func(t *testing.T) {
			d := one(t, shop, test.pod)
			if d.State != test.state || !strings.Contains(d.Reason, test.reason) {
				t.Errorf("state %q, reason %q; want %q, %q", d.State, d.Reason, test.state, test.reason)
			}
		})
	}
}

func TestWhatIsADatabase(t *testing.T) {
	plain := place{name: "shop"}
	hidden := place{name: "shop", trouble: errors.New("namespaces is forbidden")}
	web := server("web-0")
	web.Spec.Containers[0].Image = "nginx"
	asking := server("orders-0")
	asking.Annotations = map[string]string{protectLabel: "enabled"}
	out := server("orders-0")
	out.Annotations = map[string]string{protectLabel: "disabled"}
	strange, unclear, insisting := server("orders-0"), server("orders-0"), server("orders-0")
	strange.Spec.Containers[0].Image = "corp/postgres-custom:1"
	unclear.Spec.Containers[0].Command = []string{"sh", "-c", "python3 job.py"}
	insisting.Spec.Containers[0].Image, insisting.Annotations = "corp/postgres-custom:1", map[string]string{protectLabel: "enabled"}
	done := guarded(t, "orders-0", ended(0, ""), ended(0, ""))
	done.Status.Phase = corev1.PodSucceeded
	system := server("orders-0")
	system.Namespace = metav1.NamespaceSystem
	for name, test := range map[string]struct {
		where  place
		pod    *corev1.Pod
		reason string // "" for none
		state  string // if not unprotected
	}{
		"made before the label":       {where: shop, pod: server("orders-0"), reason: "delete the pod"},
		"no label, not asked for":     {where: plain, pod: server("orders-0")},
		"no label, asked for":         {where: plain, pod: asking, reason: "kubectl label namespace shop outrider.dev/protect=enabled"},
		"left alone":                  {where: shop, pod: out},
		"something else":              {where: shop, pod: web},
		"over":                        {where: shop, pod: done},
		"namespace not to be read":    {where: hidden, pod: server("orders-0"), reason: "is unknown: namespaces is forbidden"},
		"nothing of ours in there":    {where: hidden, pod: web},
		"the API server's namespaces": {where: place{name: metav1.NamespaceSystem, labels: shop.labels}, pod: system},
		"looks like one":              {where: shop, pod: strange, reason: "corp/postgres-custom:1) looks like PostgreSQL", state: StateSuspected},
		"its script may start one":    {where: shop, pod: unclear, reason: "whether its script starts PostgreSQL cannot be told", state: StateSuspected},
		"looks like one, and asks":    {where: shop, pod: insisting, reason: "it would be refused"},
		"looks like one, no label":    {where: plain, pod: strange},
		"looks like one, not read":    {where: hidden, pod: strange},
	} {
		t.Run(name, func(t *testing.T) {
			if test.reason == "" {
				if all := databases([]place{test.where}, []corev1.Pod{*test.pod}, configuration{}); len(all) != 0 {
					t.Errorf("found %+v, want nothing", all)
				}
				return
			}
			want := cmp.Or(test.state, StateUnprotected)
			if d := one(t, test.where, test.pod); d.State != want || !strings.Contains(d.Reason, test.reason) {
				t.Errorf("state %q, reason %q; want %q, %q", d.State, d.Reason, want, test.reason)
			}
		})
	}
	// A policy that the webhook would refuse does not hide the database.
	wrong := shop
	wrong.annotations = map[string]string{"outrider.dev/rpo": "soon"}
	if d := one(t, wrong, server("orders-0")); d.State != StateUnprotected || !strings.Contains(d.Reason, "outrider.dev/rpo") {
		t.Errorf("with a wrong policy: %+v", d)
	}
}

func TestWorkloads(t *testing.T) {
	set, bare, dep := server("orders-0"), server("orders-0"), server("orders-0")
	bare.OwnerReferences = nil
	dep.OwnerReferences = []metav1.OwnerReference{{Kind: "ReplicaSet", Name: "orders-5c7d", Controller: new(true)}}
	dep.Labels["pod-template-hash"] = "5c7d"
	for want, pod := range map[string]*corev1.Pod{"statefulset/orders": set, "": bare, "deployment/orders": dep} {
		if got := workload(pod); got != want {
			t.Errorf("the workload is %q, want %q", got, want)
		}
	}
}

func TestAnswersOfSidecars(t *testing.T) {
	r, err := parseReport([]byte(`{"state":"lagging","since":"2026-11-20T09:00:00Z","archive":"oss://b/p/shop/orders-0","epoch":7,"timeline":2,
		"unshipped_age_seconds":63.5,"trouble":"putting a chunk: timeout","recoverable_from":"2026-11-13T09:00:00Z","durable":"0/3000148",
		"last_snapshot":{"name":"base_1","start":"0/2000028","taken":"2026-11-20T08:00:00Z"},"notice":{"at":"2026-11-20T09:05:00Z"},"version":"v0.1.0",
		"restore_drills":{"last":{"format":1,"passed":false,"failure":"a flipped bit","verified_at":"2026-11-20T09:00:00Z"},"due":"2026-11-21T09:00:00Z"},
		"store":{"proven_at":"2026-11-20T08:00:00Z","versioning":"never","clock_ahead_seconds":-0.4},
		"slot":{"wal_status":"reserved","wal_level":"replica","max_replication_slots":10,"max_slot_wal_keep_size_bytes":-1,"idle_replication_slot_timeout_seconds":0,"read_at":"2026-11-20T09:00:00Z"}}`))
	if err != nil {
		t.Fatal(err)
	}
	d := one(t, shop, guarded(t, "orders-0", ended(0, ""), running))
	d.told(r, nil)
	if d.State != "lagging" || d.Reason != "putting a chunk: timeout" || r.Epoch != 7 || r.LastSnapshot == nil || r.Notice == nil {
		t.Errorf("%+v, %+v", d, r)
	}
	if !r.Drills.failed() || r.Store.Versioning != "never" || *r.Store.ClockAhead != -0.4 || r.Slot.MaxKeep != -1 || r.Slot.MaxSlots != 10 {
		t.Errorf("%+v, %+v, %+v", r.Drills, r.Store, r.Slot)
	}
	d.told(nil, errors.New("no route"))
	if d.State != StateUnknown || d.Reason != "no route" {
		t.Errorf("a sidecar that could not be asked is %q: %q", d.State, d.Reason)
	}
	for _, body := range []string{"", "<html>", "{}", `{"kind":"Status"}`} {
		if r, err := parseReport([]byte(body)); err == nil {
			t.Errorf("%q was read as %+v", body, r)
		}
	}
}

func TestTable(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *time.Time { v := now.Add(-d); return &v }
	all := []Database{
		{Namespace: "shop", Pod: "orders-0", Workload: "statefulset/orders", Node: "node-1", State: "protected", Sidecar: &Report{
			State: "protected", Since: at(50 * time.Hour), Archive: "oss://b/p/shop/orders-0", Epoch: 7, Timeline: 2, AgeSeconds: new(0.34),
			RecoverableFrom: at(7 * 24 * time.Hour), PredictedRestore: new(95.0), LastSnapshot: &Snapshot{Name: "base", Taken: now.Add(-10 * time.Minute)},
			Notice: &Notice{At: now}, Version: "v0.1.0", Drills: &Drills{Due: *at(-time.Hour), Passed: &Drill{Passed: true, VerifiedAt: *at(3 * time.Hour)}},
		}},
		{Namespace: "shop", Pod: "stock-0", State: "protected", Sidecar: &Report{
			State: "protected", Drills: &Drills{Due: *at(-time.Hour), Last: &Drill{VerifiedAt: *at(time.Hour), Failure: "a flipped\nbit"}},
		}},
		{Namespace: "shop", Pod: "till-0", State: "protected", Sidecar: &Report{State: "protected", Drills: &Drills{Due: *at(time.Hour)}}},
		{Namespace: "shop", Pod: "users-0", State: StateUnknown, Reason: "no route\nat all", Ending: true},
	}
	var narrow, wide strings.Builder
	if err := Table(&narrow, all, now, false, false); err != nil {
		t.Fatal(err)
	}
	const want = `POD        WORKLOAD             STATE                     SINCE   WAL-AGE   SNAPSHOT   WINDOW   EPOCH
orders-0   statefulset/orders   protected,notice          2d2h    0.3s      10m        7d       7
stock-0    -                    protected,drill_failed    -       -         -          -        -
till-0     -                    protected,drill_overdue   -       -         -          -        -
users-0    -                    unknown,ending            -       -         -          -        -

shop/stock-0: drill: the last restore drill, at 2026-11-20T09:00:00Z, was not passed: a flipped; bit
shop/till-0: drill: a restore drill was due at 2026-11-20T09:00:00Z and none has been passed
shop/users-0: unknown: no route; at all
`
	if narrow.String() != want {
		t.Errorf("got\n%s\nwant\n%s", narrow.String(), want)
	}
	if err := Table(&wide, all, now, true, true); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"NAMESPACE   POD", "DRILL", "~1m35s    3h ", "failed ", "overdue ", "node-1", "oss://b/p/shop/orders-0", "v0.1.0"} {
		if !strings.Contains(wide.String(), text) {
			t.Errorf("the wide table has no %q:\n%s", text, wide.String())
		}
	}
}

// TestHints: where the sidecar does not run, what to do instead is said, with the root of the very database.
func TestHints(t *testing.T) {
	const asks = "outrider why --archive oss://backups/prod/shop/orders-0"
	for name, test := range map[string]struct {
		pod     *corev1.Pod
		command string
		has     []string
		hasNot  string
	}{
		"it runs":        {guarded(t, "orders-0", ended(0, ""), running), "why", nil, "ask"},
		"it is restored": {guarded(t, "orders-0", running, waiting), "why", []string{"pod shop/orders-0", "it is restoring", "logs orders-0 -c outrider-restore", "ask again when it runs", asks}, ""},
		"it waits":       {guarded(t, "orders-0", waiting, waiting), "why", []string{"it is pending", asks}, ""},
		"a backup":       {guarded(t, "orders-0", running, waiting), "backup", []string{"ask again when it runs"}, "--archive"},
	} {
		hint := one(t, shop, test.pod).Hint(test.command)
		for _, text := range test.has {
			if !strings.Contains(hint, text) {
				t.Errorf("%s: the hint lacks %q: %s", name, text, hint)
			}
		}
		if test.hasNot != "" && strings.Contains(hint, test.hasNot) {
			t.Errorf("%s: the hint says %q: %s", name, test.hasNot, hint)
		}
	}
}
