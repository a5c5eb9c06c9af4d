package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"sync"
	"time"

	sdk "github.com/aliyun/aliyun-oss-go-sdk/oss"
	"golang.org/x/sync/errgroup"

	"outrider.dev/sidecar/internal/archive"
)

const (
	defaultPartSize = 8 << 20
	// Limits of OSS for multipart uploads: parts of at least 100 KiB except the last, at most 10 000 of them, of at most
	// 5 GB each.
	minPartSize = 100 << 10
	maxParts    = 10_000
	maxPartSize = 5_000_000_000
	// parallelParts is how many parts of one stream are under way while the next is read: three buffers in all.
	parallelParts = 2
	// partsPerSize is after how many parts their size is doubled. 10 000 parts that begin with 8 MiB hold 7.8 TiB.
	partsPerSize = 1000
	abortTimeout = 15 * time.Second
)

// partSizeOf is the size of part n, counted from 1.
func partSizeOf(first, n int) int {
	return min(first<<((n-1)/partsPerSize), maxPartSize)
}

// buffers keeps part buffers of the ordinary size; larger ones are rare and left to the garbage collector.
var buffers = sync.Pool{New: func() any { b := make([]byte, defaultPartSize); return &b }}

func getBuffer(size int) *[]byte {
	if size == defaultPartSize {
		return buffers.Get().(*[]byte)
	}
	b := make([]byte, size)
	return &b
}

func putBuffer(b *[]byte) {
	if len(*b) == defaultPartSize {
		buffers.Put(b)
	}
}

// Upload implements archive.Writer. body is read on the caller's goroutine, three part buffers are the most that is
// held of it, and what fits one part is stored by one plain request.
func (b *Bucket) Upload(ctx context.Context, key string, body io.Reader, o archive.PutOptions) (archive.ObjectInfo, error) {
	if err := b.place.checkKey(key); err != nil {
		return archive.ObjectInfo{}, err
	}
	first := getBuffer(b.partSize)
	defer putBuffer(first)
	n, err := fill(body, *first)
	if err != nil {
		return archive.ObjectInfo{}, b.readError(key, err)
	}
	var second *[]byte
	var m int
	if n == len(*first) {
		second = getBuffer(b.partSize)
		defer putBuffer(second)
		if m, err = fill(body, *second); err != nil {
			return archive.ObjectInfo{}, b.readError(key, err)
		}
	}
	if m == 0 {
		raw := (*first)[:n]
		r, err := b.put(ctx, key, raw, o, b.class)
		if err != nil {
			return archive.ObjectInfo{}, err
		}
		return r.uploaded(key, r.sum, o), nil
	}
	u := &upload{b: b, key: key, o: o}
	return u.run(ctx, body, (*first)[:n], (*second)[:m])
}

// fill reads until buf is full or the stream ends. Only io.EOF itself is the end: one that is wrapped, and
// io.ErrUnexpectedEOF, are failures of the source, and taking them for the end would store half a stream as a whole.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) {
		m, err := r.Read(buf[n:])
		n += m
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

func (b *Bucket) readError(key string, err error) error {
	return fmt.Errorf("reading what is to be stored as %s: %w", b.place.object(key), err)
}

// uploaded is what an upload tells its caller, who has just learned everything else.
func (r reply) uploaded(key string, s stored, o archive.PutOptions) archive.ObjectInfo {
	seen := r.date()
	return archive.ObjectInfo{Key: key, Size: s.size, CRC64: s.crc, Meta: o.Meta, LastModified: seen, SeenAt: seen}
}

// upload is one multipart upload.
type upload struct {
	b     *Bucket
	key   string
	o     archive.PutOptions
	id    sdk.InitiateMultipartUploadResult
	parts []sdk.UploadPart
	sums  []stored
	mu    sync.Mutex
}

func (u *upload) run(ctx context.Context, body io.Reader, first, second []byte) (archive.ObjectInfo, error) {
	if err := u.initiate(ctx); err != nil {
		return archive.ObjectInfo{}, err
	}
	if err := u.send(ctx, body, first, second); err != nil {
		return archive.ObjectInfo{}, u.abort(ctx, err)
	}
	whole := u.whole()
	r, err := u.complete(ctx, whole)
	if err != nil {
		return archive.ObjectInfo{}, u.abort(ctx, err)
	}
	// Every part was right, so this should not happen. The object is there; deleting what is perhaps right is not
	// decided here, and completing once more could only find the upload gone.
	if err := r.checkSum(whole.crc); err != nil && r.status == http.StatusOK {
		return archive.ObjectInfo{}, fmt.Errorf("completing the upload of %s: %w: read it back before relying on it", u.b.place.object(u.key), err)
	}
	return r.uploaded(u.key, whole, u.o), nil
}

