//go:build e2e

package mission_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// door is a way to a pod's port that stays when the pod moves: connections lead to where the pod of that name is now.
type door struct {
	namespace, port string
	listener        net.Listener
	running         sync.WaitGroup

	mu    sync.Mutex
	pod   string
	last  string // the pod's address when that was last known, empty if there was none
	asked time.Time
}

// lookEvery is how often a door asks where the pod is, for however many connections.
const lookEvery = time.Second

// open opens a door until the test's end.
func open(t *testing.T, namespace, pod, port string) *door {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{namespace: namespace, pod: pod, port: port, listener: l}
	ctx, cancel := context.WithCancel(context.Background())
	d.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed
			}
			d.running.Go(func() { d.carry(ctx, c) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		d.running.Wait()
	})
	return d
}

// lead has the door lead to a pod of another name.
func (d *door) lead(pod string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pod, d.asked = pod, time.Time{}
}

// address is that of the pod, empty while there is none, as it is or was a moment ago. While the API server does not answer it
// is what it was: a database does not move because nobody can say where it is.
func (d *door) address(ctx context.Context, atMost time.Duration) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.asked) < atMost {
		return d.last
	}
	client, err := field.Client()
	if err != nil {
		return d.last
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	pod, err := client.CoreV1().Pods(d.namespace).Get(ctx, d.pod, metav1.GetOptions{})
	switch {
	case err == nil:
		d.last = pod.Status.PodIP
	case apierrors.IsNotFound(err):
		d.last = ""
	}
	d.asked = time.Now()
	return d.last
}

// carry carries one connection until either side ends it or the pod is somewhere else.
func (d *door) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	address := d.address(ctx, 0)
	if address == "" {
		return
	}
	there, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(address, d.port))
	if err != nil {
		return
	}
	defer there.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{c, there}, {there, c}} {
		d.running.Go(func() {
			_, _ = io.Copy(way[0], way[1]) // it ends however it ends
			done <- struct{}{}
		})
	}
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
			if d.address(ctx, lookEvery) != address {
				return
			}
		}
	}
}
