package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// canaryInterval is between two creations: enough to hit any gap of a tenth of a second.
const canaryInterval = 50 * time.Millisecond

// canary creates pods all the time, as dry runs, and notes which were refused. Its methods are safe for concurrent use.
type canary struct {
	world *world

	mu      sync.Mutex
	idle    bool     // an outage: nothing is created
	created int      // admitted and protected
	refused []string // how, and when
	ended   chan struct{}

	creating sync.Mutex // held during a creation
}

func startCanary(ctx context.Context, w *world) (*canary, error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "canary", Labels: map[string]string{"outrider.dev/protect": "enabled"}}}
	if _, err := w.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return nil, fmt.Errorf("making the canary's namespace: %w", err)
	}
	c := &canary{world: w, ended: make(chan struct{})}
	// The first one may come before its namespace's service account.
	for deadline := time.Now().Add(patience); ; time.Sleep(canaryInterval) {
		err := c.create(ctx)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("creating the first pod in a protected namespace: %w\n%s", err, w.nodes.Logs())
		}
	}
	go func() {
		defer close(c.ended)
		for ctx.Err() == nil {
			c.sing(ctx)
			time.Sleep(canaryInterval)
		}
	}()
	return c, nil
}

func (c *canary) sing(ctx context.Context) {
	c.creating.Lock()
	defer c.creating.Unlock()
	c.mu.Lock()
	idle := c.idle
	c.mu.Unlock()
	if idle {
		return
	}
	began := time.Now()
	err := c.create(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil:
		c.refused = append(c.refused, fmt.Sprintf("%s (after %v): %v", began.Format(time.StampMilli), time.Since(began), err))
	default:
		c.created++
	}
}

func (c *canary) create(ctx context.Context) error {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "canary"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "postgres", Image: "postgres:17"}}},
	}
	got, err := c.world.client.CoreV1().Pods("canary").Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil && !isProtected(got) {
		err = errors.New("it was admitted without protection")
	}
	return err
}

// counts are how many creations were admitted and refused up to now.
func (c *canary) counts() (created, refused int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.created, len(c.refused)
}

// watch runs something during which no admission may be refused, and at least one has to be made.
func (c *canary) watch(t *testing.T, run func()) {
	t.Helper()
	created, refused := c.counts()
	run()
	c.world.await(t, "another admission", func(context.Context) error {
		if now, r := c.counts(); now == created && r == refused {
			return errors.New("there was none")
		}
		return nil
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	if lost := c.refused[refused:]; len(lost) > 0 {
		t.Errorf("%d admissions were refused while %d were not:\n%s", len(lost), c.created-created, strings.Join(lost, "\n"))
		c.refused = slices.Clip(c.refused[:refused]) // told
	}
}

// pause stops or resumes the creations. When it returns, none is under way.
func (c *canary) pause(idle bool) {
	c.creating.Lock()
	defer c.creating.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

// outage runs something that takes admissions away on purpose, and waits until they are back.
func (w *world) outage(t *testing.T, run func()) {
	t.Helper()
	w.canary.pause(true)
	defer w.canary.pause(false)
	run()
	w.await(t, "admissions to be back", w.canary.create)
}

// verdict waits for the end of the canary and says what was refused when no test was looking.
func (c *canary) verdict() error {
	<-c.ended
	if len(c.refused) == 0 {
		return nil
	}
	return fmt.Errorf("%d admissions were refused while %d were not:\n%s", len(c.refused), c.created, strings.Join(c.refused, "\n"))
}
