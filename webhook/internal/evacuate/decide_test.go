package evacuate

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/webhook/internal/caller"
)

var noon = time.Date(2026, 4, 7, 12, 0, 0, 0, time.UTC)

// pod is one that may be evacuated; change makes it another.
func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "orders-0", UID: "11111111-1111-1111-1111-111111111111",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "orders", UID: "2", Controller: new(true)}},
		},
		Spec: corev1.PodSpec{
			NodeName: "spot-1", TerminationGracePeriodSeconds: new(int64(120)),
			InitContainers: []corev1.Container{{Name: "outrider-restore"}, {Name: "outrider"}},
			Containers:     []corev1.Container{{Name: "postgres"}},
		},
		Status: corev1.PodStatus{Phase: corev1.PodRunning},
	}
	if change != nil {
		change(p)
	}
	return p
}

func protectedNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"outrider.dev/protect": "enabled"}}}
}

func node(change func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "spot-1", Labels: map[string]string{"node.alibabacloud.com/spot-strategy": "SpotAsPriceGo"}},
		Spec:       corev1.NodeSpec{ProviderID: "cn-hangzhou.i-1"},
		Status: corev1.NodeStatus{
			NodeInfo:   corev1.NodeSystemInfo{BootID: "boot-1"},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}
	if change != nil {
		change(n)
	}
	return n
}

func condition(n *corev1.Node, t corev1.NodeConditionType, s corev1.ConditionStatus, since time.Time) {
	for i := range n.Status.Conditions {
		if c := &n.Status.Conditions[i]; c.Type == t {
			c.Status, c.LastTransitionTime = s, metav1.NewTime(since)
			return
		}
	}
	n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: t, Status: s, LastTransitionTime: metav1.NewTime(since)})
}

func outcomeOf(err error) Outcome {
	var r *refusal
	var m *caller.MalformedError
	switch {
	case errors.As(err, &r):
		return r.outcome
	case errors.As(err, &m):
		return BadRequest
	}
	return ""
}

func TestOnlyProtectedPodsAreMoved(t *testing.T) {
	for name, c := range map[string]struct {
		pod       func(*corev1.Pod)
		namespace func(*corev1.Namespace)
		want      Outcome
		text      string
	}{
		"protected":       {},
		"namespace label": {namespace: func(n *corev1.Namespace) { n.Labels = nil }, want: NotProtected, text: "namespace shop is not protected"},
		"label disabled":  {namespace: func(n *corev1.Namespace) { n.Labels["outrider.dev/protect"] = "disabled" }, want: NotProtected, text: "outrider.dev/protect=enabled"},
		"no sidecar":      {pod: func(p *corev1.Pod) { p.Spec.InitContainers = p.Spec.InitContainers[:1] }, want: NotProtected, text: "outrider"},
		"only an annotation": {pod: func(p *corev1.Pod) {
			p.Spec.InitContainers, p.Annotations = nil, map[string]string{"outrider.dev/status": "{}"}
		}, want: NotProtected},
		"sidecar's name on an ordinary container": {pod: func(p *corev1.Pod) {
			p.Spec.Containers, p.Spec.InitContainers = append(p.Spec.Containers, p.Spec.InitContainers...), nil
		}, want: NotProtected},
		"mirror pod":        {pod: func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, want: NotProtected, text: "static"},
		"owned by its node": {pod: func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Node" }, want: NotProtected, text: "static"},
		"opted out":         {pod: func(p *corev1.Pod) { p.Annotations = map[string]string{"outrider.dev/protect": "disabled"} }, want: NotProtected, text: "opted out"},
		"of a Job":          {pod: func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "Job" }, want: NotProtected, text: "Jobs"},
		"failed":            {pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, want: Finished},
		"succeeded":         {pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }, want: Finished},
		"not on a node":     {pod: func(p *corev1.Pod) { p.Spec.NodeName = "" }, want: NotSpot},
	} {
		ns := protectedNamespace()
		if c.namespace != nil {
			c.namespace(ns)
		}
		err := checkPod(pod(c.pod), ns)
		if got := outcomeOf(err); got != c.want || err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %q, %v; want %q with %q", name, got, err, c.want, c.text)
		}
	}
}

