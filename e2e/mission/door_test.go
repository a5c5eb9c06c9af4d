//go:build e2e

package mission_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// door is a way to a pod's port that stays when the pod moves: connections lead to where the pod is now.
type door struct {
	port     string
	listener net.Listener
	running  sync.WaitGroup

	mu    sync.Mutex
	find  finder
	last  *corev1.Pod // when that was last known, nil if there was none
	asked time.Time
}

// finder finds the pod that a door leads to. That there is none is an error of the kind NotFound.
type finder func(ctx context.Context) (*corev1.Pod, error)

// lookEvery is how often a door asks where the pod is, for however many connections.
const lookEvery = time.Second

// open opens a door to the pod of that name until the test's end.
func open(t *testing.T, namespace, pod, port string) *door {
	t.Helper()
	d, closeDoor, err := openDoor(named(namespace, pod), port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(closeDoor)
	return d
}

// named finds the pod of that name.
func named(namespace, pod string) finder {
	return func(ctx context.Context) (*corev1.Pod, error) {
		client, err := ground.Client()
		if err != nil {
			return nil, err
		}
		return client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
	}
}

// openDoor opens a door until the function that it returns is called.
func openDoor(find finder, port string) (*door, func(), error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	d := &door{port: port, find: find, listener: l}
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
	return d, func() {
		cancel()
		_ = l.Close()
		d.running.Wait()
	}, nil
}

// lead has the door lead to another pod.
func (d *door) lead(find finder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.find, d.asked = find, time.Time{}
}

// pod is the pod, nil while there is none, as it is or was a moment ago. While the API server does not answer it is what it
// was: a database does not move because nobody can say where it is.
func (d *door) pod(ctx context.Context, atMost time.Duration) *corev1.Pod {
	d.mu.Lock()
	defer d.mu.Unlock()
	if time.Since(d.asked) < atMost {
		return d.last
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	pod, err := d.find(ctx)
	switch {
	case err == nil:
		d.last = pod
	case apierrors.IsNotFound(err):
		d.last = nil
	}
	d.asked = time.Now()
	return d.last
}

// address is that of a pod, empty if there is none.
func address(pod *corev1.Pod) string {
	if pod == nil {
		return ""
	}
	return pod.Status.PodIP
}

// carry carries one connection until either side ends it or the pod is somewhere else.
func (d *door) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	pod := d.pod(ctx, 0)
	if address(pod) == "" {
		return
	}
	there, err := ground.Reach(ctx, pod, d.port)
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
			if address(d.pod(ctx, lookEvery)) != address(pod) {
				return
			}
		}
	}
}