func (u *upload) initiate(ctx context.Context) error {
	opts := u.b.creation(u.o, u.b.class)
	if !u.o.Replace {
		opts = append(opts, sdk.ForbidOverWrite(true))
	}
	_, err := u.b.do(ctx, call{
		op: opInitiate, key: u.key,
		run: func(more []sdk.Option) (err error) {
			u.id, err = u.b.sdk.InitiateMultipartUpload(u.b.place.prefix+u.key, slices.Concat(opts, more)...)
			return err
		},
		check: func(x *exchange) error {
			if u.id.UploadID == "" {
				return fmt.Errorf("%w: no upload id in it", errNotOSS)
			}
			// The answer repeats the key, encoded or not; ours is the one that counts.
			u.id.Key = u.b.place.prefix + u.key
			return x.checkOrigin()
		},
	})
	return err
}

// send uploads all parts, reading on while the ones before are under way.
func (u *upload) send(ctx context.Context, body io.Reader, first, second []byte) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelParts)
	g.Go(func() error { return u.part(gctx, 1, first) })
	g.Go(func() error { return u.part(gctx, 2, second) })
	err := u.rest(gctx, g, body, len(second) == partSizeOf(u.b.partSize, 2))
	if werr := g.Wait(); werr != nil {
		return werr // the cause; err is then only that it was called off
	}
	return err
}

func (u *upload) rest(ctx context.Context, g *errgroup.Group, body io.Reader, more bool) error {
	for n := 3; more; n++ {
		if n > maxParts {
			return fmt.Errorf("storing %s: the stream does not fit the %d parts that OSS allows", u.b.place.object(u.key), maxParts)
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("storing %s: %w", u.b.place.object(u.key), context.Cause(ctx))
		}
		buf := getBuffer(partSizeOf(u.b.partSize, n))
		m, err := fill(body, *buf)
		if err != nil || m == 0 {
			putBuffer(buf)
			if err != nil {
				return u.b.readError(u.key, err)
			}
			return nil
		}
		more = m == len(*buf)
		g.Go(func() error {
			defer putBuffer(buf)
			return u.part(ctx, n, (*buf)[:m])
		})
	}
	return nil
}

func (u *upload) part(ctx context.Context, n int, raw []byte) error {
	s := stored{size: int64(len(raw)), crc: crc64.Checksum(raw, crcTable)}
	var part sdk.UploadPart
	_, err := u.b.do(ctx, call{
		op: opPart, key: u.key, size: s.size,
		run: func(opts []sdk.Option) (err error) {
			part, err = u.b.sdk.UploadPart(u.id, bytes.NewReader(raw), s.size, n, opts...)
			return err
		},
		check: func(x *exchange) error { return x.checkSum(s.crc) },
	})
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for len(u.parts) < n {
		u.parts, u.sums = append(u.parts, sdk.UploadPart{}), append(u.sums, stored{})
	}
	u.parts[n-1], u.sums[n-1] = part, s
	return nil
}

// whole is size and checksum of the object, put together from those of its parts.
func (u *upload) whole() stored {
	var all stored
	for _, s := range u.sums {
		all.crc = sdk.CRC64Combine(all.crc, s.crc, uint64(s.size))
		all.size += s.size
	}
	return all
}

func (u *upload) complete(ctx context.Context, want stored) (reply, error) {
	var opts []sdk.Option
	if !u.o.Replace {
		opts = append(opts, sdk.ForbidOverWrite(true))
	}
	r, err := u.b.do(ctx, call{
		op: opComplete, key: u.key,
		run: func(more []sdk.Option) error {
			_, err := u.b.sdk.CompleteMultipartUpload(u.id, slices.Clone(u.parts), slices.Concat(opts, more)...)
			return err
		},
		check: func(x *exchange) error { return x.checkOrigin() },
	})
	switch {
	case r.lost && errors.Is(err, fs.ErrExist):
		if err = u.b.reconcile(ctx, u.key, want, err); err == nil {
			// An equal object may be another writer's, and then this upload still lies there.
			err = u.abort(ctx, nil)
		}
		return r, err
	case r.lost && errors.Is(err, errNoUpload):
		// OSS goes on completing after the connection broke, and then the upload is gone.
		if !u.o.Replace {
			err = fmt.Errorf("storing %s: %w", u.b.place.object(u.key), fs.ErrExist)
		}
		return r, u.b.reconcile(ctx, u.key, want, err)
	}
	return r, err
}

// abort gives the upload up, so that nobody pays for its parts, and returns err. It works even if ctx has ended.
func (u *upload) abort(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abortTimeout)
	defer cancel()
	_, aerr := u.b.do(ctx, call{
		op: opAbort, key: u.key,
		run: func(opts []sdk.Option) error { return u.b.sdk.AbortMultipartUpload(u.id, opts...) },
	})
	if aerr != nil && !errors.Is(aerr, errNoUpload) {
		u.b.log.WarnContext(ctx, "parts of an upload that was given up are left in the bucket until its lifecycle rule for incomplete uploads removes them",
			"object", u.b.place.object(u.key), "error", aerr)
	}
	return err
}
