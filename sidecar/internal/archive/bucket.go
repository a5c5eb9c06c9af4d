package archive

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// ErrConflict says that an object exists with other content than the one to be written: somebody else writes here, or
// the local data is not what was archived. It is never retried.
var ErrConflict = errors.New("the archive holds other content under this key")

// ErrCorrupt says that an object was read whole and is not what was once written.
var ErrCorrupt = errors.New("the archive object is damaged")

// ObjectInfo is what the store says about an object.
type ObjectInfo struct {
	Key          string
	Size         int64
	LastModified time.Time         // the store's clock
	CRC64        uint64            // CRC-64/XZ of the whole object; only from Stat, Open and Upload
	Meta         map[string]string // user metadata, lower-case keys without the x-oss-meta- prefix; only from Stat and Open
	StorageClass string
	SeenAt       time.Time // when the store gave this answer, by its own clock
}

// Range is a byte range [From, To) of an object. To 0 means to the end.
type Range struct{ From, To int64 }

// PutOptions says how an object is created.
type PutOptions struct {
	Meta    map[string]string
	Replace bool // overwrite; otherwise an existing object is fs.ErrExist and stays as it is
}

// Reader is the half of an object store that readers need. All errors that mean "there is no such object" satisfy
// errors.Is(err, fs.ErrNotExist), those that mean "not allowed" fs.ErrPermission; any other error means that it
// could not be told. Implementations retry what can be retried, and are safe for concurrent use.
type Reader interface {
	// Open reads an object or a range of it. Reading to the end of a whole object verifies its CRC64; a broken
	// connection is resumed at the same version of the object or reported, never papered over.
	Open(ctx context.Context, key string, r Range) (io.ReadCloser, ObjectInfo, error)
	Stat(ctx context.Context, key string) (ObjectInfo, error)
	// List yields the objects whose keys begin with prefix and are greater than after, in byte order of their keys.
	List(ctx context.Context, prefix, after string) iter.Seq2[ObjectInfo, error]
}

// Writer is the half of an object store that changes things. Without PutOptions.Replace an object is created only if
// there is none, else fs.ErrExist; the caller reconciles an fs.ErrExist that may be its own earlier success.
type Writer interface {
	// Put stores a small object in one request. body is the caller's again when it returns.
	Put(ctx context.Context, key string, body []byte, o PutOptions) error
	// Upload stores a stream of any length with bounded memory. Nothing is visible before it returns nil.
	Upload(ctx context.Context, key string, body io.Reader, o PutOptions) (ObjectInfo, error)
	// Remove deletes objects; those that do not exist count as deleted.
	Remove(ctx context.Context, keys ...string) error
}

// Bucket is a place in an object store: all keys are relative to it.
type Bucket interface {
	Reader
	Writer
}
