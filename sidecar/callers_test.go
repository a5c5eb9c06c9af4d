package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// street is a listener in a process, to which anybody can come from any address.
type street struct {
	conns  chan net.Conn
	closed chan struct{}
	open   atomic.Int64 // connections that this side has not closed
}

func (s *street) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}
func (s *street) Close() error   { close(s.closed); return nil }
func (s *street) Addr() net.Addr { return &net.TCPAddr{} }

type from struct {
	net.Conn
	host   string
	closed func()
}

func (f *from) Close() error {
	f.closed()
	return f.Conn.Close()
}

func (f *from) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.ParseIP(f.host), Port: 40000} }

func (s *street) dial(host string) net.Conn {
	here, there := net.Pipe()
	s.open.Add(1)
	s.conns <- &from{Conn: there, host: host, closed: sync.OnceFunc(func() { s.open.Add(-1) })}
	return here
}

// open serves h for as long as the test goes on.
func open(t *testing.T, h http.Handler) *street {
	t.Helper()
	s := &street{conns: make(chan net.Conn), closed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- serve(ctx, s, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
	return s
}

// ask returns the answer to a request, an error if it is not 200.
func ask(c net.Conn, path string) (string, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: pod\r\n\r\n", path); err != nil {
		return "", err
	}
	a, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", a.Status, b)
	}
	return string(b), err
}

// lasts is how long the other side leaves a connection open; a minute more than most if it does not close it.
func lasts(c net.Conn, most time.Duration) time.Duration {
	began := time.Now()
	_ = c.SetReadDeadline(began.Add(most + time.Minute))
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

// Nobody keeps a connection that nothing happens on, or hardly anything.
func TestConnectionsEnd(t *testing.T) {
	for name, c := range map[string]struct {
		with func(c net.Conn)
		most time.Duration
	}{
		"nothing is said":        {with: func(net.Conn) {}, most: headerTimeout},
		"a request without end":  {with: func(c net.Conn) { _, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\nHost:") }, most: headerTimeout},
		"a request, and no more": {with: func(c net.Conn) { _, _ = ask(c, "/livez") }, most: idleTimeout},
		"a body that never comes": {with: func(c net.Conn) {
			_, _ = io.WriteString(c, "POST /prestop HTTP/1.1\r\nHost: pod\r\nContent-Length: 10\r\n\r\n")
		}, most: requestTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g, _ := hooked(t, &calm{})
				conn := open(t, g.routes(t.Context(), prometheus.NewRegistry())).dial("10.0.0.7")
				defer conn.Close()
				c.with(conn)
				if took := lasts(conn, c.most); took > c.most {
					t.Errorf("it was open for %s, of at most %s", took, c.most)
				}
			})
		})
	}
}

// A hook is answered however long its preparation takes, and a kubelet that hangs up ends nothing.
func TestHookTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &calm{takes: 13 * time.Second}
		g, log := hooked(t, c)
		s := open(t, g.routes(t.Context(), prometheus.NewRegistry()))
		conn := s.dial("10.0.0.1")
		defer conn.Close()
		if text, err := ask(conn, "/prestop"); err != nil || !strings.Contains(text, `"complete": true`) {
			t.Errorf("the answer is %s, %v", text, err)
		}
		time.Sleep(freshEnough)
		hasty := s.dial("10.0.0.1")
		if _, err := io.WriteString(hasty, "GET /prestop HTTP/1.1\r\nHost: pod\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := hasty.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if c.checkpoints != 2 || entries(log) != 2 {
			t.Errorf("%d checkpoints and %d entries for two hooks, one of which hung up", c.checkpoints, entries(log))
		}
	})
}

// Whoever fills the port keeps nobody out: not the kubelet, and not those who have a connection already.
func TestCrowd(t *testing.T) {
	const crowd = 20 * mostCallers
	const hang = "GET /hang HTTP/1.1\r\nHost: pod\r\n\r\n"
	for name, opening := range map[string][]string{
		"idle":         nil,
		"drop by drop": {"GET /livez"},
		"hanging":      {hang},
		// The server, which has read on, does not see that such a connection ends.
		"hanging, and on": {hang, "G"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hanging := make(chan struct{}, crowd)
				mux := http.NewServeMux()
				mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok\n") })
				mux.HandleFunc("GET /hang", func(_ http.ResponseWriter, r *http.Request) {
					hanging <- struct{}{}
					select {
					case <-r.Context().Done():
					case <-t.Context().Done():
					}
					<-hanging
				})
				s := open(t, mux)
				scraper := s.dial("10.0.0.2")
				defer scraper.Close()
				if _, err := ask(scraper, "/livez"); err != nil {
					t.Fatal(err)
				}
				for range crowd {
					c := s.dial("10.0.0.66")
					t.Cleanup(func() { _ = c.Close() })
					go func() {
						for _, part := range opening {
							_, _ = io.WriteString(c, part)
						}
					}()
				}
				synctest.Wait()
				if n, m := s.open.Load(), len(hanging); n > mostCallers || m > mostCallers {
					t.Errorf("%d connections are open, %d requests are under way", n, m)
				}
				for who, conn := range map[string]net.Conn{"the kubelet": s.dial("10.0.0.1"), "a scraper": scraper} {
					if _, err := ask(conn, "/livez"); err != nil {
						t.Errorf("%s: %v", who, err)
					}
					if err := conn.Close(); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A page of another site cannot have a browser call the hook.
func TestHookOfABrowser(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		header map[string]string
		code   int
	}{
		"a kubelet":                    {method: "GET", code: http.StatusOK},
		"a person":                     {method: "GET", header: map[string]string{"Sec-Fetch-Site": "none"}, code: http.StatusOK},
		"a page of this port":          {method: "POST", header: map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:9850"}, code: http.StatusOK},
		"an image on a page":           {method: "GET", header: map[string]string{"Sec-Fetch-Site": "cross-site"}, code: http.StatusForbidden},
		"a page of another port":       {method: "GET", header: map[string]string{"Sec-Fetch-Site": "same-site"}, code: http.StatusForbidden},
		"a form of an old browser":     {method: "POST", header: map[string]string{"Origin": "https://example.com"}, code: http.StatusForbidden},
		"a form of a page without one": {method: "POST", header: map[string]string{"Origin": "null"}, code: http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			s := &calm{}
			g, _ := hooked(t, s)
			r := httptest.NewRequestWithContext(t.Context(), c.method, "http://localhost:9850/prestop", nil)
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			w := httptest.NewRecorder()
			g.routes(t.Context(), prometheus.NewRegistry()).ServeHTTP(w, r)
			if w.Code != c.code || s.checkpoints > 0 != (c.code == http.StatusOK) || g.wasAsked() != (c.code == http.StatusOK) {
				t.Errorf("status %d and %d checkpoints, want status %d", w.Code, s.checkpoints, c.code)
			}
		})
	}
}
