// Package disk keeps buckets and objects in a directory, durably.
//
//	LOCK      held while a process uses the directory
//	journal   one line per change; a change has happened when its line is synced
//	data/     the bytes: one immutable file (blob) per upload or part, named by number
//
// A blob is written and synced before the journal mentions it, and removed after the journal has stopped doing so.
// Blobs that the journal does not mention are debris of a crash and are removed by Open. So an upload that broke off
// is never visible, and what was acknowledged survives.
package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
)

// Errors that the callers of a Store tell apart.
var (
	ErrNoBucket       = errors.New("no such bucket")
	ErrBucketNotEmpty = errors.New("bucket not empty")
	ErrNoObject       = errors.New("no such object")
	ErrNoUpload       = errors.New("no such upload")
)

// Options of a Store.
type Options struct {
	NoSync bool // skip every fsync: fast, and durable against the end of the process only
	Log    *slog.Logger
}

// Store is a directory of buckets. All methods are safe for concurrent use.
type Store struct {
	dir     string
	opt     Options
	lock    *os.File
	journal journal
	dirSync groupSync
	dirSeq  atomic.Uint64
	lastID  atomic.Uint64

	bucketGate sync.RWMutex    // held for writing while a bucket goes away
	keys       [256]sync.Mutex // serialise changes of one key; order: ascending

	mu      sync.RWMutex // guards the following; the only I/O under it is the removal of files
	buckets map[string]*bucket
	refs    map[uint64]int // users of a blob: the index, uploads, readers
}

type bucket struct {
	config  Bucket
	objects index
	uploads map[string]*Upload
}

// Open opens or creates the store in dir and cleans up after a crash. It fails if another process uses dir.
func Open(dir string, opt Options) (*Store, error) {
	if err := os.MkdirAll(filepath.Join(dir, "data"), 0o755); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: another process uses this directory: %w", dir, err), lock.Close())
	}
	s := &Store{dir: dir, opt: opt, lock: lock, buckets: map[string]*bucket{}, refs: map[uint64]int{}}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// Close gives the directory free. Operations in progress must have ended.
func (s *Store) Close() error {
	err := s.journal.file.Close()
	return errors.Join(err, s.lock.Close())
}

func (s *Store) load() error {
	path := filepath.Join(s.dir, "journal")
	valid, count, err := replay(path, s.apply)
	if err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Size() > valid {
		s.opt.Log.Warn("cut an incomplete record off the journal", "bytes", info.Size()-valid)
		if err := os.Truncate(path, valid); err != nil {
			return fmt.Errorf("cut journal: %w", err)
		}
	}
	if live := s.snapshot(); count > 2*len(live)+1000 {
		if err := rewrite(path, live); err != nil {
			return err
		}
	}
	if s.journal.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644); err != nil {
		return fmt.Errorf("open journal: %w", err)
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	return s.sweep()
}

// sweep removes blobs that nothing refers to and checks that all others are there.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "data"))
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	present := make(map[uint64]bool, len(entries))
	for _, e := range entries {
		id, err := strconv.ParseUint(e.Name(), 16, 64)
		if err != nil {
			return fmt.Errorf("data directory: foreign file %s", e.Name())
		}
		if s.refs[id] > 0 {
			present[id] = true
		} else if err := os.Remove(s.blobPath(id)); err != nil {
			return fmt.Errorf("remove debris: %w", err)
		}
		s.lastID.Store(max(s.lastID.Load(), id))
	}
	for id := range s.refs {
		if !present[id] {
			return fmt.Errorf("data directory: file %s is missing: the store is damaged", s.blobPath(id))
		}
	}
	return nil
}

// snapshot lists records that rebuild the present state.
func (s *Store) snapshot() []*record {
	var out []*record
	for name, b := range s.buckets {
		out = append(out, &record{Bucket: &b.config})
		for _, u := range b.uploads {
			out = append(out, &record{In: name, Upload: u})
		}
		for _, c := range b.objects.chunks {
			for _, o := range c {
				out = append(out, &record{In: name, Put: o})
			}
		}
	}
	return out
}

// apply changes the state in memory as the record says. The caller holds mu for writing, or is Open.
func (s *Store) apply(r *record) error {
	if r.Bucket != nil {
		if b := s.buckets[r.Bucket.Name]; b != nil {
			b.config = *r.Bucket
		} else {
			s.buckets[r.Bucket.Name] = &bucket{config: *r.Bucket, uploads: map[string]*Upload{}}
		}
		return nil
	}
	if r.RemoveBucket != "" {
		delete(s.buckets, r.RemoveBucket)
		return nil
	}
	b := s.buckets[r.In]
	if b == nil {
		return fmt.Errorf("%w: %s", ErrNoBucket, r.In)
	}
	switch {
	case r.Put != nil:
		s.retain(r.Put.Extents)
		if old := b.objects.put(r.Put); old != nil {
			s.release(old.Extents)
		}
	case len(r.Delete) > 0:
		if old := b.objects.remove(string(r.Delete)); old != nil {
			s.release(old.Extents)
		}
	case r.Upload != nil:
		b.uploads[r.Upload.ID] = r.Upload
		for _, p := range r.Upload.Parts {
			s.retain(p.Extents)
		}
	case r.Part != nil:
		return s.applyPart(b, r.ID, *r.Part)
	}
	if u := b.uploads[r.ID]; u != nil {
		for _, p := range u.Parts {
			s.release(p.Extents)
		}
		delete(b.uploads, r.ID)
	}
	return nil
}

func (s *Store) applyPart(b *bucket, id string, p Part) error {
	u := b.uploads[id]
	if u == nil {
		return fmt.Errorf("%w: %s", ErrNoUpload, id)
	}
	s.retain(p.Extents)
	s.release(u.Parts[p.Number].Extents)
	if u.Parts == nil {
		u.Parts = map[int]Part{}
	}
	u.Parts[p.Number] = p
	return nil
}

// commit makes the records durable and then visible. The caller holds the locks of the keys concerned.
func (s *Store) commit(records ...*record) error {
	if err := s.journal.append(s.opt.NoSync, records...); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range records {
		if err := s.apply(r); err != nil {
			return err
		}
	}
	return nil
}
