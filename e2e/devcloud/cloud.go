package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"outrider.dev/e2e/devcloud/control"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/devcloud/sts"
)

// shutdownGrace is how long requests in progress may take to end after SIGTERM.
const shutdownGrace = 3 * time.Second

// cloud is everything that runs.
type cloud struct {
	handler *control.Handler
	log     *slog.Logger

	servers []*http.Server
	serving sync.WaitGroup
	failed  chan error // what ended a server that should go on
}

func open(opt options, log *slog.Logger) (*cloud, error) {
	if err := os.MkdirAll(opt.data, 0o755); err != nil {
		return nil, fmt.Errorf("create --data: %w", err)
	}
	store, err := keys.Open(filepath.Join(opt.data, "keys.json"))
	if err != nil {
		return nil, err
	}
	if err := store.Put(keys.Key{ID: opt.accessKeyID, Secret: opt.accessKeySecret}); err != nil {
		return nil, err
	}
	meta, err := metadata.New(metadata.Config{Settings: metadata.Settings{Region: opt.region, Role: opt.role}, Keys: store, Log: log})
	if err != nil {
		return nil, err
	}
	bucketStore, err := oss.New(oss.Config{
		Dir: filepath.Join(opt.data, "oss"), Region: opt.region, Domain: opt.domain, Keys: store,
		Buckets: opt.buckets, NoSync: opt.noSync, Log: log,
	})
	if err != nil {
		return nil, err
	}
	return &cloud{
		handler: &control.Handler{OSS: bucketStore, Metadata: meta, STS: &sts.Server{Keys: store, Log: log}, Keys: store, Now: time.Now},
		log:     log, failed: make(chan error, 3),
	}, nil
}

// listen opens all listeners before it serves on any.
func (c *cloud) listen(ctx context.Context, opt options) (addresses, error) {
	var a addresses
	var config net.ListenConfig
	front, err := config.Listen(ctx, "tcp", opt.ossListen)
	if err != nil {
		return a, fmt.Errorf("--oss-listen: %w", err)
	}
	side, err := config.Listen(ctx, "tcp", opt.metadataListen)
	if err != nil {
		return a, errors.Join(fmt.Errorf("--metadata-listen: %w", err), front.Close())
	}
	a.OSS, a.Metadata = "http://"+reachable(front), "http://"+reachable(side)
	if opt.stsListen != "" {
		secure, err := c.listenSTS(ctx, opt)
		if err != nil {
			return a, errors.Join(err, front.Close(), side.Close())
		}
		a.STS = reachable(secure)
		c.serve(secure, c.handler.STS)
	}
	c.serve(front, c.handler.OSS)
	c.serve(side, c.handler)
	return a, nil
}

func (c *cloud) listenSTS(ctx context.Context, opt options) (net.Listener, error) {
	cert, pemText, err := sts.SelfSigned(time.Now(), append([]string{"127.0.0.1", "localhost"}, opt.stsNames...)...)
	if err != nil {
		return nil, err
	}
	if opt.stsCAFile != "" {
		if err := os.WriteFile(opt.stsCAFile, pemText, 0o644); err != nil {
			return nil, fmt.Errorf("--sts-ca-file: %w", err)
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", opt.stsListen)
	if err != nil {
		return nil, fmt.Errorf("--sts-listen: %w", err)
	}
	return tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}), nil
}

// reachable turns the address of a listener on all interfaces into one that can be dialled.
func reachable(l net.Listener) string {
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return l.Addr().String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func (c *cloud) serve(l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelWarn)}
	c.servers = append(c.servers, s)
	c.serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.failed <- fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
	})
}

// shutdown stops accepting, lets requests end for a while, cuts the rest and closes the store.
func (c *cloud) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	var errs []error
	for _, s := range c.servers {
		if err := s.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			errs = append(errs, err)
		}
		_ = s.Close() // what is left after the grace
	}
	c.serving.Wait()
	return errors.Join(append(errs, c.handler.OSS.Close())...)
}
