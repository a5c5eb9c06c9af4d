package foreign

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/streaming/pkg/httpstream"
)

// Reach connects to a port of a pod. The connection ends when the other end closes it or is gone. That nobody listens there
// shows as a connection that ends at once.
func (c *Cluster) Reach(ctx context.Context, pod *corev1.Pod, port string) (net.Conn, error) {
	tunnel, err := c.tunnel(ctx, pod)
	if err != nil {
		return nil, fmt.Errorf("reaching port %s of pod %s/%s: %w", port, pod.Namespace, pod.Name, err)
	}
	p, err := newPassage(tunnel, port)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reaching port %s of pod %s/%s: %w", port, pod.Namespace, pod.Name, err), tunnel.Close())
	}
	return p, nil
}

// tunnel opens a connection to a pod. client-go cannot be told to give up, so that it is left behind when ctx ends, and closed
// if it comes.
func (c *Cluster) tunnel(ctx context.Context, pod *corev1.Pod) (httpstream.Connection, error) {
	dialer, err := c.dialer(pod)
	if err != nil {
		return nil, err
	}
	type dialed struct {
		connection httpstream.Connection
		err        error
	}
	done := make(chan dialed, 1)
	go func() {
		connection, _, err := dialer.Dial(portforward.PortForwardProtocolV1Name)
		done <- dialed{connection, err}
	}()
	select {
	case d := <-done:
		return d.connection, d.err
	case <-ctx.Done():
		go func() {
			if d := <-done; d.err == nil {
				_ = d.connection.Close() // nobody has used it
			}
		}()
		return nil, ctx.Err()
	}
}

// dialer speaks WebSocket, and SPDY with API servers and proxies that are too old for that, as kubectl does.
func (c *Cluster) dialer(pod *corev1.Pod) (httpstream.Dialer, error) {
	url := c.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(pod.Namespace).Name(pod.Name).SubResource("portforward").URL()
	socket, err := portforward.NewSPDYOverWebsocketDialerForStreaming(url, c.config)
	if err != nil {
		return nil, err
	}
	transport, upgrader, err := spdy.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	old := spdy.NewDialerForStreaming(upgrader, &http.Client{Transport: transport}, http.MethodPost, url)
	return portforward.NewFallbackDialerForStreaming(socket, old, func(err error) bool {
		return httpstream.IsUpgradeFailure(err) || httpstream.IsHTTPSProxyError(err)
	}), nil
}

// passage is a connection through a tunnel of its own. It is one end of a pipe, which knows deadlines, as a stream does not.
type passage struct {
	net.Conn

	tunnel  httpstream.Connection
	running sync.WaitGroup
}

func newPassage(tunnel httpstream.Connection, port string) (*passage, error) {
	headers := http.Header{}
	headers.Set(corev1.PortHeader, port)
	headers.Set(corev1.PortForwardRequestIDHeader, "0")
	headers.Set(corev1.StreamType, corev1.StreamTypeError)
	complaints, err := tunnel.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	headers.Set(corev1.StreamType, corev1.StreamTypeData)
	data, err := tunnel.CreateStream(headers)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	p := &passage{Conn: near, tunnel: tunnel}
	p.running.Go(func() { _, _ = io.Copy(io.Discard, complaints) }) // what is not read holds up the rest
	p.running.Go(func() {
		_, _ = io.Copy(far, data) // it ends however it ends
		_ = far.Close()
	})
	p.running.Go(func() {
		_, _ = io.Copy(data, far)
		_ = data.Close() // the other side is told that no more comes
	})
	return p, nil
}

// Close ends the connection and its tunnel.
func (p *passage) Close() error {
	err := errors.Join(p.Conn.Close(), p.tunnel.Close())
	p.running.Wait()
	return err
}
