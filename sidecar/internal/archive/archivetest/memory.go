// Package archivetest holds what tests of a bucket and tests on top of a bucket need: the acceptance test of the
// archive.Bucket contract, and a bucket in memory that passes it.
package archivetest

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// pageSize is how many keys one look at the map yields, as one request to a store does: what is created or removed
// while a listing goes on is seen or not seen accordingly.
const pageSize = 1000

var crcTable = crc64.MakeTable(crc64.ECMA)

// Bucket is an archive.Bucket in memory. It is safe for concurrent use and follows the fake clock of testing/synctest.
type Bucket struct {
	mu      sync.Mutex
	objects map[string]object
	fault   func(operation, key string) error
}

type object struct {
	body     []byte
	meta     map[string]string
	modified time.Time
}

// Memory returns an empty bucket.
func Memory() *Bucket { return &Bucket{objects: map[string]object{}} }

// Fault makes every later operation ask f first; an error of f is the operation's answer and nothing is changed. The
// operations are "open", "stat", "list" (key is the prefix), "put", "upload" and "remove" (once for each key); nil
// takes the fault away.
func (b *Bucket) Fault(f func(operation, key string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fault = f
}

// Deny implements Breakable: from now on nothing is allowed.
func (b *Bucket) Deny(*testing.T) {
	b.Fault(func(operation, key string) error { return fmt.Errorf("%s %s: %w", operation, key, fs.ErrPermission) })
}

// Down implements Breakable: from now on nothing is answered.
func (b *Bucket) Down(*testing.T) {
	b.Fault(func(operation, key string) error { return fmt.Errorf("%s %s: no answer", operation, key) })
}

// Keys returns all keys in order.
func (b *Bucket) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.objects))
}

// Bytes returns a copy of an object's bytes, nil if there is none.
func (b *Bucket) Bytes(key string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.objects[key].body)
}

// SetBytes changes the bytes of an object behind the back of everybody, creating it if it is not there. Its metadata
// stays, so this is how an object is damaged.
func (b *Bucket) SetBytes(key string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.objects[key]
	o.body, o.modified = bytes.Clone(body), time.Now()
	b.objects[key] = o
}

// SetModified changes the time of an object by the store's clock, so that an archive can be made that is older than its
// test.
func (b *Bucket) SetModified(key string, at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[key]
	if ok {
		o.modified = at
		b.objects[key] = o
	}
}

func (b *Bucket) ask(ctx context.Context, operation, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", operation, key, err)
	}
	b.mu.Lock()
	f := b.fault
	b.mu.Unlock()
	if f == nil {
		return nil
	}
	return f(operation, key)
}

func (b *Bucket) get(key string) (object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, ok := b.objects[key]
	if !ok {
		return o, fmt.Errorf("object %s: %w", key, fs.ErrNotExist)
	}
	return o, nil
}

func (o object) info(key string) archive.ObjectInfo {
	return archive.ObjectInfo{
		Key: key, Size: int64(len(o.body)), LastModified: o.modified, CRC64: crc64.Checksum(o.body, crcTable),
		Meta: maps.Clone(o.meta), StorageClass: "Standard", SeenAt: time.Now(),
	}
}

// Open implements archive.Reader.
func (b *Bucket) Open(ctx context.Context, key string, r archive.Range) (io.ReadCloser, archive.ObjectInfo, error) {
	if err := b.ask(ctx, "open", key); err != nil {
		return nil, archive.ObjectInfo{}, err
	}
	o, err := b.get(key)
	if err != nil {
		return nil, archive.ObjectInfo{}, err
	}
	size := int64(len(o.body))
	to := r.To
	if to == 0 || to > size {
		to = size
	}
	if r.From < 0 || r.To < 0 || r.From > to || (r.From >= size && r.From > 0) || (r.To != 0 && r.To <= r.From) {
		return nil, archive.ObjectInfo{}, fmt.Errorf("reading bytes %d to %d of %s: it has %d bytes", r.From, r.To, key, size)
	}
	body := &reader{ctx: ctx, Reader: bytes.NewReader(o.body[r.From:to])}
	return body, o.info(key), nil
}

type reader struct {
	ctx context.Context //nolint:containedctx // an io.Reader has no other place for the context of its reads
	*bytes.Reader
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (r *reader) Close() error { return nil }

// Stat implements archive.Reader.
func (b *Bucket) Stat(ctx context.Context, key string) (archive.ObjectInfo, error) {
	if err := b.ask(ctx, "stat", key); err != nil {
		return archive.ObjectInfo{}, err
	}
	o, err := b.get(key)
	if err != nil {
		return archive.ObjectInfo{}, err
	}
	return o.info(key), nil
}

// List implements archive.Reader.
func (b *Bucket) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	return func(yield func(archive.ObjectInfo, error) bool) {
		for {
			if err := b.ask(ctx, "list", prefix); err != nil {
				yield(archive.ObjectInfo{}, err)
				return
			}
			page := b.page(prefix, after)
			for _, o := range page {
				if !yield(o, nil) {
					return
				}
			}
			if len(page) < pageSize {
				return
			}
			after = page[len(page)-1].Key
		}
	}
}

func (b *Bucket) page(prefix, after string) []archive.ObjectInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	var page []archive.ObjectInfo
	for _, key := range slices.Sorted(maps.Keys(b.objects)) {
		if key <= after || !strings.HasPrefix(key, prefix) {
			continue
		}
		if len(page) == pageSize {
			break
		}
		o := b.objects[key]
		page = append(page, archive.ObjectInfo{
			Key: key, Size: int64(len(o.body)), LastModified: o.modified, StorageClass: "Standard", SeenAt: time.Now(),
		})
	}
	return page
}

// Put implements archive.Writer.
func (b *Bucket) Put(ctx context.Context, key string, body []byte, o archive.PutOptions) error {
	if err := b.ask(ctx, "put", key); err != nil {
		return err
	}
	return b.store(key, bytes.Clone(body), o)
}

func (b *Bucket) store(key string, body []byte, o archive.PutOptions) error {
	meta := map[string]string{}
	for k, v := range o.Meta {
		meta[strings.ToLower(k)] = v
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[key]; ok && !o.Replace {
		return fmt.Errorf("object %s: %w", key, fs.ErrExist)
	}
	b.objects[key] = object{body: body, meta: meta, modified: time.Now()}
	return nil
}

// Upload implements archive.Writer.
func (b *Bucket) Upload(ctx context.Context, key string, body io.Reader, o archive.PutOptions) (archive.ObjectInfo, error) {
	if err := b.ask(ctx, "upload", key); err != nil {
		return archive.ObjectInfo{}, err
	}
	raw, err := io.ReadAll(body)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return archive.ObjectInfo{}, fmt.Errorf("uploading %s: %w", key, err)
	}
	if err := b.store(key, raw, o); err != nil {
		return archive.ObjectInfo{}, err
	}
	return object{body: raw, meta: o.Meta, modified: time.Now()}.info(key), nil
}

// Remove implements archive.Writer.
func (b *Bucket) Remove(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := b.ask(ctx, "remove", key); err != nil {
			return err
		}
		b.mu.Lock()
		delete(b.objects, key)
		b.mu.Unlock()
	}
	return nil
}

var _ archive.Bucket = (*Bucket)(nil)
