//go:build e2e

package mission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// verdict is what a restore drill recorded.
type verdict struct {
	Passed  bool    `json:"passed"`
	Failure string  `json:"failure"`
	Ready   float64 `json:"ready_seconds"`
	Pages   struct {
		Verdict string `json:"verdict"`
		Checked int64  `json:"checked"`
	} `json:"pages"`
	Query struct {
		Verdict string `json:"verdict"`
	} `json:"query"`
}

// TestDrill holds a restore drill of a database under load, as README's CronJob does each night. Then a bit of its archive
// flips, and the same Job fails at once, and loudly.
func TestDrill(t *testing.T) {
	sharesNodes(t)
	const env = "- name: POSTGRES_PASSWORD"
	d := setUp(t, "testdata/drill", spaceOf(t), env, "- {name: POSTGRES_INITDB_ARGS, value: --data-checksums}\n        "+env)
	d.untilProtected()
	stop := d.load()
	v, said := d.drill("first", batchv1.JobComplete)
	if !v.Passed || v.Pages.Verdict != "good" || v.Pages.Checked == 0 || v.Query.Verdict != "good" {
		t.Errorf("the verdict is %+v\n%s", v, said)
	}
	t.Logf("the restored database answered after %.1f s; %d pages checked", v.Ready, v.Pages.Checked)
	stop()
	d.nothingLost()

	d.flipBit("/basebackups_005/")
	v, said = d.drill("second", batchv1.JobFailed)
	if v.Passed || !strings.Contains(v.Failure, "part_") {
		t.Errorf("with a flipped bit in a part of the snapshot the verdict is %+v\n%s", v, said)
	}
	if pods := d.podsOf("second"); len(pods) != 1 {
		t.Errorf("a verdict was not believed, and the drill was held %d times", len(pods))
	}
	d.untilProtected() // the original has noticed nothing
}

// drill has the CronJob make a Job now, waits until that has ended so, and returns what was recorded and said.
func (d *database) drill(name string, end batchv1.JobConditionType) (v verdict, said string) {
	d.t.Helper()
	before := d.drills()
	kubectl(d.t, "-n", d.namespace, "create", "job", name, "--from=cronjob/orders-drill")
	d.until("the drill to end", func(ctx context.Context) error {
		client, err := ground.Client()
		if err != nil {
			return err
		}
		job, err := client.BatchV1().Jobs(d.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool { return c.Type == end && c.Status == corev1.ConditionTrue }) {
			return fmt.Errorf("its conditions are %+v", job.Status.Conditions)
		}
		return nil
	})
	said = kubectl(d.t, "-n", d.namespace, "logs", "job/"+name, "-c", "postgres")
	after := d.drills()
	if len(after) != len(before)+1 {
		d.t.Fatalf("recorded were %v, and are %v\n%s", before, after, said)
	}
	content, err := ground.bucket.Read(after[len(after)-1])
	if err == nil {
		err = json.Unmarshal(content, &v)
	}
	if err != nil {
		d.t.Fatal(err)
	}
	return v, said
}

// drills are the keys of the recorded drills, the oldest first.
func (d *database) drills() []string {
	d.t.Helper()
	return d.keys("/outrider/drills/")
}

// keys are those below a place in the archive.
func (d *database) keys(place string) []string {
	d.t.Helper()
	keys, err := ground.bucket.Keys(d.root + place)
	if err != nil {
		d.t.Fatal(err)
	}
	return keys
}

// flipBit damages the last tar part below a place in the archive, behind the back of everybody. The function it returns mends
// it.
func (d *database) flipBit(place string) (back func()) {
	d.t.Helper()
	parts := slices.DeleteFunc(d.keys(place), func(key string) bool { return !strings.Contains(key, "/tar_partitions/part_") })
	if len(parts) == 0 {
		d.t.Fatalf("there is no part below %s%s", d.root, place)
	}
	flip := func() {
		d.t.Helper()
		d.flip(parts[len(parts)-1])
	}
	flip()
	return flip
}

// flip flips a bit of an object.
func (d *database) flip(key string) {
	d.t.Helper()
	content, err := ground.bucket.Read(key)
	if err == nil {
		content[len(content)/2] ^= 1
		err = ground.bucket.Write(key, content)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// podsOf are the pods that a Job has made.
func (d *database) podsOf(job string) []corev1.Pod {
	d.t.Helper()
	client, err := ground.Client()
	if err != nil {
		d.t.Fatal(err)
	}
	pods, err := client.CoreV1().Pods(d.namespace).List(d.t.Context(), metav1.ListOptions{LabelSelector: "job-name=" + job})
	if err != nil {
		d.t.Fatal(err)
	}
	return pods.Items
}
