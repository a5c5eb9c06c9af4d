// Package stock reads an archive the way stock WAL-G does, knowing nothing of Outrider: other SDK, other code, only
// the documented layout. It is stricter than the real tool, which takes a missing or short object for a good one.
package stock

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
	"github.com/klauspost/compress/zstd"
)

// Config says where the archive is: what WALG_OSS_PREFIX, OSS_ENDPOINT, OSS_REGION and the keys say to WAL-G.
type Config struct {
	Prefix   string // oss://bucket/path
	Endpoint string
	Region   string
	KeyID    string
	Secret   string
}

// Archive is an opened archive.
type Archive struct {
	client *oss.Client
	bucket string
	prefix string
}

// Open makes a client. It sends nothing yet.
func Open(c Config) (*Archive, error) {
	place, ok := strings.CutPrefix(c.Prefix, "oss://")
	bucket, prefix, _ := strings.Cut(place, "/")
	if !ok || bucket == "" || prefix == "" {
		return nil, fmt.Errorf("%q is not a place in OSS: expected oss://bucket/path", c.Prefix)
	}
	cfg := oss.LoadDefaultConfig().WithEndpoint(c.Endpoint).WithRegion(c.Region).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(c.KeyID, c.Secret))
	return &Archive{client: oss.NewClient(cfg), bucket: bucket, prefix: strings.TrimSuffix(prefix, "/") + "/"}, nil
}

// list returns the keys below dir, relative to it.
func (a *Archive) list(ctx context.Context, dir string) ([]string, error) {
	var keys []string
	pages := a.client.NewListObjectsV2Paginator(&oss.ListObjectsV2Request{Bucket: &a.bucket, Prefix: oss.Ptr(a.prefix + dir)})
	for pages.HasNext() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", dir, err)
		}
		for _, o := range page.Contents {
			keys = append(keys, strings.TrimPrefix(*o.Key, a.prefix+dir))
		}
	}
	return keys, nil
}

// get reads an object.
func (a *Archive) get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, err := a.client.GetObject(ctx, &oss.GetObjectRequest{Bucket: &a.bucket, Key: oss.Ptr(a.prefix + key)})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	return r.Body, nil
}

func (a *Archive) read(ctx context.Context, key string) ([]byte, error) {
	body, err := a.get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// decoded reads a .zst object decompressed.
func (a *Archive) decoded(ctx context.Context, key string) (io.ReadCloser, error) {
	body, err := a.get(ctx, key)
	if err != nil {
		return nil, err
	}
	d, err := zstd.NewReader(body)
	if err != nil {
		return nil, fmt.Errorf("reading %s as zstd: %w", key, err)
	}
	return &both{ReadCloser: d.IOReadCloser(), body: body}, nil
}

type both struct {
	io.ReadCloser
	body io.Closer
}

func (b *both) Close() error {
	err := b.ReadCloser.Close()
	if cerr := b.body.Close(); err == nil {
		err = cerr
	}
	return err
}
