package cluster_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"outrider.dev/e2e/cluster"
)

// victim tells this test binary to start a cluster and then to wait for its end.
const victim = "OUTRIDER_CLUSTER_VICTIM"

// started is what it says when it has done so.
const started = "started\n"

func TestMain(m *testing.M) {
	os.Exit(cluster.Isolated(nil, func() int {
		if os.Getenv(victim) != "" {
			return beVictim()
		}
		return m.Run()
	}))
}

// TestControlPlane starts one and uses it: kubectl, a workload's controller, a service account's rights.
func TestControlPlane(t *testing.T) {
	c, err := cluster.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("kubectl speaks to a server of the version that was asked for", func(t *testing.T) {
		out, err := c.Kubectl(t.Context(), "version").CombinedOutput()
		if err != nil || strings.Count(string(out), "v1.37.2") != 2 {
			t.Fatalf("kubectl version: %v\n%s\nwant v1.37.2 twice", err, out)
		}
	})
	t.Run("a StatefulSet's pod appears", func(t *testing.T) { testStatefulSet(t, c) })
	t.Run("a service account has no rights", func(t *testing.T) {
		out, err := c.Kubectl(t.Context(), "auth", "can-i", "get", "pods", "--as=system:serviceaccount:default:default").CombinedOutput()
		if strings.TrimSpace(string(out)) != "no" {
			t.Fatalf("kubectl auth can-i: %v\n%s\nwant no", err, out)
		}
	})
	t.Run("nothing of it listens on the host's addresses", func(t *testing.T) {
		addresses, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addresses {
			n := a.(*net.IPNet).IP
			if !n.IsLoopback() && !strings.HasPrefix(n.String(), "10.200.") && !n.IsLinkLocalUnicast() {
				t.Errorf("this process has the address %s: it sees the host's network", n)
			}
		}
	})
}

func testStatefulSet(t *testing.T, c *cluster.Cluster) {
	apply := c.Kubectl(t.Context(), "apply", "-f", "-")
	apply.Stdin = strings.NewReader(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers: [{name: postgres, image: postgres:17}]
`)
	if out, err := apply.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		pod, err := client.CoreV1().Pods("default").Get(ctx, "db-0", metav1.GetOptions{})
		if err == nil && len(pod.OwnerReferences) == 1 && pod.OwnerReferences[0].Kind == "StatefulSet" {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("pod db-0 did not appear: %v\n%s", err, c.Logs())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestStopLeavesNothing starts and stops a cluster, and starts another one in the same place.
func TestStopLeavesNothing(t *testing.T) {
	before := leftovers(t)
	for range 2 {
		c, err := cluster.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Stop(); err != nil {
			t.Fatal(err)
		}
		if after := leftovers(t); after != before {
			t.Fatalf("after Stop there is\n%s\nand before Start there was\n%s", after, before)
		}
	}
}

// leftovers lists what a cluster makes: processes, network interfaces and namespaces, temporary files.
func leftovers(t *testing.T) string {
	var all []string
	processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(processes) == 0 {
		t.Fatalf("looking for processes: %v, %d found", err, len(processes))
	}
	for _, p := range processes {
		if line, err := os.ReadFile(p); err == nil && len(line) > 0 { // others have ended or are zombies
			all = append(all, string(line))
		}
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		all = append(all, i.Name)
	}
	for _, pattern := range []string{"/run/netns/*", filepath.Join(os.TempDir(), "*")} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	return strings.Join(all, "\n")
}

// TestKilled kills a test binary whose cluster is up. The kernel must take everything with it.
func TestKilled(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.run=^$")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "OUTRIDER_CLUSTER_INSIDE=") { // so that it makes namespaces of its own, inside of ours
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, victim+"=1")
	cmd.Stderr = os.Stderr
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	before := leftovers(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(said).ReadString('\n'); line != started {
		t.Fatalf("the test binary said %q: %v", line, err)
	}
	if during := leftovers(t); strings.Count(during, "kube-") < 3 {
		t.Fatalf("its processes are not seen, so that this test would see nothing left either:\n%s", during)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	waitFor(t, "everything to be gone", func() bool { return leftovers(t) == before })
}

func waitFor(t *testing.T, what string, done func() bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %v\n%s", what, ctx.Err(), leftovers(t))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func beVictim() int {
	c, err := cluster.Start(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprint(os.Stdout, started)
	<-context.Background().Done() // until it is killed
	return len(c.Kubeconfig())
}
