// Package oss is the only door to Alibaba Cloud OSS: it implements archive.Bucket over the vendor's SDK, which is used
// as a thin binding (it signs, names operations and parses XML). Everything that makes a store trustworthy is done
// here: retries with deadlines, telling "not there" from "could not tell", reconciling lost answers, checksums over
// every byte in both directions, and resuming broken reads at the same version of the object.
package oss

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
	"github.com/prometheus/client_golang/prometheus"

	"outrider.dev/sidecar/internal/archive"
)

// ErrConfiguration says that no retry can help until a person changes the bucket or the configuration: there is no
// such bucket, it keeps versions, or it lives at another endpoint.
var ErrConfiguration = errors.New("the configuration of the bucket does not allow this")

// Config says where the bucket is and how to reach it. Location and Credentials are required, and Endpoint or Region.
type Config struct {
	// Location is oss://bucket/prefix. All keys are below prefix.
	Location string
	// Endpoint is a host or URL such as oss-cn-hangzhou-internal.aliyuncs.com. https is used unless http:// is written.
	// Empty means the public endpoint of Region.
	Endpoint string
	// Region such as cn-hangzhou is part of the signature. Empty means what the name of Endpoint says.
	Region      string
	Credentials Credentials
	// StorageClass is the class of what Upload stores: Standard or IA; empty means the bucket's. Small objects (Put) are
	// always Standard where a class is given, because in IA each is billed for 30 days and 64 KiB.
	StorageClass string
	// Encryption is none (the bucket's default), AES256, KMS or KMS:key-id.
	Encryption string
	Timeouts   Timeouts
	// PartSize is the size of the first thousand parts of a multipart upload in bytes; the default is 8 MiB.
	PartSize int
	// MaxConnections bounds the connections to the endpoint; the default is 32.
	MaxConnections int
	UserAgent      string
	// Transport replaces the HTTP transport, which is then the caller's to close.
	Transport  http.RoundTripper
	Log        *slog.Logger          // nil: silent
	Registerer prometheus.Registerer // nil: no metrics are published
}

// Bucket is an archive.Bucket in OSS. It is safe for concurrent use.
type Bucket struct {
	place       place
	region      string
	class       string
	encryption  []sdk.Option
	partSize    int
	limits      Timeouts
	credentials Credentials
	current     *currentKeys
	sdk         *sdk.Bucket
	transport   *transport
	metrics     *metrics
	usage       usage
	log         *slog.Logger
	versioning  atomic.Pointer[Versioning] // nil until OSS said it
	// offset is what is added to our clock so that it agrees with OSS's, in nanoseconds; 0 until OSS complains.
	offset atomic.Int64
}

var _ archive.Bucket = (*Bucket)(nil)

// Open checks the configuration. It sends nothing: see Bucket.Probe.
func Open(_ context.Context, c Config) (*Bucket, error) {
	place, err := parseLocation(c.Location)
	if err != nil {
		return nil, err
	}
	endpoint, region, err := locate(c.Endpoint, c.Region)
	if err != nil {
		return nil, err
	}
	if err := checkClass(c.StorageClass); err != nil {
		return nil, err
	}
	encryption, err := encryptionOptions(c.Encryption)
	if err != nil {
		return nil, err
	}
	if c.Credentials == nil {
		return nil, fmt.Errorf("opening %s: no credentials were given", c.Location)
	}
	b := &Bucket{
		place: place, region: region, class: c.StorageClass, encryption: encryption, partSize: c.PartSize,
		limits: c.Timeouts.withDefaults(), credentials: c.Credentials, current: &currentKeys{}, metrics: newMetrics(c.Registerer),
		log: c.Log,
	}
	if b.partSize == 0 {
		b.partSize = defaultPartSize
	}
	if b.partSize < minPartSize {
		return nil, fmt.Errorf("opening %s: parts of %d bytes are too small: OSS demands at least %d", c.Location, b.partSize, minPartSize)
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	b.transport = newTransport(c, b.limits, &b.usage, b.metrics)
	b.sdk, err = bind(endpoint, b, c.UserAgent)
	return b, err
}

// bind makes the SDK's objects. Its own checksums are off: ours cover more, and twice would cost twice.
func bind(endpoint string, b *Bucket, agent string) (*sdk.Bucket, error) {
	if agent == "" {
		agent = "outrider"
	}
	client, err := sdk.New(endpoint, "", "",
		sdk.AuthVersion(sdk.AuthV4), sdk.Region(b.region), sdk.SetCredentialsProvider(b.current), sdk.EnableCRC(false),
		sdk.UserAgent(agent), sdk.HTTPClient(&http.Client{
			Transport:     b.transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}))
	if err != nil {
		return nil, fmt.Errorf("opening %s at %s: %w", b.place, endpoint, err)
	}
	bucket, err := client.Bucket(b.place.bucket)
	if err != nil {
		return nil, fmt.Errorf("opening %s at %s: %w", b.place, endpoint, err)
	}
	return bucket, nil
}

// String is the place as oss://bucket/prefix.
func (b *Bucket) String() string { return b.place.String() }

// Close ends idle connections and waits for a refresh of credentials that is under way. The bucket stays usable.
func (b *Bucket) Close() error {
	b.transport.closeIdle()
	if c, ok := b.credentials.(interface{ Close() error }); ok {
		return c.Close()
	}
	return nil
}

// now is the time as OSS sees it, as far as we know.
func (b *Bucket) now() time.Time { return time.Now().Add(time.Duration(b.offset.Load())) }
