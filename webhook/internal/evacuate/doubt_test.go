package evacuate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A pod whose notice did not come true is not believed again for hours: it would keep its node from all others. What was
// noted goes along with the node, as any replica may be asked.
func TestAFalseNoticeIsRemembered(t *testing.T) {
	tainted := func(source string) *corev1.Node {
		return node(func(n *corev1.Node) {
			n.Annotations = map[string]string{Taint: `{"release_at":"2026-04-07T12:00:00Z","provider_id":"cn-hangzhou.i-1","boot_id":"boot-1","source":"pod shop/db","pod_uid":"` + source + `"}`}
			n.Spec.Taints = []corev1.Taint{{Key: Taint, Value: "20260407T120000Z", Effect: corev1.TaintEffectNoSchedule}}
		})
	}
	over := noon.Add(afterwards)
	n := tainted("u1")
	notes := disproof(over, n)
	if doubted(over, n, "u1") || notes == "" {
		t.Fatalf("the note is %q", notes)
	}
	n.Annotations[Disproved] = notes
	for name, c := range map[string]struct {
		uid   types.UID
		after time.Duration
		want  bool
	}{
		"at once":             {"u1", 0, true},
		"hours later":         {"u1", distrust - time.Minute, true},
		"when it is over":     {"u1", distrust + time.Minute, false},
		"another pod":         {"u2", 0, false},
		"the node's own word": {"", 0, false},
	} {
		if got := doubted(over.Add(c.after), n, c.uid); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	second := tainted("u2")
	second.Annotations[Disproved] = notes
	second.Annotations[Disproved] = disproof(over, second)
	if !doubted(over, second, "u1") || !doubted(over, second, "u2") {
		t.Errorf("of two pods remains %s", second.Annotations[Disproved])
	}
	for name, n := range map[string]*corev1.Node{
		"the condition of the node": tainted(""),
		"a node that was released":  func() *corev1.Node { n := tainted("u1"); n.Spec.ProviderID = "cn-hangzhou.i-2"; return n }(),
		"a node that was restarted": func() *corev1.Node { n := tainted("u1"); n.Status.NodeInfo.BootID = "boot-2"; return n }(),
	} {
		if got := disproof(over, n); got != "" {
			t.Errorf("%s is held against a pod: %s", name, got)
		}
	}
	many := tainted("u0")
	for i := range 100 {
		many.Annotations[Taint] = strings.Replace(many.Annotations[Taint], fmt.Sprintf("u%d\"", i), fmt.Sprintf("u%d\"", i+1), 1)
		many.Annotations[Disproved] = disproof(over.Add(time.Duration(i)*time.Second), many)
	}
	if len(many.Annotations[Disproved]) > 2000 || !doubted(over.Add(100*time.Second), many, "u100") {
		t.Errorf("the note grows to %d bytes", len(many.Annotations[Disproved]))
	}
}
