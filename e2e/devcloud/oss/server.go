// Package oss is a stand-in for Alibaba Cloud OSS: an http.Handler that speaks enough of its REST API for the official
// SDKs and stock tools, verifies signatures as the real service does, keeps what it acknowledged on disk, and breaks
// in many ways on request (see Fault).
//
// Known differences: superseded versions are not kept in versioned buckets (only the state of the bucket, version ids
// and the effect on x-oss-forbid-overwrite are simulated), a restore from an archive class is instant, lifecycle rules
// are stored but never executed, ACLs are stored but never grant anything, and cause numbers (EC) are made up.
package oss

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// Config of a Server. Dir and Keys are required; the zero value of everything else has a meaning.
type Config struct {
	Dir     string      // where everything is kept; created if missing
	Keys    *keys.Store // who may do what
	Region  string      // signing region; "" is cn-hangzhou
	Buckets []string    // created if missing
	Domain  string      // names below it are virtual hosts (bucket.<Domain>), all others path style; "" is oss.test
	NoSync  bool        // skip fsync: answers survive the end of the process, not that of the machine

	MaxPutBytes    int64 // largest body; 0 is 5 GiB
	MaxAppendBytes int64 // largest appendable object; 0 is 5 GiB
	MinPartBytes   int64 // smallest part but the last; 0 is 100 KiB

	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // nil is silence
}

// Server is the stand-in. All methods are safe for concurrent use.
type Server struct {
	store  *disk.Store
	keys   *keys.Store
	region string
	domain string
	limits limits
	now    func() time.Time
	log    *slog.Logger

	rules    ruleSet
	faults   faultSet
	counters counters

	closing context.Context //nolint:containedctx // ends requests that hang on purpose
	close   context.CancelFunc
	running sync.WaitGroup
}

type limits struct{ put, append, minPart int64 }

type ruleSet struct {
	service, bucket, object []rule
	unsupported             []string
}

// New opens the directory, cleans up after a crash and creates missing buckets.
func New(cfg Config) (*Server, error) {
	if cfg.Dir == "" || cfg.Keys == nil {
		return nil, errors.New("oss stand-in: a directory and a key store are required")
	}
	s := &Server{
		keys: cfg.Keys, region: or(cfg.Region, "cn-hangzhou"), domain: or(cfg.Domain, "oss.test"),
		limits: limits{put: or(cfg.MaxPutBytes, 5<<30), append: or(cfg.MaxAppendBytes, 5<<30), minPart: or(cfg.MinPartBytes, 100<<10)},
		now:    cfg.Now, log: cfg.Log,
		rules: ruleSet{serviceRules(), bucketRules(), objectRules(), unsupported()},
	}
	if s.now == nil {
		s.now = time.Now
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.store, err = disk.Open(cfg.Dir, disk.Options{NoSync: cfg.NoSync, Log: s.log}); err != nil {
		return nil, fmt.Errorf("oss stand-in: %w", err)
	}
	for _, name := range cfg.Buckets {
		if err := s.CreateBucket(name); err != nil {
			return nil, errors.Join(fmt.Errorf("oss stand-in: create bucket %s: %w", name, err), s.store.Close())
		}
	}
	s.counters.reset()
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

func or[T comparable](v, fallback T) T {
	var zero T
	if v == zero {
		return fallback
	}
	return v
}

// Close ends requests that a fault keeps hanging, waits for all others and gives the directory free. The HTTP server
// in front should have stopped accepting.
func (s *Server) Close() error {
	s.close()
	s.running.Wait()
	return s.store.Close()
}

func validBucketName(name string) bool {
	const edge = "abcdefghijklmnopqrstuvwxyz0123456789"
	n := len(name)
	return n >= 3 && n <= 63 && strings.Trim(name, edge+"-") == "" &&
		strings.IndexByte(edge, name[0]) >= 0 && strings.IndexByte(edge, name[n-1]) >= 0
}

// CreateBucket makes an empty bucket if there is none of the name.
func (s *Server) CreateBucket(name string) error {
	if !validBucketName(name) {
		return fail(http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid: %q.", name).with("BucketName", name)
	}
	if _, err := s.store.Bucket(name); err == nil {
		return nil
	}
	return s.store.SetBucket(name, func(b *disk.Bucket, exists bool) error {
		if !exists {
			b.Created, b.Class, b.Redundancy, b.ACL = s.now().UTC(), "Standard", "LRS", "private"
		}
		return nil
	})
}

// SetVersioning sets the versioning state of a bucket: "", "Enabled" or "Suspended".
func (s *Server) SetVersioning(bucket, state string) error {
	if state != "" && state != "Enabled" && state != "Suspended" {
		return fmt.Errorf("versioning state %q: allowed are Enabled, Suspended and nothing", state)
	}
	return s.changeBucket(bucket, func(b *disk.Bucket) { b.Versioning = state })
}

// SetWORM switches the retention lock of a bucket: while it is on, no object can be overwritten, appended to or
// deleted.
func (s *Server) SetWORM(bucket string, on bool) error {
	return s.changeBucket(bucket, func(b *disk.Bucket) { b.WORM = on })
}

func (s *Server) changeBucket(name string, change func(*disk.Bucket)) error {
	err := s.store.SetBucket(name, func(b *disk.Bucket, exists bool) error {
		if !exists {
			return disk.ErrNoBucket
		}
		change(b)
		return nil
	})
	if err != nil {
		return fmt.Errorf("change bucket %s: %w", name, err)
	}
	return nil
}
