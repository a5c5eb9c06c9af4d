//go:build e2e

package skaffold_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/cluster/local"
	"outrider.dev/e2e/images"
)

// Times on a busy machine; nothing is waited for that long otherwise.
const (
	toBuild = 8 * time.Minute
	toStart = 3 * time.Minute
)

// address is that of the registry, as skaffold and every node see it: each has one on its own loopback device, where
// containerd speaks plain http. They all serve the same.
const address = "127.0.0.1:5000"

func TestMain(m *testing.M) {
	os.Exit(cluster.Isolated(func() error { _, err := images.Build(context.Background()); return err }, m.Run))
}

// An edit of a source becomes live, in the webhook and in what it puts into pods, and nothing is left when skaffold ends.
func TestAnEditBecomesLive(t *testing.T) {
	c := start(t)
	tree := copyTree(t)
	s := develop(t, c, tree)

	s.await(toBuild, "the webhook to be built and deployed", func() error {
		return s.kubectl(nil, "-n", "outrider-system", "rollout", "status", "deployment/outrider-webhook", "--timeout=1s")
	})
	if image := s.output("-n", "outrider-system", "get", "pods", "-l", "app.kubernetes.io/name=outrider", "-o", "jsonpath={.items[0].spec.containers[0].image}"); !strings.HasPrefix(image, address+"/outrider-webhook:") {
		t.Fatalf("the webhook's image is %s", image)
	}
	orders := filepath.Join(tree, "manifests", "examples", "orders-protected")
	s.await(toStart, "the example to be applied", func() error { return s.kubectl(nil, "apply", "-k", orders) })
	s.await(toStart, "the database to be protected", s.isProtected)
	before := s.sidecarImage()

	edit(t, filepath.Join(tree, "webhook", "app.go"), `Short: "Makes PostgreSQL pods protected by Outrider"`, `Short: "This was edited"`)
	s.await(toBuild, "the edit to be live", func() error {
		help := s.output("-n", "outrider-system", "exec", "deployment/outrider-webhook", "--", "outrider-webhook", "--help")
		if !strings.Contains(help, "This was edited") {
			return fmt.Errorf("outrider-webhook --help says %q", help)
		}
		return nil
	})

	// A change of the sidecar reaches pods that are made anew, because the webhook knows the image that it was built with.
	edit(t, filepath.Join(tree, "sidecar", "status.go"), `"What is protected right now"`, `"What is protected, edited"`)
	s.await(toBuild, "pods made anew to have the new sidecar", func() error {
		if err := s.kubectl(nil, "-n", "shop", "delete", "pod", "orders-0", "--wait"); err != nil {
			return err
		}
		s.await(toStart, "the database to be protected again", s.isProtected)
		if now := s.sidecarImage(); now == before {
			return fmt.Errorf("the sidecar is still %s", now)
		}
		help := s.output("-n", "shop", "exec", "orders-0", "-c", "outrider", "--", "outrider", "--help")
		if !strings.Contains(help, "What is protected, edited") {
			return fmt.Errorf("outrider --help says %q", help)
		}
		return nil
	})
	s.stop()
	s.await(toStart, "everything that was deployed to be gone", func() error {
		if names := s.output("get", "namespaces", "-o", "name"); names == "" || strings.Contains(names, "outrider-") {
			return fmt.Errorf("there are %s", names)
		}
		return nil
	})
}

// start starts a cluster whose nodes and this test share a registry.
func start(t *testing.T) *local.Cluster {
	t.Helper()
	c, err := local.Start(t.Context(), 2, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	t.Cleanup(func() {
		if c != nil {
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	own, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	listeners := []net.Listener{own}
	for _, n := range c.Nodes() {
		l, err := n.Listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
	}
	handler := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)))
	for _, l := range listeners {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l) // until it is closed
		}()
		t.Cleanup(func() {
			_ = server.Close() // what it served is over
			<-done
		})
	}
	return c
}

