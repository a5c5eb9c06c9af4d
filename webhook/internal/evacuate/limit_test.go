package evacuate

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A machine that takes the name of one that is gone can be tainted, whatever the other one had been through.
func TestTaintsAreLimitedByMachine(t *testing.T) {
	l, now := newLimits(), time.Now()
	node := func(uid types.UID) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "spot-1", UID: uid}}
	}
	for i := range nodeBurst {
		if !l.mayTaint(now, node("a")) {
			t.Errorf("taint %d of a machine is refused", i+1)
		}
	}
	if l.mayTaint(now, node("a")) {
		t.Errorf("a machine is tainted %d times at once", nodeBurst+1)
	}
	if !l.mayTaint(now, node("b")) {
		t.Error("another machine of that name is refused")
	}
}
