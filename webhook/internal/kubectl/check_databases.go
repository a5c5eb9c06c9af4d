package kubectl

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"outrider.dev/sidecar/policy"
	"outrider.dev/webhook/internal/inject"
)

// checkDatabases judges what is known of each database.
func checkDatabases(all []Database, places []place, conf configuration, now time.Time) []Finding {
	byName := map[string]place{}
	for _, p := range places {
		byName[p.name] = p
	}
	s := &section{name: "databases"}
	for _, d := range all {
		about := d.Namespace + "/" + d.Pod
		judgeState(s, about, d)
		if d.Ending || !claims(d.pod) {
			continue
		}
		judgeSidecar(s, about, d, now)
		judgeGrace(s, about, d.pod)
		judgeTolerations(s, about, d.pod)
		if where, ok := byName[d.Namespace]; ok && where.trouble == nil {
			judgeAnew(s, about, d, where, conf)
		}
	}
	return s.findings
}

// judgeState says what a database's state means. What a sidecar has found out about credentials, bucket, slot or disk is
// in its own words, which name the remedy.
func judgeState(s *section, about string, d Database) {
	text := d.State
	if d.Reason != "" {
		text += ": " + d.Reason
	}
	logs := func(container string) string {
		return "kubectl -n " + d.Namespace + " logs " + d.Pod + " -c " + container
	}
	switch d.State {
	case "protected", "not_archived": // a clone is not meant to be
		s.ok(about, text)
	case "lagging":
		s.add(Warning, about, text, "its commits wait on its disk until the archive takes them; "+logs(inject.SidecarContainer))
	case "recovering", "waiting", "stopping", "stopped", StateRestoring, StatePending:
		s.add(Warning, about, text, "wait; if it lasts, "+logs(inject.SidecarContainer))
	case "no_snapshot":
		s.add(Warning, about, text, "the first snapshot is under way or fails: "+logs(inject.SidecarContainer)+"; kubectl outrider backup "+d.Pod+" takes one now")
	case StateRestoreFail:
		s.add(Failed, about, text, logs(inject.RestoreContainer))
	case StateUnprotected:
		s.add(Failed, about, text, "mend what it says, and then: "+d.anew())
	case StateSuspected: // a warning, as of the audit: perhaps it is no database
		s.add(Warning, about, text, "say which it is, and then: "+d.anew())
	case StateUnknown:
		s.add(Unknown, about, text+"\nso its bucket, clock, slot and drills could not be told either",
			"it takes the right to get pods/proxy or to create pods/exec, and a sidecar that runs: "+logs(inject.SidecarContainer))
	default: // not_protected, superseded, and what later versions may say
		s.add(Failed, about, text, logs(inject.SidecarContainer))
	}
	if r := d.Sidecar; r != nil && r.SnapshotTrouble != "" {
		s.add(Failed, about, "its last snapshot: "+r.SnapshotTrouble, "the archive grows by WAL only, and a restore takes longer each hour; "+logs(inject.SidecarContainer))
	}
}

// anew is how the pod is made anew, by those who know what that means for its data.
func (d Database) anew() string {
	if d.Workload == "" {
		return "delete the pod and apply its file again"
	}
	return "kubectl -n " + d.Namespace + " rollout restart " + d.Workload
}

// enough is the grace period below which an orderly stop is a matter of luck: checkpoint, shutdown and the last upload.
const enough = 30 * time.Second

// graceOf is the time that the kubelet gives a pod to stop.
func graceOf(pod *corev1.Pod) time.Duration {
	g := pod.Spec.TerminationGracePeriodSeconds
	if g == nil {
		return corev1.DefaultTerminationGracePeriodSeconds * time.Second
	}
	return time.Duration(*g) * time.Second
}

// judgeGrace compares the pod's grace period with the one that its sidecar plans its stop by.
func judgeGrace(s *section, about string, pod *corev1.Pod) {
	have := graceOf(pod)
	p, known := policyOf(pod)
	switch period := fmt.Sprintf("its terminationGracePeriodSeconds is %d", int64(have.Seconds())); {
	case have < enough:
		s.add(Warning, about, period+": too short for a checkpoint, a shutdown and the last upload", "raise it in the template, or leave it out")
	case !known:
		s.add(Unknown, about, period+", and the policy in the environment of its sidecar cannot be read", "use a kubectl-outrider that is as new as the sidecar")
	case have < p.Grace:
		s.add(Warning, about, period+", less than the grace of its policy, "+span(p.Grace)+", by which its sidecar plans the stop: the kubelet may end it before everything is shipped",
			"something has lowered it after the webhook had raised it: find out what, or set "+policy.Prefix+"grace to what there is")
	default:
		s.ok(about, period+", enough for the grace of its policy, "+span(p.Grace))
	}
}

