package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sync/errgroup"
)

// Archive is one root. It is safe for concurrent use.
type Archive struct {
	bucket  Bucket
	codec   *codec
	buffers *buffers
}

// New makes an Archive of a bucket whose keys are relative to the root.
func New(root Bucket) *Archive {
	return &Archive{bucket: root, codec: newCodec(), buffers: &buffers{}}
}

// maxDocument bounds what is read as JSON: a manifest of 100 000 parts fits.
const maxDocument = 64 << 20

// createJSON writes a document once. An equal document that is already there is success: an earlier answer was lost.
func (a *Archive) createJSON(ctx context.Context, key string, doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	err = a.bucket.Put(ctx, key, body, PutOptions{})
	if !errors.Is(err, fs.ErrExist) {
		return wrap("creating", key, err)
	}
	there, rerr := a.read(ctx, key)
	if errors.Is(rerr, fs.ErrNotExist) {
		// As text: that it is "not there" would be no answer to creating it.
		return fmt.Errorf("creating %s: it existed, and was gone when it was to be compared: %s", key, rerr.Error())
	}
	if rerr != nil {
		return fmt.Errorf("reading %s, which exists already, to compare it: %w", key, rerr)
	}
	if !bytes.Equal(there, body) {
		return fmt.Errorf("creating %s: %w", key, err)
	}
	return nil
}

func (a *Archive) replaceJSON(ctx context.Context, key string, doc any) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	return wrap("writing", key, a.bucket.Put(ctx, key, body, PutOptions{Replace: true}))
}

func (a *Archive) read(ctx context.Context, key string) ([]byte, error) {
	body, _, err := a.readInfo(ctx, key)
	return body, err
}

func (a *Archive) readInfo(ctx context.Context, key string) ([]byte, ObjectInfo, error) {
	r, info, err := a.bucket.Open(ctx, key, Range{})
	if err != nil {
		return nil, info, wrap("reading", key, err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, info, wrap("reading", key, err)
	}
	if len(b) > maxDocument {
		return nil, info, fmt.Errorf("reading %s: %w: larger than %d bytes", key, ErrCorrupt, maxDocument)
	}
	return b, info, nil
}

// readJSON reads a document. One that cannot be decoded is ErrCorrupt, never "not there".
func (a *Archive) readJSON(ctx context.Context, key string, doc any) (ObjectInfo, error) {
	b, info, err := a.readInfo(ctx, key)
	if err != nil {
		return info, err
	}
	var head struct{ Format int }
	if err := json.Unmarshal(b, &head); err == nil && head.Format > Format {
		return info, fmt.Errorf("reading %s: it has format %d, this program knows up to %d: use a newer outrider", key, head.Format, Format)
	}
	if err := json.Unmarshal(b, doc); err != nil {
		return info, fmt.Errorf("reading %s: %w: %w", key, ErrCorrupt, err)
	}
	return info, nil
}

// parallelReads is how many small objects are read at once where many belong together: a restore should not wait for
// hundreds of round trips one after the other.
const parallelReads = 8

// readEach reads the documents under keys, in parallel, and returns them in the order of keys.
func readEach[K, T any](ctx context.Context, keys []K, read func(ctx context.Context, key K) (T, error)) ([]T, error) {
	all := make([]T, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelReads)
	for i, key := range keys {
		g.Go(func() (err error) {
			all[i], err = read(ctx, key)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return all, nil
}

// numbered lists the keys below dir that are numbers.
func (a *Archive) numbered(ctx context.Context, dir string) ([]string, error) {
	var keys []string
	for o, err := range a.bucket.List(ctx, dir, "") {
		if err != nil {
			return nil, fmt.Errorf("listing %s: %w", dir, err)
		}
		if _, ok := parseNumberedKey(dir, o.Key); ok {
			keys = append(keys, o.Key)
		}
	}
	return keys, nil
}

func wrap(doing, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, key, err)
}

// Empty tells whether the root holds nothing at all, but perhaps ProbeKey. Only a listing that worked is a proof.
func (a *Archive) Empty(ctx context.Context) (bool, error) {
	for o, err := range a.bucket.List(ctx, "", "") {
		if err != nil {
			return false, fmt.Errorf("listing the archive to see whether it is empty: %w", err)
		}
		if o.Key != ProbeKey {
			return false, nil
		}
	}
	return true, nil
}

// Cluster reads whose history this root holds; fs.ErrNotExist if nobody's yet, or if WAL-G alone wrote here.
func (a *Archive) Cluster(ctx context.Context) (Cluster, error) {
	var c Cluster
	_, err := a.readJSON(ctx, clusterKey, &c)
	return c, err
}

// ClaimCluster makes the root c's. If it is already that of the same system identifier and segment size it is
// success; another one is ErrConflict.
func (a *Archive) ClaimCluster(ctx context.Context, c Cluster) error {
	c.Format, c.CreatedAt = Format, utc(c.CreatedAt)
	err := a.createJSON(ctx, clusterKey, c)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	there, err := a.Cluster(ctx)
	if err != nil {
		return err
	}
	if there.SystemIdentifier != c.SystemIdentifier || there.SegmentSize != c.SegmentSize {
		return fmt.Errorf("%s belongs to system identifier %d with segments of %d bytes, this server is %d with %d: %w",
			clusterKey, there.SystemIdentifier, there.SegmentSize, c.SystemIdentifier, c.SegmentSize, ErrConflict)
	}
	return nil
}

// utc drops the monotonic part and the zone, so that documents compare and read the same everywhere.
func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
