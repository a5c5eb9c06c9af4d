//go:build e2e

package mission_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"outrider.dev/e2e/cluster/foreign"
)

// The variables that name a cluster which is not ours: its kubeconfig, the context in there if it is not the current one, and
// where its nodes pull images from if they do not have them under the names that `make images` gives them.
const (
	kubeconfigVariable = "OUTRIDER_E2E_KUBECONFIG"
	contextVariable    = "OUTRIDER_E2E_CONTEXT"
	imagesVariable     = "OUTRIDER_E2E_IMAGES"
)

// timeToLeave is how long it may take to remove what the scenarios have brought.
const timeToLeave = 5 * time.Minute

// anotherCluster tells whether a cluster was named. Who names a part of it only has forgotten something.
func anotherCluster() (bool, error) {
	for _, name := range []string{contextVariable, imagesVariable} {
		if os.Getenv(kubeconfigVariable) == "" && os.Getenv(name) != "" {
			return false, fmt.Errorf("%s is set, and %s is not: which cluster is meant?", name, kubeconfigVariable)
		}
	}
	return os.Getenv(kubeconfigVariable) != "", nil
}

// visit plays the scenarios in the cluster that was named, and leaves it as it was, also if somebody interrupts them or their
// time is over.
func visit(m *testing.M) int {
	flag.Parse()
	c, err := foreign.Open(os.Getenv(kubeconfigVariable), os.Getenv(contextVariable))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "the scenarios are played in %s\n", c)
	leave := sync.OnceValue(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 2*timeToLeave)
		defer cancel()
		return c.Leave(ctx)
	})
	ended := onEarlyEnd(func(why string) {
		fmt.Fprintf(os.Stderr, "%s: removing what was brought to %s\n", why, c)
		if err := leave(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	})
	code, err := playThere(m, c)
	err = errors.Join(err, leave())
	ended()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintf(os.Stderr, "nothing of the scenarios is left in %s\n", c)
	return code
}

// playThere installs what is needed, and plays.
func playThere(m *testing.M, c *foreign.Cluster) (int, error) {
	version, err := c.Version()
	if err != nil {
		return 1, err
	}
	fmt.Fprintf(os.Stderr, "it has Kubernetes %s\n", version)
	if err := buildOutrider(); err != nil {
		return 1, err
	}
	s, err := newStandIn(c)
	if err != nil {
		return 1, err
	}
	defer s.close()
	ground = arena{
		kubernetesCluster: c, bucket: s, cloud: s, oss: s.endpoint(),
		install: func(ctx context.Context) error { return moveIn(ctx, c) }, images: pulled,
	}
	if err := ground.install(context.Background()); err != nil {
		return 1, err
	}
	code := m.Run()
	return code, closing.print(os.Stdout)
}

// moveIn installs the webhook and the stand-in, and waits until they answer.
func moveIn(ctx context.Context, c *foreign.Cluster) error {
	manifest, err := c.Kubectl(ctx, "kustomize", "testdata/foreign").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return fmt.Errorf("kubectl kustomize testdata/foreign: %w", err)
	}
	if err := c.Install(ctx, pulled(strings.ReplaceAll(string(manifest), "outrider-dev", standInNamespace))); err != nil {
		return err
	}
	return rolledOut(ctx, c.Kubectl, [2]string{standInNamespace, "devcloud"}, [2]string{"outrider-system", "outrider-webhook"})
}

// pulled has the images of a manifest come from where it was said that the nodes pull them.
func pulled(manifest string) string { return foreign.Pulled(manifest, os.Getenv(imagesVariable)) }

// onEarlyEnd calls f when the program is told to end, or when its time is so far over that it is just enough for f, until the
// function that it returns is called.
func onEarlyEnd(f func(why string)) (end func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	signal.Ignore(syscall.SIGPIPE) // who reads what is said here may have ended first
	var late <-chan time.Time
	if limit := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); limit > 2*timeToLeave {
		late = time.After(limit - timeToLeave)
	}
	done := make(chan struct{})
	go func() {
		select {
		case s := <-signals:
			f(s.String())
		case <-late:
			f("the time of -timeout is over")
		case <-done:
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// buildOutrider builds outrider for this machine.
func buildOutrider() error {
	program, err := outriderHere()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(program), 0o755); err != nil {
		return err
	}
	if out, err := exec.Command("go", "build", "-o", program, "outrider.dev/sidecar").CombinedOutput(); err != nil {
		return fmt.Errorf("building outrider: %w: %s", err, out)
	}
	return nil
}
