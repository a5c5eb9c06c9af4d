package evacuate

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Disproved is the annotation of a node that names the pods whose notice about it did not come true, each with the time when
// that was seen. It lies with the node, because any replica may be asked next.
const Disproved = "outrider.dev/not-reclaimed"

// distrust is for how long a pod is not believed again. A pod that is moved away is another one then; one that stays, because
// nobody would make it anew, could keep its node from all others for ever.
const distrust = 6 * time.Hour

// mostDoubted bounds the annotation; the latest stay.
const mostDoubted = 20

// disproofs are the pods of the annotation that are still held to be wrong.
func disproofs(now time.Time, n *corev1.Node) map[types.UID]time.Time {
	all := map[types.UID]time.Time{}
	if json.Unmarshal([]byte(n.Annotations[Disproved]), &all) != nil {
		return map[types.UID]time.Time{} // nobody else may write it; whoever did told us nothing
	}
	maps.DeleteFunc(all, func(_ types.UID, at time.Time) bool { return now.After(at.Add(distrust)) })
	return all
}

// doubted tells whether a notice of a pod is not to be believed, because one before was wrong. "" is no pod.
func doubted(now time.Time, n *corev1.Node, pod types.UID) bool {
	_, wrong := disproofs(now, n)[pod]
	return wrong && pod != ""
}

// disproof is what the annotation becomes when the taint is lifted: with the pod that caused it, if the node simply lives on.
// "" is none.
func disproof(now time.Time, n *corev1.Node) string {
	all := disproofs(now, n)
	release, _, known := taintOf(n)
	r := recordOf(n, release)
	sameMachine := (r.ProviderID == "" || r.ProviderID == n.Spec.ProviderID) && (r.BootID == "" || r.BootID == n.Status.NodeInfo.BootID)
	if known && r.PodUID != "" && sameMachine && !now.Before(release.Add(afterwards)) {
		all[r.PodUID] = now.UTC().Truncate(time.Second)
	}
	if len(all) == 0 {
		return ""
	}
	latest := slices.SortedFunc(maps.Keys(all), func(a, b types.UID) int { return all[b].Compare(all[a]) })
	for _, uid := range latest[min(len(latest), mostDoubted):] {
		delete(all, uid)
	}
	raw, _ := json.Marshal(all) // names and times always encode
	return string(raw)
}