// judgeTolerations is about the time that Kubernetes leaves a pod on a lost node.
func judgeTolerations(s *section, about string, pod *corev1.Pod) {
	const long = 120
	for _, t := range pod.Spec.Tolerations {
		lost := t.Key == corev1.TaintNodeNotReady || t.Key == corev1.TaintNodeUnreachable || t.Key == "" && t.Operator == corev1.TolerationOpExists
		if !lost || t.Effect != "" && t.Effect != corev1.TaintEffectNoExecute {
			continue
		}
		stays := "for ever"
		if t.TolerationSeconds != nil {
			if *t.TolerationSeconds <= long {
				continue
			}
			stays = fmt.Sprintf("for %d s", *t.TolerationSeconds)
		}
		s.add(Warning, about, "it tolerates a lost node "+stays+", and is not made anew elsewhere before", "tolerationSeconds: 30 for "+
			corev1.TaintNodeNotReady+" and "+corev1.TaintNodeUnreachable)
		return
	}
}

// judgeAnew says what would happen if the pod were made now, which happens at the next loss of its node.
func judgeAnew(s *section, about string, db Database, where place, conf configuration) {
	pod := db.pod
	if !where.labelled() {
		if pod.Annotations[protectLabel] == "enabled" {
			s.add(Failed, about, "its namespace has lost its label, so that it will not be admitted when it is made anew", "kubectl label namespace "+where.name+" "+protectLabel+"=enabled")
			return
		}
		s.add(Failed, about, "its namespace has no label (any more): made anew it starts without its restore, perhaps empty",
			"kubectl label namespace "+where.name+" "+protectLabel+"=enabled, and the line "+protectLabel+": enabled in its template makes that binding")
		return
	}
	d, err := inject.Pod(pod, where.input(conf))
	if err != nil && conf.trouble != nil {
		return // that the configuration could not be read has been said, and it may hold what is missing
	}
	if err != nil {
		s.add(Failed, about, fmt.Sprintf("made anew, it would be refused (%s): %v", d.Reason, err), "mend it before its node goes away")
		return
	}
	for _, w := range d.Warnings {
		s.add(Warning, about, w, "mend it in the pod's template, or leave it if it is meant to be so")
	}
	if have := graceOf(pod); d.Policy.Grace > have && have >= enough {
		s.add(Warning, about, "its policy asks for a grace of "+span(d.Policy.Grace)+" now, and the pod was made with "+span(have), db.anew())
	}
	if pod.Annotations[protectLabel] == "" {
		s.add(Warning, about, "its template does not say "+protectLabel+": enabled, so that it would start without its restore if the namespace lost its label",
			"add that annotation to the pod template")
	}
}

// checkBudgets finds the disruption budgets that hold up a drain of a database.
func (c *Cluster) checkBudgets(ctx context.Context, namespace string, all []Database) []Finding {
	s := &section{name: "disruption budgets"}
	list, err := c.client.PolicyV1().PodDisruptionBudgets(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		s.unknown("budgets", "list poddisruptionbudgets.policy", err)
		return s.findings
	}
	judgeBudgets(s, all, list.Items)
	return s.findings
}

func judgeBudgets(s *section, all []Database, budgets []policyv1.PodDisruptionBudget) {
	before := len(s.findings)
	for _, d := range all {
		if d.Ending || !claims(d.pod) {
			continue
		}
		about := d.Namespace + "/" + d.Pod
		var names []string
		for _, b := range budgets {
			selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
			if err != nil || b.Namespace != d.Namespace || !selector.Matches(labels.Set(d.pod.Labels)) {
				continue
			}
			names = append(names, b.Name)
			judgeBudget(s, about, &b)
		}
		if len(names) > 1 {
			s.add(Failed, about, "the disruption budgets "+strings.Join(names, ", ")+" all apply, and then no eviction is allowed at all", "leave one of them, or none")
		}
	}
	if len(s.findings) == before {
		s.ok("budgets", "none holds up an eviction of a database")
	}
}

func judgeBudget(s *section, about string, b *policyv1.PodDisruptionBudget) {
	st := b.Status
	switch {
	case b.Generation != st.ObservedGeneration || st.DisruptionsAllowed > 0:
	case st.ExpectedPods > 0 && st.DesiredHealthy >= st.ExpectedPods:
		s.add(Failed, about, fmt.Sprintf("disruption budget %s never allows a disruption (%d of %d pods have to be healthy): a drain of the node never ends, and an evacuation waits as long as it can before it deletes the pod",
			b.Name, st.DesiredHealthy, st.ExpectedPods), "a database with one replica is better off without it: kubectl -n "+b.Namespace+" delete poddisruptionbudget "+b.Name)
	default:
		s.add(Warning, about, fmt.Sprintf("disruption budget %s allows no disruption now (%d of %d pods are healthy)", b.Name, st.CurrentHealthy, st.ExpectedPods),
			"see why pods are not ready: kubectl -n "+b.Namespace+" get pods")
	}
}
