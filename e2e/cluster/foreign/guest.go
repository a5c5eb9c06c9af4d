package foreign

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What scenarios bring has these labels. What a manifest for [Cluster.Install] has in it carries the first one.
const (
	mark, ours               = "app.kubernetes.io/managed-by", "outrider-e2e"
	purpose, purposeScenario = "app.kubernetes.io/component", "scenario"
)

// Install applies a manifest, all of whose objects are marked. If any of them is there already and has no mark, nothing is
// changed, and the error names it. What an earlier run has left is removed first, with its namespaces; one that still goes on
// is an error.
func (c *Cluster) Install(ctx context.Context, manifest string) error {
	left, err := c.objects(ctx, manifest)
	if err != nil {
		return err
	}
	var strangers []string
	for _, o := range left {
		if !o.ours {
			strangers = append(strangers, o.name)
		}
	}
	if n := len(strangers); n > 0 {
		return fmt.Errorf("%s has %s%s, which these scenarios have not installed and would overwrite. They need a cluster without: take another one, "+
			"or remove Outrider from this one", c, strings.Join(strangers[:min(n, 3)], ", "), more(n-3))
	}
	if err := c.occupied(ctx); err != nil {
		return err
	}
	if err := c.sweep(ctx, manifest); err != nil {
		return err
	}
	c.mu.Lock()
	c.brought = manifest
	c.mu.Unlock()
	if err := c.occupy(ctx); err != nil {
		return err
	}
	return c.run(ctx, manifest, "apply", "-f", "-")
}

// more says that there are others, if there are.
func more(others int) string {
	if others <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", others)
}

// Claim makes a namespace that the scenarios may fill, and that is removed with all that is in it when they leave. One of that
// name which somebody else has made is an error.
func (c *Cluster) Claim(ctx context.Context, namespace string) error {
	c.mu.Lock()
	leaving := c.leaving
	c.mu.Unlock()
	if leaving {
		return fmt.Errorf("namespace %s is not made any more: the scenarios leave %s", namespace, c)
	}
	labels := map[string]string{mark: ours, purpose: purposeScenario}
	_, err := c.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: labels}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	there, err := c.client.CoreV1().Namespaces().Get(ctx, namespace, metav1.GetOptions{})
	if err == nil && there.Labels[mark] != ours {
		err = fmt.Errorf("%s has a namespace %s, which these scenarios have not made and leave alone", c, namespace)
	}
	return err
}

// Leave removes everything that was brought, and waits until it is gone. The error says what could not be removed. No
// namespace can be claimed any more.
func (c *Cluster) Leave(ctx context.Context) error {
	c.mu.Lock()
	c.leaving = true
	manifest, lease := c.brought, c.lease
	c.mu.Unlock()
	if lease == nil {
		return nil // nothing was brought
	}
	lease.end()
	if err := c.sweep(ctx, manifest); err != nil {
		return fmt.Errorf("leaving %s: %w", c, err)
	}
	return nil
}

// sweep removes the namespaces of scenarios, then what a manifest has installed: databases that stop ship what is left, and
// need their archive for that.
func (c *Cluster) sweep(ctx context.Context, manifest string) error {
	err := errors.Join(
		c.run(ctx, "", "delete", "namespaces", "-l", mark+"="+ours+","+purpose+"="+purposeScenario, "--ignore-not-found", "--timeout=300s"),
		c.run(ctx, manifest, "delete", "-f", "-", "--ignore-not-found", "--timeout=180s"),
	)
	if err != nil {
		return err
	}
	left, err := c.objects(ctx, manifest)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("there still is %s%s", left[0].name, more(len(left)-1))
	}
	return err
}

// object is what a cluster has of a manifest.
type object struct {
	name string // with its kind and namespace, for people
	ours bool
}

// objects are those of a manifest that are there.
func (c *Cluster) objects(ctx context.Context, manifest string) ([]object, error) {
	cmd := c.Kubectl(ctx, "get", "-f", "-", "--ignore-not-found", "--no-headers", "-o",
		`custom-columns=:.kind,:.metadata.namespace,:.metadata.name,:.metadata.labels.`+strings.ReplaceAll(mark, ".", `\.`))
	cmd.Stdin = strings.NewReader(manifest)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("asking %s what it has: %w: %s", c, err, complaints.String())
	}
	var all []object
	for line := range strings.Lines(string(out)) {
		columns := strings.Fields(line)
		if len(columns) != 4 {
			return nil, fmt.Errorf("asking %s what it has: kubectl says %q", c, line)
		}
		name := columns[0] + " " + columns[2]
		if columns[1] != "<none>" {
			name += " in namespace " + columns[1]
		}
		all = append(all, object{name, columns[3] == ours})
	}
	return all, nil
}

// run runs kubectl. An interrupt at a terminal ends the scenarios, and not what removes them.
func (c *Cluster) run(ctx context.Context, input string, args ...string) error {
	cmd := c.Kubectl(ctx, args...)
	cmd.Stdin = strings.NewReader(input)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}
