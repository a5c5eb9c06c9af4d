package admission

import (
	"testing"
)

// TestInstalled is the example of the README: an ordinary StatefulSet in a labelled namespace.
func TestInstalled(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, database(ns, "db"))
	if pod := w.ready(t, ns, "db-0"); !isProtected(pod) {
		t.Errorf("the pod has the init containers %+v", pod.Spec.InitContainers)
	}
}
