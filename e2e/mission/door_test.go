//go:build e2e

package mission_test

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// door is a way to a pod's port that stays when the pod moves: connections lead to where the pod of that name is now.
type door struct {
	namespace, pod, port string
	listener             net.Listener
	running              sync.WaitGroup
}

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

// address is that of the pod, empty while there is none.
func (d *door) address(ctx context.Context) string {
	client, err := field.Client()
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	pod, err := client.CoreV1().Pods(d.namespace).Get(ctx, d.pod, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return pod.Status.PodIP
}

// carry carries one connection until either side ends it or the pod is somewhere else.
func (d *door) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	address := d.address(ctx)
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
		case <-time.After(time.Second):
			if d.address(ctx) != address {
				return
			}
		}
	}
}