// copyTree copies the sources, so that what is edited is not what somebody works on.
func copyTree(t *testing.T) string {
	t.Helper()
	top, err := exec.CommandContext(t.Context(), "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		t.Fatal(err)
	}
	tree := t.TempDir()
	copying := exec.CommandContext(t.Context(), "sh", "-c", `git ls-files -z --cached --others --exclude-standard | xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' sh | tar -c --null -T - | tar -x -C "$1"`, "sh", tree)
	copying.Dir = strings.TrimSpace(string(top))
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copying the sources: %v: %s", err, out)
	}
	return tree
}

func edit(t *testing.T, path, from, to string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), from, to, 1)
	if changed == string(text) {
		t.Fatalf("%s does not say %s any more", path, from)
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// session is a running `skaffold dev`.
type session struct {
	t       *testing.T
	cluster *local.Cluster
	log     string
	cmd     *exec.Cmd
	ended   chan error
}

// develop starts `skaffold dev` in a tree.
func develop(t *testing.T, c *local.Cluster, tree string) *session {
	t.Helper()
	program, err := filepath.Abs("../../.cache/bin/skaffold")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("`make skaffold` builds it: %v", err)
	}
	s := &session{t: t, cluster: c, log: filepath.Join(t.TempDir(), "skaffold.log"), ended: make(chan error, 1)}
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	s.cmd = exec.Command(program, "dev", "--default-repo", address, "--kubeconfig", c.Kubeconfig(), "--tail=false", "--interactive=false")
	s.cmd.Dir = tree
	// There is no network here, and no need of one: modules are there, and nothing is asked about updates or sent anywhere.
	s.cmd.Env = append(os.Environ(), "HOME="+home, "PATH="+c.Programs()+":"+os.Getenv("PATH"), "SKAFFOLD_UPDATE_CHECK=false", "SKAFFOLD_OFFLINE=true",
		"GOPROXY=off", "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- errors.Join(s.cmd.Wait(), log.Close()) }()
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			t.Logf("skaffold has to be killed: %v, %v", s.cmd.Process.Kill(), <-s.ended)
		}
		if t.Failed() {
			t.Log(s.tail())
		}
	})
	return s
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (s *session) tail() string {
	b, _ := os.ReadFile(s.log) // for a person
	return string(b[max(0, len(b)-8000):])
}

// stop ends skaffold as a person does, and waits until it has cleaned up.
func (s *session) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			s.t.Errorf("skaffold: %v", err)
		}
	case <-time.After(toStart):
		s.t.Fatal("skaffold does not end")
	}
}

func (s *session) kubectl(out *bytes.Buffer, args ...string) error {
	cmd := s.cluster.Kubectl(s.t.Context(), args...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	if out != nil {
		cmd.Stdout = out
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, &both)
	}
	return nil
}

// output is what kubectl prints, "" if it went wrong.
func (s *session) output(args ...string) string {
	var out bytes.Buffer
	if err := s.kubectl(&out, args...); err != nil {
		s.t.Log(err)
		return ""
	}
	return strings.TrimSpace(out.String())
}

// await tries until it works.
func (s *session) await(long time.Duration, what string, try func() error) {
	s.t.Helper()
	deadline := time.Now().Add(long)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case end := <-s.ended:
			s.ended <- end
			s.t.Fatalf("waiting for %s: skaffold has ended: %v", what, end)
		case <-time.After(time.Second):
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func (s *session) isProtected() error {
	status := s.output("-n", "shop", "exec", "orders-0", "-c", "outrider", "--", "outrider", "status")
	if state := strings.Fields(status); len(state) < 2 || state[1] != "protected" {
		return fmt.Errorf("outrider status: %q", status)
	}
	return nil
}

func (s *session) sidecarImage() string {
	s.t.Helper()
	image := s.output("-n", "shop", "get", "pod", "orders-0", "-o", "jsonpath={.spec.initContainers[?(@.name=='outrider')].image}")
	if !strings.HasPrefix(image, address+"/outrider:") {
		s.t.Fatalf("the sidecar's image is %s", image)
	}
	return image
}
