package main

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"outrider.dev/sidecar/internal/archive"
)

// census counts what lies in the archive. It looks over the shoulder of those who list it anyway, at the start and after
// each snapshot, and adds what is stored in between. It causes no request of its own.
type census struct {
	archive.Bucket
	class string // of what is uploaded

	mu     sync.Mutex
	counts map[objectKind]map[string]holding // by storage class; a kind that was never listed whole is missing
	listed time.Time                         // when one was last
}

// holding is a number of objects and their size.
type holding struct{ objects, bytes int64 }

// objectKind is what an object is there for.
type objectKind string

// The kinds, which are values of the label kind.
const (
	kindSnapshot objectKind = "snapshot"
	kindSegment  objectKind = "segment" // of WAL, with histories
	kindChunk    objectKind = "chunk"   // of WAL that is not in a segment yet, or whose chunks were not deleted yet
	kindRecord   objectKind = "record"  // claims, receipts, the journal
)

const standardClass = "Standard"

// ownDir is where our own objects lie, chunks among them.
const ownDir = "outrider/"

func places() map[string]objectKind {
	return map[string]objectKind{"basebackups_005/": kindSnapshot, "wal_005/": kindSegment, "outrider/tail/": kindChunk}
}

func kindOf(key string) objectKind {
	for prefix, kind := range places() {
		if strings.HasPrefix(key, prefix) {
			return kind
		}
	}
	return kindRecord
}

func newCensus(b archive.Bucket, class string) *census {
	if class == "" {
		class = standardClass
	}
	return &census{Bucket: b, class: class, counts: map[objectKind]map[string]holding{}}
}

// List implements archive.Reader.
func (c *census) List(ctx context.Context, prefix, after string) iter.Seq2[archive.ObjectInfo, error] {
	all := c.Bucket.List(ctx, prefix, after)
	kind, whole := places()[prefix]
	if prefix == ownDir {
		kind, whole = kindRecord, true
	}
	if !whole || after != "" {
		return all
	}
	return func(yield func(archive.ObjectInfo, error) bool) {
		seen := map[string]holding{}
		for o, err := range all {
			if !yield(o, err) || err != nil {
				return
			}
			if kindOf(o.Key) == kind {
				h := seen[o.StorageClass]
				seen[o.StorageClass] = holding{h.objects + 1, h.bytes + o.Size}
			}
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.counts[kind], c.listed = seen, time.Now()
	}
}

// Put implements archive.Writer.
func (c *census) Put(ctx context.Context, key string, body []byte, o archive.PutOptions) error {
	err := c.Bucket.Put(ctx, key, body, o)
	if err == nil && !o.Replace {
		c.add(key, standardClass, int64(len(body)))
	}
	return err
}

// Upload implements archive.Writer.
func (c *census) Upload(ctx context.Context, key string, body io.Reader, o archive.PutOptions) (archive.ObjectInfo, error) {
	info, err := c.Bucket.Upload(ctx, key, body, o)
	if err == nil && !o.Replace {
		c.add(key, c.class, info.Size)
	}
	return info, err
}

// Remove implements archive.Writer. How large each object was is not known: the mean of its kind is taken.
func (c *census) Remove(ctx context.Context, keys ...string) error {
	err := c.Bucket.Remove(ctx, keys...)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, key := range keys {
		for class, h := range c.counts[kindOf(key)] {
			if h.objects > 0 {
				c.counts[kindOf(key)][class] = holding{h.objects - 1, h.bytes - h.bytes/h.objects}
				break
			}
		}
	}
	return nil
}

func (c *census) add(key, class string, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if of := c.counts[kindOf(key)]; of != nil {
		h := of[class]
		of[class] = holding{h.objects + 1, h.bytes + size}
	}
}

// each calls do with all that is known.
func (c *census) each(do func(kind objectKind, class string, h holding)) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for kind, classes := range c.counts {
		for class, h := range classes {
			do(kind, class, h)
		}
	}
}

// sum is what all kinds hold; nil as long as nothing is known.
func (c *census) sum() *archived {
	var all *archived
	c.each(func(_ objectKind, _ string, h holding) {
		if all == nil {
			all = &archived{}
		}
		all.Objects += h.objects
		all.Bytes += h.bytes
	})
	return all
}

// counted is when the archive was last listed; the zero time if it never was.
func (c *census) counted() time.Time {
	if c == nil {
		return time.Time{}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.listed
}

// countRecords counts what nobody else lists: one request for each thousand of them.
func (c *census) countRecords(ctx context.Context) error {
	if c == nil {
		return nil
	}
	for _, err := range c.List(ctx, ownDir, "") {
		if err != nil {
			return err
		}
	}
	return nil
}
