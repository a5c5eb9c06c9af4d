package stage

import (
	"context"
	"fmt"
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

// prefixOf is the prefix of the keys below root.
func prefixOf(root string) string {
	return strings.TrimPrefix(root, "oss://"+Bucket+"/") + "/"
}
