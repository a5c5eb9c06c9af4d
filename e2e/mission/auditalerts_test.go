//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// custom is an image of PostgreSQL that nobody knows as one.
const custom = "docker.io/corp/postgres-custom:1"

// annotated is a change of the example that adds an annotation to its pod template.
func annotated(annotation string) []string {
	const template = "  template:\n    metadata:\n"
	return []string{template, template + "      annotations:\n        " + annotation + "\n"}
}

// TestAuditAlerts has each alert on what the audit finds fire and resolve: databases that run since before their namespace was
// protected, one of which could not be made anew now, one that is refused, one that may be one, and one that no eviction may
// move. The audit looks once a minute, so that all is wrong at once, and then mended as the runbooks say.
func TestAuditAlerts(t *testing.T) {
	ours(t, "gives an image another name on the nodes")
	sharesNodes(t)
	wrong, right := annotated("outrider.dev/rpo: soon"), annotated("outrider.dev/rpo: 2s")
	unlabelled := []string{"outrider.dev/protect: enabled", "outrider.dev/protect: disabled"}
	all := newPlaces(t)
	early := all.install("early", unlabelled...)
	doubtful := all.install("doubtful", slices.Concat(wrong, unlabelled)...)
	early.runs()
	doubtful.runs()
	for _, d := range []*database{early, doubtful} {
		kubectl(t, "label", "namespace", d.namespace, "outrider.dev/protect=enabled", "--overwrite")
	}
	waits := all.install("waits", wrong...)
	for _, node := range field.Nodes() {
		if _, _, taken := strings.Cut(node.Name, "-node-"); taken {
			continue // by a scenario that may do to it what it likes
		}
		if _, err := ctr(t, node, "images", "tag", "--force", "docker.io/library/postgres:17", custom); err != nil {
			t.Fatal(err)
		}
	}
	strange := all.install("strange", "image: postgres:17", "image: "+custom)
	fixed := all.install("fixed")
	apply(t, fmt.Sprintf(`
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: orders, namespace: %s}
spec: {minAvailable: 1, selector: {matchLabels: {app: orders}}}
`, fixed.namespace))

	p := look(t, "outrider-system")
	in := func(d *database) string { return fmt.Sprintf("namespace=%q", d.namespace) }
	p.Fires("OutriderPodUnprotected", in(early), `severity="critical"`)
	p.Fires("OutriderPodUnprotected", in(strange), `severity="warning"`)
	p.Fires("OutriderPodRefused", in(doubtful))
	p.Fires("OutriderWorkloadWaits", in(waits))
	p.Fires("OutriderEvacuationBlocked", in(fixed))

	kubectl(t, "-n", early.namespace, "delete", "pod", early.pod, "--wait=false")
	strange.change(append(annotated("outrider.dev/protect: disabled"), "image: postgres:17", "image: "+custom)...)
	doubtful.change(right...)
	waits.change(right...)
	kubectl(t, "-n", fixed.namespace, "delete", "poddisruptionbudget", "orders")
	p.ResolvesIn(early.namespace, "OutriderPodUnprotected")
	p.ResolvesIn(strange.namespace, "OutriderPodUnprotected")
	p.ResolvesIn(doubtful.namespace, "OutriderPodRefused")
	p.ResolvesIn(waits.namespace, "OutriderWorkloadWaits")
	p.ResolvesIn(fixed.namespace, "OutriderEvacuationBlocked")
	p.AllHaveResolved(audited, fmt.Sprintf(`namespace=~"%s-.*"`, spaceOf(t)))
}

// places are databases in namespaces of their own, which are installed and not waited for.
type places struct {
	t   *testing.T
	all []*database
}

// places makes room for them until the test's end.
func newPlaces(t *testing.T) *places {
	t.Helper()
	p := &places{t: t}
	after(t, func() {
		args := []string{"delete", "namespace", "--ignore-not-found", "--wait=true", "--timeout=180s"}
		for _, d := range p.all {
			args = append(args, d.namespace)
		}
		_ = field.Kubectl(context.Background(), args...).Run()
	})
	return p
}

func (p *places) install(name string, changes ...string) *database {
	p.t.Helper()
	d := &database{t: p.t, namespace: spaceOf(p.t) + "-" + name, pod: "orders-0"}
	d.testify()
	p.all = append(p.all, d)
	d.change(changes...)
	return d
}

// change installs the database with other changes than before. It is small.
func (d *database) change(changes ...string) {
	d.t.Helper()
	d.install("testdata/orders", append([]string{
		"namespace: shop", "namespace: " + d.namespace, "name: shop", "name: " + d.namespace, "cpu: 500m", "cpu: 100m",
	}, changes...)...)
}

// runs waits until the pod does.
func (d *database) runs() {
	d.t.Helper()
	d.until("the pod to run", func(ctx context.Context) error {
		pod, err := d.object(ctx)
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", pod.Status.Phase)
		}
		return err
	})
}
