//go:build e2e

package mission_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"outrider.dev/e2e/monitoring/watch"
)

// TestQuickStart does what README's quick start on Kubernetes says, command by command as they stand there, beginning without a
// webhook and with an empty archive. kubectl is that of the cluster, with its kubeconfig, and the images are on the nodes: that
// is all that a new user has to see to.
func TestQuickStart(t *testing.T) {
	ours(t, "installs what README says in the namespaces that README names")
	d := found(t, "shop", "orders-0") // as README says
	user := newUser(t)
	makeWay(t)
	user.does("kubectl apply -k manifests/overlays/dev")
	user.does("kubectl -n outrider-system rollout status deployment/outrider-webhook")
	began := time.Now()
	user.does("kubectl apply -k manifests/examples/orders-protected")
	user.sees("kubectl -n shop get pods", `orders-0\s+2/2\s+Running`)
	user.sees("kubectl -n shop logs orders-0 -c outrider-restore", "the archive is proven to be empty: initdb may run")
	user.sees("kubectl -n shop exec orders-0 -c outrider -- outrider status", `(?m)^state\s+protected$`)
	d.note("protected %.1f s after kubectl apply", time.Since(began).Seconds())
	if said := d.databaseLog(); strings.Count(said, "entrypoint: initdb") != 1 || restarts(d.here(), "postgres") != 0 {
		t.Errorf("initdb did not run once:\n%s", said)
	}
	d.follow()
	d.untilProtected() // with a first snapshot
	d.note("with a first snapshot %.1f s after kubectl apply", time.Since(began).Seconds())
	scraped(t, d)
	stop := d.load()
	first := d.here()
	began = time.Now()
	user.does("kubectl -n shop delete pod orders-0")
	user.hasDoneAll()
	d.back(first, began)
	if said := d.databaseLog(); strings.Contains(said, "entrypoint: initdb") {
		t.Errorf("initdb ran again:\n%s", said)
	}
	d.untilProtected()
	stop()
	d.nothingLost()
}

// databaseLog is what PostgreSQL's container has written in the pod that is there.
func (d *database) databaseLog() string {
	d.t.Helper()
	return kubectl(d.t, "-n", d.namespace, "logs", d.pod, "-c", "postgres")
}

// user is somebody who follows README.
type user struct {
	t        *testing.T
	commands []string
}

// newUser reads the commands of README's quick start on Kubernetes, up to its first heading.
func newUser(t *testing.T) *user {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(watch.Repository(t), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(readme), "\n## Quick start, on Kubernetes\n")
	text, _, _ = strings.Cut(text, "\n#")
	u := &user{t: t}
	inside, commands := false, false
	for line := range strings.Lines(text) {
		language, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case fence:
			inside, commands = !inside, !inside && language == ""
		case commands:
			command, _, _ := strings.Cut(line, "#") // what is said about it
			u.commands = append(u.commands, strings.TrimSpace(command))
		}
	}
	if !found || len(u.commands) == 0 {
		t.Fatal("README.md has no commands for a quick start on Kubernetes")
	}
	return u
}

// next is the next command, which has to be this one.
func (u *user) next(command string) []string {
	u.t.Helper()
	if len(u.commands) == 0 || u.commands[0] != command {
		u.t.Fatalf("README.md goes on with %q, and not with %q, which this test knows what to expect of", u.commands, command)
	}
	u.commands = u.commands[1:]
	words := strings.Fields(command) // nothing is quoted
	if words[0] != "kubectl" {
		u.t.Fatalf("%s: where would it come from?", command)
	}
	return words[1:]
}

// does executes the next command.
func (u *user) does(command string) {
	u.t.Helper()
	args := u.next(command)
	ctx, cancel := context.WithTimeout(u.t.Context(), long)
	defer cancel()
	if said, err := u.execute(ctx, args); err != nil {
		u.t.Fatalf("%s: %v\n%s", command, err, said)
	}
}

// sees executes the next command, again and again as people do, until it shows that.
func (u *user) sees(command, pattern string) {
	u.t.Helper()
	args := u.next(command)
	until(u.t, command, func(ctx context.Context) error {
		said, err := u.execute(ctx, args)
		if err == nil && !regexp.MustCompile(pattern).MatchString(said) {
			err = fmt.Errorf("it does not show %s", pattern)
		}
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, said)
		}
		return err
	})
}

func (u *user) execute(ctx context.Context, args []string) (string, error) {
	cmd := field.Kubectl(ctx, args...)
	cmd.Dir = watch.Repository(u.t)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// hasDoneAll fails the test if README has more commands.
func (u *user) hasDoneAll() {
	u.t.Helper()
	if len(u.commands) > 0 {
		u.t.Errorf("README.md has more: %q", u.commands)
	}
}

// makeWay removes the webhook that the other scenarios have, and brings it back at the test's end.
func makeWay(t *testing.T) {
	t.Helper()
	remove := func(ctx context.Context, dir string) error {
		out, err := field.Kubectl(ctx, "delete", "-k", dir, "--ignore-not-found", "--wait=true", "--timeout=180s").CombinedOutput()
		if err != nil {
			err = fmt.Errorf("kubectl delete -k %s: %w: %s", dir, err, out)
		}
		return err
	}
	after(t, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*long)
		defer cancel()
		// The database first: without the stand-in for OSS it would try to ship until the end of its grace.
		err := remove(ctx, filepath.Join(watch.Repository(t), "manifests", "examples", "orders-protected"))
		if err == nil {
			err = remove(ctx, filepath.Join(watch.Repository(t), "manifests", "overlays", "dev"))
		}
		if err == nil {
			err = ground.install(ctx)
		}
		if err != nil {
			t.Error(err)
		}
	})
	if err := remove(t.Context(), "testdata/install"); err != nil {
		t.Fatal(err)
	}
}
