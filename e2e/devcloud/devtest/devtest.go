// Package devtest starts the stand-in cloud inside a test.
//
//	cloud := devtest.Start(t)
//	client, err := oss.New(cloud.Endpoint, cloud.AccessKeyID, cloud.AccessKeySecret)
package devtest

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"outrider.dev/e2e/devcloud/control"
	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/metadata"
	"outrider.dev/e2e/devcloud/oss"
	"outrider.dev/e2e/devcloud/sts"
)

// Cloud is a running stand-in. It ends with the test.
type Cloud struct {
	Endpoint        string // http://127.0.0.1:port, path style
	AccessKeyID     string // may do everything
	AccessKeySecret string
	Region          string
	Bucket          string // exists, empty, unversioned
	MetadataURL     string // http://127.0.0.1:port, in place of http://100.100.100.200; also has /control/ and /sts/

	OSS      *oss.Server      // faults, counters, buckets
	Metadata *metadata.Server // the instance, termination notices, faults
	STS      *sts.Server      // temporary keys for service accounts
	Keys     *keys.Store      // further access keys and their rights

	t      testing.TB
	config oss.Config
	addr   string
	front  *http.Server
	served chan struct{}
	side   atomic.Pointer[control.Handler]
}

// Start starts a stand-in on 127.0.0.1 with a directory of its own, without fsync. The functions change its
// configuration before it starts.
func Start(t testing.TB, change ...func(*oss.Config)) *Cloud {
	t.Helper()
	store, err := keys.Open("")
	if err != nil {
		t.Fatal(err)
	}
	c := &Cloud{
		AccessKeyID: "AKDEVTEST", AccessKeySecret: "devtest-secret", Region: "cn-hangzhou", Bucket: "outrider-test",
		Keys: store, t: t, addr: "127.0.0.1:0",
	}
	if err := store.Put(keys.Key{ID: c.AccessKeyID, Secret: c.AccessKeySecret}); err != nil {
		t.Fatal(err)
	}
	c.config = oss.Config{Dir: t.TempDir(), Region: c.Region, Keys: store, Buckets: []string{c.Bucket}, NoSync: true}
	for _, f := range change {
		f(&c.config)
	}
	c.Region = c.config.Region
	c.Metadata, err = metadata.New(metadata.Config{Settings: metadata.Settings{Region: c.Region}, Keys: store, Now: c.config.Now})
	if err != nil {
		t.Fatal(err)
	}
	c.STS = &sts.Server{Keys: store, Now: c.config.Now}
	c.Up()
	t.Cleanup(c.Down)
	side := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.side.Load().ServeHTTP(w, r) }))
	t.Cleanup(side.Close)
	c.MetadataURL = side.URL
	return c
}

// StartSTS serves STS over https, as the official client insists on. endpoint is host:port for
// ALIBABA_CLOUD_STS_ENDPOINT; the client has to trust roots.
func (c *Cloud) StartSTS() (endpoint string, roots *x509.CertPool) {
	c.t.Helper()
	server := httptest.NewTLSServer(c.STS)
	c.t.Cleanup(server.Close)
	roots = x509.NewCertPool()
	roots.AddCert(server.Certificate())
	return server.Listener.Addr().String(), roots
}

// Up starts OSS again after Down, at the same address and with the same content. Faults and counters start anew.
func (c *Cloud) Up() {
	c.t.Helper()
	if c.front != nil {
		return
	}
	server, err := oss.New(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", c.addr)
	if err != nil {
		c.t.Fatal(err)
	}
	c.OSS, c.addr = server, listener.Addr().String()
	c.Endpoint = "http://" + c.addr
	now := c.config.Now
	if now == nil {
		now = time.Now
	}
	c.side.Store(&control.Handler{OSS: server, Metadata: c.Metadata, STS: c.STS, Keys: c.Keys, Now: now})
	c.front, c.served = &http.Server{Handler: server, ReadHeaderTimeout: time.Minute}, make(chan struct{})
	go func() {
		defer close(c.served)
		_ = c.front.Serve(listener) // ends with ErrServerClosed
	}()
}

// Down cuts all connections and refuses new ones until Up.
func (c *Cloud) Down() {
	c.t.Helper()
	if c.front == nil {
		return
	}
	if err := c.front.Close(); err != nil {
		c.t.Error(err)
	}
	<-c.served
	c.front = nil
	if err := c.OSS.Close(); err != nil {
		c.t.Error(err)
	}
}

// SetFaults replaces the armed faults; a fault that is not valid fails the test.
func (c *Cloud) SetFaults(faults ...oss.Fault) {
	c.t.Helper()
	if err := c.OSS.SetFaults(faults...); err != nil {
		c.t.Fatal(err)
	}
}

// Requests returns what OSS was asked since the start or the last reset.
func (c *Cloud) Requests() oss.Requests { return c.OSS.Requests() }

// ResetRequests sets the counters to zero.
func (c *Cloud) ResetRequests() { c.OSS.ResetRequests() }