func TestOnlySpotNodesAreReclaimed(t *testing.T) {
	byTaint := Config{SpotNodes: []NodeSelector{{Taint: "spot=true:NoSchedule"}, {Labels: "pool in (cheap)", Taint: "tidal"}}}
	spotTaint := func(n *corev1.Node) {
		n.Labels = nil
		n.Spec.Taints = []corev1.Taint{{Key: "spot", Value: "true", Effect: corev1.TaintEffectNoSchedule}}
	}
	for name, c := range map[string]struct {
		cfg  Config
		node func(*corev1.Node)
		want bool
	}{
		"ACK, at any price":      {want: true},
		"ACK, with a limit":      {node: func(n *corev1.Node) { n.Labels["node.alibabacloud.com/spot-strategy"] = "SpotWithPriceLimit" }, want: true},
		"ACK, on demand":         {node: func(n *corev1.Node) { n.Labels["node.alibabacloud.com/spot-strategy"] = "NoSpot" }},
		"Karpenter":              {node: func(n *corev1.Node) { n.Labels = map[string]string{"karpenter.sh/capacity-type": "spot"} }, want: true},
		"Karpenter, on demand":   {node: func(n *corev1.Node) { n.Labels = map[string]string{"karpenter.sh/capacity-type": "on-demand"} }},
		"no label":               {node: func(n *corev1.Node) { n.Labels = nil }},
		"none is configured":     {cfg: Config{SpotNodes: []NodeSelector{}}},
		"taint":                  {cfg: byTaint, node: spotTaint, want: true},
		"taint of another value": {cfg: byTaint, node: func(n *corev1.Node) { spotTaint(n); n.Spec.Taints[0].Value = "false" }},
		"taint, other effect":    {cfg: byTaint, node: func(n *corev1.Node) { spotTaint(n); n.Spec.Taints[0].Effect = corev1.TaintEffectNoExecute }},
		"half of a pair":         {cfg: byTaint, node: func(n *corev1.Node) { n.Labels = map[string]string{"pool": "cheap"} }},
		"both of a pair": {cfg: byTaint, node: func(n *corev1.Node) {
			n.Labels, n.Spec.Taints = map[string]string{"pool": "cheap"}, []corev1.Taint{{Key: "tidal", Value: "x", Effect: corev1.TaintEffectNoExecute}}
		}, want: true},
		"condition of a node in no pool": {cfg: Config{SpotNodes: []NodeSelector{}}, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionTrue, noon) }, want: true},
		"condition is false":             {cfg: Config{SpotNodes: []NodeSelector{}}, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionFalse, noon) }},
		"condition is unknown":           {cfg: Config{SpotNodes: []NodeSelector{}}, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionUnknown, noon) }},
	} {
		spot, err := c.cfg.compile()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		err = checkNode(node(c.node), spot)
		if got := err == nil; got != c.want || err != nil && outcomeOf(err) != NotSpot {
			t.Errorf("%s: %v; want %v", name, err, c.want)
		}
	}
}

func TestAnnouncedTimes(t *testing.T) {
	for after, want := range map[time.Duration]bool{
		5 * time.Minute: true, 0: true, -time.Minute: true, -14 * time.Minute: true, -16 * time.Minute: false,
		14 * time.Minute: true, 16 * time.Minute: false, 100 * 365 * 24 * time.Hour: false, -100 * 365 * 24 * time.Hour: false,
	} {
		err := checkTime(noon, noon.Add(after))
		if (err == nil) != want || err != nil && outcomeOf(err) != BadTime {
			t.Errorf("%v from now: %v", after, err)
		}
	}
}

func TestGraceIsWhatTheTimeLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		left  time.Duration
		own   int64
		want  int64
		force time.Duration // before the release
	}{
		"more than enough":             {left: 5 * time.Minute, own: 120, want: 120, force: 150 * time.Second},
		"less than the pod has":        {left: time.Minute, own: 120, want: 50, force: 150 * time.Second},
		"hardly any":                   {left: 12 * time.Second, own: 120, want: 15, force: 150 * time.Second},
		"over":                         {left: -10 * time.Minute, own: 120, want: 15, force: 150 * time.Second},
		"a pod that wants very little": {left: 2 * time.Second, own: 5, want: 5, force: 35 * time.Second},
		"never at once":                {left: time.Minute, own: 0, want: 1, force: 30 * time.Second},
	} {
		p := decide(noon, noon.Add(c.left), pod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &c.own }))
		want := plan{action: evict, grace: c.want, forceAt: noon.Add(c.left - c.force)}
		if p != want {
			t.Errorf("%s: %+v, want %+v", name, p, want)
		}
	}
	if p := decide(noon, noon.Add(5*time.Minute), pod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = nil })); p.grace != 30 {
		t.Errorf("a pod that names no grace period gets %d s", p.grace)
	}
}

func TestWhatIsNotEvicted(t *testing.T) {
	stopping := func(grace int64, at time.Time) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.NewTime(at)), &grace
		}
	}
	release := noon.Add(time.Minute)
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		want action
	}{
		"no controller":                     {func(p *corev1.Pod) { p.OwnerReferences = nil }, prepare},
		"an owner that is no controller":    {func(p *corev1.Pod) { p.OwnerReferences[0].Controller = nil }, prepare},
		"stops in time":                     {stopping(30, noon.Add(20*time.Second)), leave},
		"stops later than the node":         {stopping(600, noon.Add(9*time.Minute)), shorten},
		"bare, and stops later":             {func(p *corev1.Pod) { stopping(600, noon.Add(9*time.Minute))(p); p.OwnerReferences = nil }, shorten},
		"shortened as far as may be":        {stopping(15, noon.Add(58*time.Second)), leave},
		"evicted a moment ago, right grace": {stopping(50, noon.Add(50*time.Second)), leave},
	} {
		if p := decide(noon, release, pod(c.pod)); p.action != c.want {
			t.Errorf("%s: action %d, want %d", name, p.action, c.want)
		}
	}
}

