package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io/fs"
	"strconv"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/sidecar/internal/archive"
)

// crcTable is that of x-oss-hash-crc64ecma: CRC-64/XZ, which is what hash/crc64 computes for ECMA.
var crcTable = crc64.MakeTable(crc64.ECMA)

// Put implements archive.Writer.
func (b *Bucket) Put(ctx context.Context, key string, body []byte, o archive.PutOptions) error {
	class := ""
	if b.class != "" {
		class = string(sdk.StorageStandard)
	}
	_, err := b.put(ctx, key, body, o, class)
	return err
}

// stored is what a request has left in the bucket.
type stored struct {
	size int64
	crc  uint64
}

// put makes one object in one request, repeated as needed.
func (b *Bucket) put(ctx context.Context, key string, body []byte, o archive.PutOptions, class string) (reply, error) {
	if err := b.place.checkKey(key); err != nil {
		return reply{}, err
	}
	want := stored{size: int64(len(body)), crc: crc64.Checksum(body, crcTable)}
	forbid := !o.Replace
	fixed := b.creation(o, class)
	r, err := b.do(ctx, call{
		op: opPut, key: key, size: want.size,
		run: func(opts []sdk.Option) error {
			opts = append(opts, fixed...)
			if forbid {
				opts = append(opts, sdk.ForbidOverWrite(true))
			}
			return b.sdk.PutObject(b.place.prefix+key, bytes.NewReader(body), opts...)
		},
		check: func(x *exchange) error {
			err := x.checkSum(want.crc)
			if errors.Is(err, errChecksum) {
				// The object is there and damaged, and it is ours: nobody else could have created it meanwhile.
				forbid = false
			}
			return err
		},
	})
	r.sum = want
	if errors.Is(err, fs.ErrExist) && r.lost {
		return r, b.reconcile(ctx, key, want, err)
	}
	return r, err
}

// creation is what every request that makes an object says about it.
func (b *Bucket) creation(o archive.PutOptions, class string) []sdk.Option {
	opts := []sdk.Option{sdk.ContentType("application/octet-stream")}
	for k, v := range o.Meta {
		opts = append(opts, sdk.Meta(k, v))
	}
	if class != "" {
		opts = append(opts, sdk.ObjectStorageClass(sdk.StorageClassType(class)))
	}
	return append(opts, b.encryption...)
}

// reconcile decides what it means that an object exists after the answer to an earlier attempt at creating it was
// lost: if it has size and checksum of what was sent, that attempt has succeeded.
func (b *Bucket) reconcile(ctx context.Context, key string, want stored, exists error) error {
	there, err := b.Stat(ctx, key)
	if err != nil {
		// As text, because "not there" would be a wrong answer to a put.
		return fmt.Errorf("%s exists after a lost answer, and whether it is ours could not be told: %s", b.place.object(key), err.Error())
	}
	if there.Size == want.size && there.CRC64 == want.crc {
		return nil
	}
	return exists
}

// checkSum compares the checksum that OSS computed over what it received. An answer without one proves nothing.
func (x *exchange) checkSum(want uint64) error {
	text := x.header.Get(sdk.HTTPHeaderOssCRC64)
	got, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%w: no checksum in it", errNotOSS)
	}
	if got != want {
		return fmt.Errorf("%w: CRC64 %d instead of %d", errChecksum, got, want)
	}
	return nil
}

// checkOrigin refuses a success that is not OSS's own, such as the page of a proxy.
func (x *exchange) checkOrigin() error {
	if x.header.Get(sdk.HTTPHeaderOssRequestID) == "" {
		return fmt.Errorf("%w (HTTP status %d)", errNotOSS, x.status)
	}
	return nil
}
