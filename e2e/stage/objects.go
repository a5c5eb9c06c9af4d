package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
)

func (c *Cloud) client() *oss.Client {
	return oss.NewClient(oss.LoadDefaultConfig().WithEndpoint(c.OSS).WithRegion(Region).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(accessKeyID, accessKeySecret)))
}

// Objects lists what lies below root: from the key relative to it to the object's ETag, which changes with its content.
func (c *Cloud) Objects(ctx context.Context, root string) (map[string]string, error) {
	prefix := prefixOf(root)
	found := map[string]string{}
	pages := c.client().NewListObjectsV2Paginator(&oss.ListObjectsV2Request{Bucket: oss.Ptr(Bucket), Prefix: oss.Ptr(prefix)})
	for pages.HasNext() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", root, err)
		}
		for _, o := range page.Contents {
			found[strings.TrimPrefix(*o.Key, prefix)] = *o.ETag
		}
	}
	return found, nil
}

// RemoveObject deletes an object below root, as an accident does.
func (c *Cloud) RemoveObject(ctx context.Context, root, key string) error {
	_, err := c.client().DeleteObject(ctx, &oss.DeleteObjectRequest{Bucket: oss.Ptr(Bucket), Key: oss.Ptr(prefixOf(root) + key)})
	if err != nil {
		return fmt.Errorf("deleting %s of %s: %w", key, root, err)
	}
	return nil
}

// FlipBit changes one bit in the middle of an object below root and nothing else of it; done again, it is as it was.
func (c *Cloud) FlipBit(ctx context.Context, root, key string) error {
	at := prefixOf(root) + key
	head, err := c.client().HeadObject(ctx, &oss.HeadObjectRequest{Bucket: oss.Ptr(Bucket), Key: oss.Ptr(at)})
	if err != nil {
		return fmt.Errorf("asking for %s of %s: %w", key, root, err)
	}
	b, err := c.Object(ctx, root, key)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	_, err = c.client().PutObject(ctx, &oss.PutObjectRequest{Bucket: oss.Ptr(Bucket), Key: oss.Ptr(at), Body: bytes.NewReader(b), Metadata: head.Metadata})
	if err != nil {
		return fmt.Errorf("writing %s of %s: %w", key, root, err)
	}
	return nil
}

// Object reads an object below root.
func (c *Cloud) Object(ctx context.Context, root, key string) ([]byte, error) {
	got, err := c.client().GetObject(ctx, &oss.GetObjectRequest{Bucket: oss.Ptr(Bucket), Key: oss.Ptr(prefixOf(root) + key)})
	if err != nil {
		return nil, fmt.Errorf("reading %s of %s: %w", key, root, err)
	}
	b, err := io.ReadAll(got.Body)
	return b, errors.Join(err, got.Body.Close())
}

// prefixOf is the prefix of the keys below root.
func prefixOf(root string) string {
	return strings.TrimPrefix(root, "oss://"+Bucket+"/") + "/"
}