// What is already done must stay done however often it is asked for.
func TestRepeatingShortensNoFurther(t *testing.T) {
	release := noon.Add(90 * time.Second)
	own := int64(120)
	p := pod(func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = &own })
	first := decide(noon, release, p)
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = new(metav1.NewTime(noon.Add(time.Duration(first.grace)*time.Second))), &first.grace
	for at := noon; at.Before(release.Add(time.Minute)); at = at.Add(5 * time.Second) {
		if again := decide(at, release, p); again.action != leave {
			t.Fatalf("%v later it is action %d with %d s", at.Sub(noon), again.action, again.grace)
		}
	}
}

func TestReplaceOnlyWhatCannotBeWrittenTwice(t *testing.T) {
	lost := func(n *corev1.Node) {
		condition(n, corev1.NodeReady, corev1.ConditionUnknown, noon)
		n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoExecute}}
	}
	volume := func(s corev1.VolumeSource) func(*corev1.Pod) {
		return func(p *corev1.Pod) { p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: s}} }
	}
	for name, c := range map[string]struct {
		pod  func(*corev1.Pod)
		node func(*corev1.Node)
		at   time.Duration // after the release
		want bool
	}{
		"lost":             {pod: volume(corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}), node: lost, at: time.Second, want: true},
		"projected":        {pod: volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{}}), node: lost, at: time.Second, want: true},
		"before its time":  {node: lost, at: -time.Second},
		"node answers":     {at: time.Hour},
		"node is unready":  {node: func(n *corev1.Node) { condition(n, corev1.NodeReady, corev1.ConditionFalse, noon) }, at: time.Hour},
		"claim":            {pod: volume(corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}), node: lost, at: time.Hour},
		"ephemeral claim":  {pod: volume(corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}), node: lost, at: time.Hour},
		"host path":        {pod: volume(corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}), node: lost, at: time.Hour},
		"CSI":              {pod: volume(corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{}}), node: lost, at: time.Hour},
		"NFS":              {pod: volume(corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}), node: lost, at: time.Hour},
		"nobody makes one": {pod: func(p *corev1.Pod) { p.OwnerReferences = nil }, node: lost, at: time.Hour},
	} {
		if got := replaceable(noon.Add(c.at), noon, pod(c.pod), node(c.node)); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestWhatThereIsToDoAboutANode(t *testing.T) {
	spot, err := Config{}.compile()
	if err != nil {
		t.Fatal(err)
	}
	tainted := func(at time.Time) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: Taint, Value: at.Format(ValueForm), Effect: corev1.TaintEffectNoSchedule}}
		}
	}
	both := Config{Drain: DrainNode, FastReplace: true}
	for name, c := range map[string]struct {
		cfg  Config
		node func(*corev1.Node)
		want tasks
	}{
		"nothing":             {cfg: both},
		"condition":           {node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionTrue, noon.Add(-time.Minute)) }, want: tasks{vacate: true, release: noon.Add(4 * time.Minute)}},
		"condition, drain":    {cfg: both, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionTrue, noon) }, want: tasks{vacate: true, drain: true, release: noon.Add(5 * time.Minute)}},
		"condition of long":   {node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionTrue, noon.Add(-time.Hour)) }, want: tasks{release: noon.Add(-55 * time.Minute)}},
		"condition is false":  {cfg: both, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionFalse, noon) }},
		"taint":               {node: tainted(noon.Add(time.Minute)), want: tasks{release: noon.Add(time.Minute)}},
		"taint, drain":        {cfg: both, node: tainted(noon.Add(time.Minute)), want: tasks{drain: true, release: noon.Add(time.Minute)}},
		"taint, no spot node": {cfg: both, node: func(n *corev1.Node) { tainted(noon.Add(time.Minute))(n); n.Labels = nil }, want: tasks{release: noon.Add(time.Minute)}},
		"taint of old":        {cfg: both, node: tainted(noon.Add(-16 * time.Minute)), want: tasks{lift: true, release: noon.Add(-16 * time.Minute)}},
		"taint, lost": {cfg: both, node: func(n *corev1.Node) {
			tainted(noon.Add(-time.Minute))(n)
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule})
			condition(n, corev1.NodeReady, corev1.ConditionUnknown, noon)
		}, want: tasks{replace: true, release: noon.Add(-time.Minute)}},
		"lost, but hours after it was to go": {cfg: both, node: func(n *corev1.Node) {
			condition(n, expired, corev1.ConditionTrue, noon.Add(-2*time.Hour))
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: corev1.TaintNodeUnreachable, Effect: corev1.TaintEffectNoSchedule})
			condition(n, corev1.NodeReady, corev1.ConditionUnknown, noon)
		}, want: tasks{release: noon.Add(-115 * time.Minute)}},
		"somebody else's value": {cfg: both, node: func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: Taint, Value: "by-hand", Effect: corev1.TaintEffectNoSchedule}}
		}},
	} {
		if got := tasksFor(noon, node(c.node), spot, c.cfg); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestTaintIsLiftedFromANodeThatLivesOn(t *testing.T) {
	const note = `{"release_at":"2026-04-07T12:00:00Z","provider_id":"cn-hangzhou.i-1","boot_id":"boot-1","source":"pod shop/orders-0"}`
	for name, c := range map[string]struct {
		node  func(*corev1.Node)
		after time.Duration
		want  bool
		why   string
	}{
		"too early":                  {after: 14 * time.Minute},
		"lives on":                   {after: 15 * time.Minute, want: true, why: "lives on"},
		"not ready":                  {after: time.Hour, node: func(n *corev1.Node) { condition(n, corev1.NodeReady, corev1.ConditionUnknown, noon) }},
		"still to expire":            {after: time.Hour, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionTrue, noon) }},
		"not to expire any more":     {after: time.Hour, node: func(n *corev1.Node) { condition(n, expired, corev1.ConditionFalse, noon) }, want: true},
		"another machine":            {after: -time.Minute, node: func(n *corev1.Node) { n.Spec.ProviderID = "cn-hangzhou.i-2" }, want: true, why: "another machine"},
		"another machine, not ready": {after: -time.Minute, node: func(n *corev1.Node) { n.Spec.ProviderID, n.Status.Conditions = "cn-hangzhou.i-2", nil }},
		"reboot before the release":  {after: -time.Minute, node: func(n *corev1.Node) { n.Status.NodeInfo.BootID = "boot-2" }},
		"stopped and started again":  {after: time.Minute, node: func(n *corev1.Node) { n.Status.NodeInfo.BootID = "boot-2" }, want: true, why: "started again"},
		"no annotation":              {after: 16 * time.Minute, node: func(n *corev1.Node) { n.Annotations, n.Spec.ProviderID = nil, "other" }, want: true},
		"annotation of another time": {after: time.Minute, node: func(n *corev1.Node) {
			n.Annotations[Taint], n.Spec.ProviderID = strings.Replace(note, "12:00", "11:00", 1), "other"
		}},
		"somebody else's value":  {after: time.Hour, node: func(n *corev1.Node) { n.Spec.Taints[0].Value = "maintenance" }},
		"somebody else's effect": {after: time.Hour, node: func(n *corev1.Node) { n.Spec.Taints[0].Effect = corev1.TaintEffectNoExecute }},
		"no taint":               {after: time.Hour, node: func(n *corev1.Node) { n.Spec.Taints = nil }},
	} {
		n := node(func(n *corev1.Node) {
			n.Annotations = map[string]string{Taint: note}
			n.Spec.Taints = []corev1.Taint{{Key: Taint, Value: "20260407T120000Z", Effect: corev1.TaintEffectNoSchedule}}
			if c.node != nil {
				c.node(n)
			}
		})
		why, lift := lifted(noon.Add(c.after), n)
		if lift != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v %q, want %v", name, lift, why, c.want)
		}
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	for text, c := range map[string]Config{
		"":              {URL: "https://outrider-webhook.outrider-system.svc/v1/evacuations", Drain: "node", SpotNodes: []NodeSelector{{Labels: "a=b", Taint: "k=v:NoExecute"}}},
		"https://":      {URL: "http://outrider-webhook.outrider-system.svc/v1/evacuations"},
		`drain "pods"`:  {Drain: "pods"},
		"spotNodes[1]":  {SpotNodes: []NodeSelector{{Labels: "a"}, {}}},
		"would match":   {SpotNodes: []NodeSelector{{}}},
		`labels "a in"`: {SpotNodes: []NodeSelector{{Labels: "a in"}}},
		`effect "Now"`:  {SpotNodes: []NodeSelector{{Taint: "a=b:Now"}}},
		"has no key":    {SpotNodes: []NodeSelector{{Taint: "=b"}}},
	} {
		err := c.Validate()
		if text == "" && err != nil || text != "" && (err == nil || !strings.Contains(err.Error(), text)) {
			t.Errorf("%+v: %v, want %q", c, err, text)
		}
	}
}
