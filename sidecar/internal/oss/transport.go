package oss

import (
	"cmp"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
)

// exchange is one HTTP request and its answer as they were seen on the wire: the SDK keeps to itself most of what an
// error or a checksum has to be judged by.
type exchange struct {
	op     operation
	header http.Header // of the answer; nil if none came
	status int
	seen   time.Time      // when the headers of the answer came, by our clock
	began  bool           // whether a request was handed to the transport at all
	body   sync.WaitGroup // until the transport has let go of the request's body
}

type exchangeKey struct{}

// transport counts and times requests, and records them in the exchange that their context carries.
type transport struct {
	base    http.RoundTripper
	class   string // of what is stored in parts
	usage   *usage
	metrics *metrics
	clock   clock
}

const defaultConnections = 32

func newTransport(c Config, t Timeouts, u *usage, m *metrics) *transport {
	base := c.Transport
	if base == nil {
		limit := c.MaxConnections
		if limit <= 0 {
			limit = defaultConnections
		}
		base = &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: t.Connect, KeepAlive: 15 * time.Second}).DialContext,
			TLSHandshakeTimeout: t.Connect,
			MaxConnsPerHost:     limit,
			MaxIdleConns:        limit,
			MaxIdleConnsPerHost: limit,
			// OSS closes idle connections after about a minute; ours should go first.
			IdleConnTimeout: 45 * time.Second,
			// OSS would compress what looks like text, and then neither length nor checksum were there to compare.
			DisableCompression: true,
			WriteBufferSize:    64 << 10,
			ReadBufferSize:     64 << 10,
		}
	}
	for _, kind := range []string{"put", "get"} {
		// That there were none is known, and a counter that begins with its first ones would be short of them.
		for _, class := range []string{string(sdk.StorageStandard), cmp.Or(c.StorageClass, string(sdk.StorageStandard))} {
			m.billed.WithLabelValues(kind, class)
		}
	}
	return &transport{base: base, class: c.StorageClass, usage: u, metrics: m}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	x, ok := req.Context().Value(exchangeKey{}).(*exchange)
	if !ok {
		x = &exchange{op: "other"}
	}
	x.began = true
	if req.Body != nil {
		req = req.WithContext(req.Context()) // a copy, as a RoundTripper must not change its request
		if req.ContentLength == 0 {
			// Without this the transport would guess by reading, and the body would count as one of unknown length.
			req.Body = http.NoBody
		} else {
			x.body.Add(1)
			req.Body = &sentBody{ReadCloser: req.Body, count: t.countSent, done: sync.OnceFunc(x.body.Done)}
		}
	}
	begin := time.Now()
	resp, err := t.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	x.seen = time.Now()
	x.header, x.status = resp.Header, resp.StatusCode
	t.clock.note(x)
	t.metrics.seconds.WithLabelValues(string(x.op)).Observe(x.seen.Sub(begin).Seconds())
	if resp.StatusCode < 400 {
		t.bill(x.op, t.classOf(x.op, req, resp))
	}
	resp.Body = &receivedBody{ReadCloser: resp.Body, count: t.countReceived}
	return resp, nil
}

func (t *transport) bill(op operation, class string) {
	switch op {
	case opGet, opHead, opVersioning:
		t.usage.gets.Add(1)
		t.metrics.billed.WithLabelValues("get", class).Inc()
	default:
		t.usage.puts.Add(1)
		t.metrics.billed.WithLabelValues("put", class).Inc()
	}
}

// classOf is the storage class at whose price a request is billed: that of the object, as far as the request or its
// answer tells.
func (t *transport) classOf(op operation, req *http.Request, resp *http.Response) string {
	class := cmp.Or(resp.Header.Get(sdk.HTTPHeaderOssStorageClass), req.Header.Get(sdk.HTTPHeaderOssStorageClass))
	if op == opPart || op == opComplete || op == opAbort { // only the request that begins an upload names its class
		class = cmp.Or(class, t.class)
	}
	return cmp.Or(class, string(sdk.StorageStandard))
}

func (t *transport) countSent(n int) {
	t.usage.sent.Add(int64(n))
	t.metrics.sent.Add(float64(n))
}

func (t *transport) countReceived(n int) {
	t.usage.received.Add(int64(n))
	t.metrics.received.Add(float64(n))
}

// closeIdle drops connections that may be as dead as the one that has just timed out.
func (t *transport) closeIdle() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// sentBody tells when the transport is done with it: that can be after RoundTrip has returned, and the buffer beneath
// must not be used for anything else before.
type sentBody struct {
	io.ReadCloser
	count func(int)
	done  func()
}

func (b *sentBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	return n, err
}

func (b *sentBody) Close() error {
	err := b.ReadCloser.Close()
	b.done()
	return err
}

type receivedBody struct {
	io.ReadCloser
	count func(int)
}

func (b *receivedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count(n)
	return n, err
}

func withExchange(ctx context.Context, x *exchange) context.Context {
	return context.WithValue(ctx, exchangeKey{}, x)
}
