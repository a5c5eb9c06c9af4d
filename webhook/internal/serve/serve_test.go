package serve

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// started is a server with a certificate of net/http/httptest's, and clients that trust it and speak HTTP/1.1 as an
// API server does with webhooks.
func started(t *testing.T, lame func() time.Duration, drain time.Duration, handler http.Handler) (s *Server, url string, newClient func() *http.Client, stop func() error) {
	t.Helper()
	donor := httptest.NewTLSServer(nil)
	t.Cleanup(donor.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = New(Config{
		Listener: l, Handler: handler, Drain: drain,
		Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &donor.TLS.Certificates[0], nil },
		LameDuck:    lame,
		Log:         slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return s, "https://" + l.Addr().String(), func() *http.Client {
		transport := donor.Client().Transport.(*http.Transport).Clone()
		transport.ForceAttemptHTTP2 = false
		transport.MaxConnsPerHost = 1 // none is opened that then is not needed, which a server would wait for
		t.Cleanup(transport.CloseIdleConnections)
		return &http.Client{Transport: transport}
	}, stop
}

func post(ctx context.Context, client *http.Client, url string) (closing bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte("x")))
	if err != nil {
		return false, err
	}
	res, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return false, err
	}
	if res.StatusCode != http.StatusOK {
		return false, errors.New(res.Status)
	}
	return res.Close, nil
}

// Clients that never learn that the pod is going, and use their connections again as long as they can, get every answer
// until the lame duck is over.
func TestNoRequestIsLostInTheLameDuck(t *testing.T) {
	left := make(chan struct{}) // by all clients
	s, url, newClient, stop := started(t, func() time.Duration { <-left; return time.Millisecond }, 30*time.Second, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))
	client := newClient()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var lost []error
	asked := 0
	leave := make(chan struct{}) // clients are sent elsewhere some time after the pod stopped being ready
	for range 4 {
		mine := newClient()
		wg.Go(func() {
			for {
				select {
				case <-leave:
					return
				default:
				}
				_, err := post(t.Context(), mine, url)
				mu.Lock()
				asked++
				if err != nil {
					lost = append(lost, err)
				}
				mu.Unlock()
			}
		})
	}
	for done := false; !done; {
		mu.Lock()
		done = asked > 20
		mu.Unlock()
		time.Sleep(time.Millisecond)
	}
	if s.Ready() != nil {
		t.Errorf("not ready: %v", s.Ready())
	}
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for s.Ready() == nil {
		time.Sleep(time.Millisecond)
	}
	if closing, err := post(t.Context(), client, url); err != nil || !closing {
		t.Errorf("while stopping: %v; the connection is closed: %t", err, closing)
	}
	time.Sleep(100 * time.Millisecond)
	close(leave)
	wg.Wait()
	close(left)
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if len(lost) > 0 {
		t.Errorf("%d of %d requests were lost: %v", len(lost), asked, lost[0])
	}
	if _, err := post(t.Context(), newClient(), url); err == nil {
		t.Error("it still answers")
	}
}

// A request that came before the end is answered, with a context that lives.
func TestRequestsComeToTheirEnd(t *testing.T) {
	inside, finish := make(chan struct{}), make(chan struct{})
	_, url, newClient, stop := started(t, func() time.Duration { return 0 }, 10*time.Second, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(inside)
		select {
		case <-finish:
		case <-r.Context().Done():
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	answer := make(chan error, 1)
	go func() { _, err := post(t.Context(), newClient(), url); answer <- err }()
	<-inside
	ended := make(chan error, 1)
	go func() { ended <- stop() }()
	for {
		c, err := net.Dial("tcp", url[len("https://"):])
		if err != nil {
			break // nobody is let in any more
		}
		_ = c.Close()
	}
	close(finish)
	if err := <-answer; err != nil {
		t.Errorf("the answer: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A request that does not end is cut off, and that is said.
func TestRequestThatDoesNotEnd(t *testing.T) {
	inside := make(chan struct{})
	_, url, newClient, stop := started(t, func() time.Duration { return 0 }, 50*time.Millisecond, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(inside)
		<-r.Context().Done()
	}))
	answer := make(chan error, 1)
	go func() { _, err := post(t.Context(), newClient(), url); answer <- err }()
	<-inside
	if err := stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	if err := <-answer; err == nil {
		t.Error("there was an answer")
	}
}

func TestListenerThatFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = l.Close()
	s := New(Config{Listener: l, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }, Log: slog.New(slog.DiscardHandler)})
	if err := s.Run(t.Context()); err == nil {
		t.Error("no error")
	}
}
