//go:build e2e

package mission_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/images"
)

// witnesses are the databases of each running test, to be looked at when it has failed.
var witnesses = struct {
	sync.Mutex
	of map[*testing.T][]*database
}{of: map[*testing.T][]*database{}}

// after is t.Cleanup of this package. What cleans up changes the world, so that whichever comes first tells before that what a
// failed test has left.
func after(t *testing.T, f func()) {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			tellOf(t)
		}
		f()
	})
}

// tellOf tells about all databases of a test, once.
func tellOf(t *testing.T) {
	t.Helper()
	witnesses.Lock()
	all := witnesses.of[t]
	delete(witnesses.of, t)
	witnesses.Unlock()
	for _, d := range all {
		d.tell()
	}
}

// testify has a database be told about if its test fails.
func (d *database) testify() {
	witnesses.Lock()
	defer witnesses.Unlock()
	witnesses.of[d.t] = append(witnesses.of[d.t], d)
}

// stay is a pod and where it was.
type stay struct {
	uid  string
	node *cluster.Node
}

// seen remembers where the pod was: a node that is lost has its logs still.
func (d *database) seen(pod *corev1.Pod) {
	if field == nil {
		return // nobody lets us look at its nodes
	}
	s := stay{string(pod.UID), field.Node(pod.Spec.NodeName)}
	if s.node == nil {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Contains(d.stays, s) {
		d.stays = append(d.stays, s)
	}
}

// tell prints what a person needs to see what went wrong.
func (d *database) tell() {
	for _, args := range [][]string{
		nodesAndPods(d.namespace),
		{"-n", d.namespace, "describe", "pods"},
		{"-n", d.namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", d.namespace, "logs", d.pod, "--all-containers", "--ignore-errors", "--prefix", "--tail=60"},
		{"-n", d.namespace, "logs", d.pod, "--all-containers", "--ignore-errors", "--prefix", "--tail=40", "--previous"},
		{"-n", "outrider-system", "logs", "-l", "app.kubernetes.io/name=outrider", "--tail=40", "--prefix"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		out, err := ground.Kubectl(ctx, args...).CombinedOutput()
		cancel()
		d.t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	why, err := d.why(ctx)
	d.t.Logf("outrider why: %v\n%s", err, why)
	d.tellStays()
}

// nodesAndPods asks for all of them, but for the pods of others in a cluster that is not ours.
func nodesAndPods(namespace string) []string {
	if field == nil {
		return []string{"-n", namespace, "get", "pods", "-o", "wide"}
	}
	return []string{"get", "nodes,pods", "-A", "-o", "wide"}
}

// tellStays prints what pods have written that are not there any more, and what the nodes' programs have.
func (d *database) tellStays() {
	d.mu.Lock()
	stays := slices.Clone(d.stays)
	d.mu.Unlock()
	var told []*cluster.Node
	for _, s := range stays {
		logs := s.node.PodLogs()
		files, _ := fs.Glob(logs, fmt.Sprintf("%s_*_%s/*/*.log", d.namespace, s.uid)) // the pattern is good
		for _, file := range files {
			content, err := fs.ReadFile(logs, file)
			d.t.Logf("on %s, %s: %v\n%s", s.node.Name, path.Join(path.Base(path.Dir(file)), path.Base(file)), err, lastLines(content, 40))
		}
		if !slices.Contains(told, s.node) {
			told = append(told, s.node)
			d.t.Logf("the programs of %s:\n%s", s.node.Name, s.node.Logs())
		}
	}
}

func lastLines(content []byte, n int) []byte {
	lines := bytes.SplitAfter(content, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n-1):], nil)
}

// outriderHere is where prepare puts the program outrider for questions to an archive from outside of the cluster.
func outriderHere() (string, error) {
	dir, err := images.Dir()
	return filepath.Join(dir, "outrider"), err
}

// why is what `outrider why` says about the archive, whether or not a sidecar runs.
func (d *database) why(ctx context.Context, args ...string) (string, error) {
	program, err := outriderHere()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"why", "--archive", "oss://" + local.Bucket + "/" + d.root}, args...)...)
	cmd.Env = append(os.Environ(), "OSS_ENDPOINT="+ground.oss, "OSS_REGION="+local.Region,
		"OSS_ACCESS_KEY_ID="+local.AccessKeyID, "OSS_ACCESS_KEY_SECRET="+local.AccessKeySecret)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = errors.Join(err, ctx.Err())
	}
	return string(out), err
}
