package oss

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/sidecar/internal/archive"
)

// pageSize is the most keys that OSS lists or deletes in one request.
const pageSize = 1000

// List implements archive.Reader. Each page begins after the last key of the one before, so that a repeated request
// is the same request.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	return func(yield func(archive.ObjectInfo, error) bool) {
		cursor := ""
		if after != "" {
			cursor = b.place.prefix + after
		}
		for {
			page, more, err := b.page(ctx, prefix, cursor)
			if err != nil {
				yield(archive.ObjectInfo{}, err)
				return
			}
			for _, o := range page {
				cursor = o.Key
				if o.Key = strings.TrimPrefix(o.Key, b.place.prefix); o.Key == "" {
					continue // the object that consoles make for the prefix itself
				}
				if !yield(o, nil) {
					return
				}
			}
			if !more {
				return
			}
		}
	}
}

// page reads one page. Its keys are whole, and so is cursor, after which it begins.
func (b *Bucket) page(ctx context.Context, prefix, cursor string) ([]archive.ObjectInfo, bool, error) {
	var answer sdk.ListObjectsResultV2
	var page []archive.ObjectInfo
	_, err := b.do(ctx, call{
		op: opList, key: prefix,
		run: func(opts []sdk.Option) (err error) {
			opts = append(opts, sdk.Prefix(b.place.prefix+prefix), sdk.MaxKeys(pageSize))
			if cursor != "" {
				opts = append(opts, sdk.StartAfter(cursor))
			}
			answer, err = b.sdk.ListObjectsV2(opts...)
			return err
		},
		check: func(x *exchange) (err error) {
			page, err = x.readPage(answer, b.place.prefix+prefix, cursor)
			return err
		},
	})
	return page, answer.IsTruncated, err
}

var errListing = errors.New("OSS gave a listing that makes no sense")

// readPage sees to it that the keys are what was asked for, in order: who decides from a listing that something is not
// there must be able to rely on it.
func (x *exchange) readPage(answer sdk.ListObjectsResultV2, prefix, cursor string) ([]archive.ObjectInfo, error) {
	if err := x.checkOrigin(); err != nil {
		return nil, err
	}
	if answer.IsTruncated && len(answer.Objects) == 0 {
		return nil, fmt.Errorf("%w: an empty page that is not the last", errListing)
	}
	seen := x.date()
	page := make([]archive.ObjectInfo, 0, len(answer.Objects))
	for _, o := range answer.Objects {
		if !strings.HasPrefix(o.Key, prefix) || o.Key <= cursor {
			return nil, fmt.Errorf("%w: %q where keys with prefix %q after %q were asked for", errListing, o.Key, prefix, cursor)
		}
		cursor = o.Key
		page = append(page, archive.ObjectInfo{
			Key: o.Key, Size: o.Size, LastModified: o.LastModified, StorageClass: o.StorageClass, SeenAt: seen,
		})
	}
	return page, nil
}
