package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"outrider.dev/e2e/cluster"
	"outrider.dev/e2e/devcloud/control"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/devcloud/sts"
)

// The cloud as pods see it. Names below ossDomain lead to it, as the bucket's name is part of the host's.
const (
	Region          = "cn-hangzhou"
	ossDomain       = "oss-cn-hangzhou-internal.aliyuncs.com"
	Endpoint        = "http://" + ossDomain
	Bucket          = "backups"
	AccessKeyID     = "devcloud"
	AccessKeySecret = "devcloud-secret"
)

// cloudAddress is where OSS listens: outside of all nodes, in the network of the test.
const cloudAddress = cluster.WorldAddress

// Cloud is the stand-in for Alibaba Cloud: OSS for all, and a metadata service for each node. It runs in this process, so
// that tests can switch its faults on and read what it holds.
type Cloud struct {
	OSS  *oss.Server
	Keys *keys.Store

	mu       sync.Mutex
	asked    map[string]int64 // requests to OSS, by the first folder of the key
	metadata map[string]*metadata.Server
	servers  map[string]*http.Server // by node; that of OSS has no name
	serving  sync.WaitGroup
	log      *slog.Logger
}

// startCloud starts OSS on a directory.
func startCloud(ctx context.Context, dir string, log *slog.Logger) (*Cloud, error) {
	store, err := keys.Open("")
	if err != nil {
		return nil, err
	}
	if err := store.Put(keys.Key{ID: AccessKeyID, Secret: AccessKeySecret}); err != nil {
		return nil, err
	}
	c := &Cloud{Keys: store, asked: map[string]int64{}, metadata: map[string]*metadata.Server{}, servers: map[string]*http.Server{}, log: log}
	c.OSS, err = oss.New(oss.Config{
		Dir: dir, Region: Region, Domain: ossDomain, Keys: store, Buckets: []string{Bucket}, NoSync: true, Log: log,
	})
	if err != nil {
		return nil, err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp4", net.JoinHostPort(cloudAddress, "80"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("starting OSS: %w", err), c.OSS.Close())
	}
	c.serve("", l, c.counted(c.OSS))
	return c, nil
}

// counted counts the requests of pods, which name the bucket with the host and the key, or the prefix of a listing, thereafter.
func (c *Cloud) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(r.URL.Path, "/")
		if key == "" {
			key = r.URL.Query().Get("prefix")
		}
		folder, _, _ := strings.Cut(key, "/")
		c.mu.Lock()
		c.asked[folder]++
		c.mu.Unlock()
		h.ServeHTTP(w, r)
	})
}

// Asked is how many requests there were about objects in a folder of the bucket, and about listings of it.
func (c *Cloud) Asked(folder string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked[folder]
}

// attend starts the metadata service of a node, where its pods expect it.
func (c *Cloud) attend(ctx context.Context, n *cluster.Node, instance string) error {
	m, err := metadata.New(metadata.Config{
		Settings: metadata.Settings{InstanceID: instance, Region: Region, PrivateIPv4: n.Address.String()}, Keys: c.Keys, Log: c.log,
	})
	if err != nil {
		return err
	}
	l, err := n.Listen(ctx, net.JoinHostPort(cluster.MetadataAddress, "80"))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.metadata[n.Name] = m
	c.mu.Unlock()
	c.serve(n.Name, l, &control.Handler{OSS: c.OSS, Metadata: m, STS: &sts.Server{Keys: c.Keys, Log: c.log}, Keys: c.Keys, Now: time.Now})
	return nil
}

// Metadata is the metadata service of a node, nil if there is no such node.
func (c *Cloud) Metadata(node string) *metadata.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.metadata[node]
}

// serve serves for a node. What served for one of the same name before, which is gone, ends: a socket keeps its network.
func (c *Cloud) serve(node string, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(c.log.Handler(), slog.LevelWarn)}
	c.mu.Lock()
	if before := c.servers[node]; before != nil {
		_ = before.Close() // nobody is left to be served
	}
	c.servers[node] = s
	c.mu.Unlock()
	c.serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error("the stand-in cloud stopped serving", "address", l.Addr().String(), "error", err)
		}
	})
}

func (c *Cloud) close() error {
	c.mu.Lock()
	for _, s := range c.servers {
		_ = s.Close() // nobody is left to be served
	}
	c.mu.Unlock()
	c.serving.Wait()
	return c.OSS.Close()
}
