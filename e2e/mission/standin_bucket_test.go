//go:build e2e

package mission_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"outrider.dev/e2e/cluster/local"
)

func (s *standIn) Keys(prefix string) (found []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pages := s.client.NewListObjectsV2Paginator(&sdk.ListObjectsV2Request{Bucket: sdk.Ptr(local.Bucket), Prefix: &prefix})
	for pages.HasNext() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", prefix, err)
		}
		for _, o := range page.Contents {
			found = append(found, *o.Key)
		}
	}
	return found, nil
}

func (s *standIn) Read(key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := s.client.GetObject(ctx, &sdk.GetObjectRequest{Bucket: sdk.Ptr(local.Bucket), Key: &key})
	var refusal *sdk.ServiceError
	if errors.As(err, &refusal) && refusal.Code == "NoSuchKey" {
		return nil, fmt.Errorf("reading %s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", key, err)
	}
	content, err := io.ReadAll(got.Body)
	return content, errors.Join(err, got.Body.Close())
}

func (s *standIn) Write(key string, content []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := s.client.PutObject(ctx, &sdk.PutObjectRequest{Bucket: sdk.Ptr(local.Bucket), Key: &key, Body: bytes.NewReader(content)})
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	return nil
}
