package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// drill is a Job that holds a restore drill of a database.
func drill(namespace, of string) string {
	return fmt.Sprintf(`{apiVersion: batch/v1, kind: Job, metadata: {name: drill, namespace: %s}, spec: {backoffLimit: 0, template: {
  metadata: {annotations: {outrider.dev/drill: %s}}, spec: {restartPolicy: Never, containers: [{name: postgres, image: "postgres:17"}]}}}}`, namespace, of)
}

// TestDrill: a pod of a Job with the annotation gets the program and the access to the archive, and is no database.
func TestDrill(t *testing.T) {
	w := shared
	ns := w.protected(t)
	w.apply(t, drill(ns, "db-0"))
	w.await(t, "the Job's pod", func(ctx context.Context) error {
		pods, err := w.client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{LabelSelector: "job-name=drill"})
		if err != nil || len(pods.Items) != 1 {
			return errors.Join(err, errors.New("not yet"), w.lastEvents(ctx, ns))
		}
		pod := &pods.Items[0]
		if c := pod.Spec.InitContainers; len(c) != 1 || c[0].Name != "outrider-install" {
			t.Errorf("its init containers are %+v", c)
		}
		root := corev1.EnvVar{Name: "OUTRIDER_ARCHIVE", Value: "oss://backups/test/" + ns + "/db-0"}
		if env := pod.Spec.Containers[0].Env; !slices.Contains(env, root) {
			t.Errorf("its variables are %+v, without %+v", env, root)
		}
		return nil
	})
	code, out, errs := newPlugin(t, w).call(t, "outrider", "status", "-n", ns)
	if code != 0 || out != "" {
		t.Errorf("the plugin takes it for a database: exit code %d\n%s%s", code, out, errs)
	}

	// Where the webhook is not asked, the image would run as it is.
	plain := w.namespace(t, &corev1.Namespace{})
	w.apply(t, drill(plain, "db-0"))
	w.event(t, plain, "Job", "FailedCreate", "kubectl label namespace "+plain+" outrider.dev/protect=enabled")

	wrong := w.protected(t)
	w.apply(t, drill(wrong, "Not_A_Name"))
	w.event(t, wrong, "Job", "FailedCreate", "expected the name of a database")
}
