// Package serve is a TLS server that nobody notices stopping. API servers keep connections open and use them again, and
// a Service goes on sending to a pod for a while after it began to terminate: a server that closes at once refuses
// admissions. So this one first says that it is not ready, goes on answering for a while, closing each connection in the
// way that HTTP announces, and then lets the requests that are left come to their end, whose contexts it never cancels.
package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Config is what a Server needs.
type Config struct {
	Listener    net.Listener // without TLS
	Handler     http.Handler
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// LameDuck is how long it goes on answering after it was told to stop; Drain how long requests may take after that.
	LameDuck func() time.Duration
	Drain    time.Duration
	Log      *slog.Logger
}

// Server answers until it is told to stop. Its methods may be called by anyone at any time.
type Server struct {
	cfg      Config
	stopping atomic.Bool
}

// New makes a Server; the listener is its own from now on.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// ErrStopping is the answer of Ready once the server has been told to stop.
var ErrStopping = errors.New("it is stopping")

// Ready is nil until the server is told to stop.
func (s *Server) Ready() error {
	if s.stopping.Load() {
		return ErrStopping
	}
	return nil
}

// Run serves until ctx ends and then comes to an orderly stop, which takes up to LameDuck and Drain. An error means that
// it could not serve, or that requests were cut off.
func (s *Server) Run(ctx context.Context) error {
	srv := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.cfg.Certificate, NextProtos: []string{"h2", "http/1.1"}},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug), // handshakes that port scanners break off
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.ServeTLS(s.cfg.Listener, "", "") }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving %s: %w", s.cfg.Listener.Addr(), err)
	case <-ctx.Done():
	}
	s.stopping.Store(true)
	lame := s.cfg.LameDuck()
	s.cfg.Log.InfoContext(ctx, "stopping; still answering while others are told", "lame_duck", lame.String())
	t := time.NewTimer(lame)
	defer t.Stop()
	select {
	case err := <-ended:
		return fmt.Errorf("serving %s: %w", s.cfg.Listener.Addr(), err)
	case <-t.C:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		err = fmt.Errorf("requests were still running %s after the last could come: %w", s.cfg.Drain, errors.Join(err, srv.Close()))
	}
	if e := <-ended; err == nil && !errors.Is(e, http.ErrServerClosed) {
		err = fmt.Errorf("serving %s: %w", s.cfg.Listener.Addr(), e)
	}
	return err
}

// handle closes connections, in the orderly way, while the server is stopping.
func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	if s.stopping.Load() {
		w.Header().Set("Connection", "close")
	}
	s.cfg.Handler.ServeHTTP(w, r)
}
