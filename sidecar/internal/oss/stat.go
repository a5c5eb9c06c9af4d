package oss

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/sidecar/internal/archive"
)

// Stat implements archive.Reader.
func (b *Bucket) Stat(ctx context.Context, key string) (archive.ObjectInfo, error) {
	if err := b.place.checkKey(key); err != nil {
		return archive.ObjectInfo{}, err
	}
	var info archive.ObjectInfo
	_, err := b.do(ctx, call{
		op: opHead, key: key,
		run: func(opts []sdk.Option) error {
			_, err := b.sdk.GetObjectDetailedMeta(b.place.prefix+key, opts...)
			return err
		},
		check: func(x *exchange) (err error) {
			if err = x.checkOrigin(); err == nil {
				info, err = x.objectInfo(key)
			}
			return err
		},
	})
	return info, err
}

// objectInfo reads the headers of a HEAD or GET. Size is Content-Length, which a range makes smaller than the object.
func (x *exchange) objectInfo(key string) (archive.ObjectInfo, error) {
	info := archive.ObjectInfo{Key: key, Meta: map[string]string{}, StorageClass: x.header.Get(sdk.HTTPHeaderOssStorageClass), SeenAt: x.date()}
	var err error
	if info.Size, err = strconv.ParseInt(x.header.Get("Content-Length"), 10, 64); err != nil || info.Size < 0 {
		return info, fmt.Errorf("%w: its Content-Length is %q", errNotOSS, x.header.Get("Content-Length"))
	}
	if info.LastModified, err = http.ParseTime(x.header.Get("Last-Modified")); err != nil {
		return info, fmt.Errorf("%w: its Last-Modified is %q", errNotOSS, x.header.Get("Last-Modified"))
	}
	// Objects from before OSS computed checksums have none: 0, not known.
	info.CRC64, _ = strconv.ParseUint(x.header.Get(sdk.HTTPHeaderOssCRC64), 10, 64)
	for name, values := range x.header {
		if k, ok := strings.CutPrefix(name, sdk.HTTPHeaderOssMetaPrefix); ok && len(values) > 0 {
			info.Meta[strings.ToLower(k)] = values[0]
		}
	}
	return info, nil
}

// date is the time of the answer by OSS's clock, to the second; zero if it does not say.
func (x *exchange) date() time.Time {
	t, err := http.ParseTime(x.header.Get("Date"))
	if err != nil {
		return time.Time{}
	}
	return t
}
