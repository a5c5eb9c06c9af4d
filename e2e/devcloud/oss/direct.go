package oss

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"time"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// ObjectInfo describes a stored object for those who look at the store from the side.
type ObjectInfo struct {
	Key      string
	Size     int64
	ETag     string // without quotes
	CRC64    uint64
	Type     string // Normal, Multipart, Appendable
	Class    string
	Modified time.Time
	Header   map[string]string // as stored, lower-case names; user metadata begin with x-oss-meta-
	Tagging  string
}

func info(o *disk.Object) ObjectInfo {
	return ObjectInfo{o.Key, o.Size, o.ETag, o.CRC64, o.Type, o.Class, o.Modified, maps.Clone(o.Header), o.Tagging}
}

// Objects lists all objects below a prefix, in order, past faults, rights and counters.
func (s *Server) Objects(bucket, prefix string) ([]ObjectInfo, error) {
	page, err := s.store.List(bucket, disk.Query{Prefix: prefix, Max: int(^uint(0) >> 1)})
	if err != nil {
		return nil, fmt.Errorf("list %s/%s: %w", bucket, prefix, err)
	}
	out := make([]ObjectInfo, 0, len(page.Objects))
	for _, o := range page.Objects {
		out = append(out, info(o))
	}
	return out, nil
}

// ReadObject returns an object past faults, rights and counters. The error wraps fs.ErrNotExist if there is none.
func (s *Server) ReadObject(bucket, key string) ([]byte, ObjectInfo, error) {
	o, err := s.store.Open(bucket, key)
	if errors.Is(err, disk.ErrNoObject) {
		return nil, ObjectInfo{}, fmt.Errorf("read %s/%s: %w", bucket, key, fs.ErrNotExist)
	}
	if err != nil {
		return nil, ObjectInfo{}, fmt.Errorf("read %s/%s: %w", bucket, key, err)
	}
	defer o.Close()
	var buf bytes.Buffer
	if err := o.Copy(&buf, 0, o.Size); err != nil {
		return nil, ObjectInfo{}, fmt.Errorf("read %s/%s: %w", bucket, key, err)
	}
	return buf.Bytes(), info(o.Object), nil
}

// WriteObject stores a Normal object past faults, rights, versioning and counters, over whatever is there. An object
// that exists keeps its headers, so that a test can damage content and nothing else.
func (s *Server) WriteObject(bucket, key string, data []byte) error {
	blob, err := s.store.WriteBlob(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", bucket, key, err)
	}
	defer blob.Discard()
	o := disk.Object{
		Key: key, Extents: blob.Extents(), Size: blob.Size, CRC64: blob.CRC64, Type: typeNormal, Class: "Standard", Modified: s.now().UTC(),
		ETag: strings.ToUpper(hex.EncodeToString(blob.MD5[:])), MD5: base64.StdEncoding.EncodeToString(blob.MD5[:]),
	}
	err = s.store.Put(bucket, &o, func(_ disk.Bucket, current *disk.Object) error {
		if current != nil {
			o.Class, o.Header, o.Tagging = current.Class, current.Header, current.Tagging
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write %s/%s: %w", bucket, key, err)
	}
	return nil
}

// RemoveObjects deletes keys past faults, rights and counters; missing ones are no error.
func (s *Server) RemoveObjects(bucket string, keys ...string) error {
	err := s.store.Delete(bucket, keys, func(disk.Bucket, *disk.Object) error { return nil })
	if err != nil {
		return fmt.Errorf("delete %d keys in %s: %w", len(keys), bucket, err)
	}
	return nil
}

// Replicate copies an object to another server as replication between regions does: content, headers and the time of its
// last change are those of the original. An object of that name that is there is replaced.
func (s *Server) Replicate(bucket, key string, to *Server, there string) error {
	content, _, err := s.ReadObject(bucket, key)
	if err != nil {
		return err
	}
	original, err := s.store.Stat(bucket, key)
	if err != nil {
		return fmt.Errorf("replicate %s/%s: %w", bucket, key, err)
	}
	blob, err := to.store.WriteBlob(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("replicate %s/%s: %w", bucket, key, err)
	}
	defer blob.Discard()
	o := *original
	o.Extents, o.Header, o.Version = blob.Extents(), maps.Clone(original.Header), ""
	if err := to.store.Put(there, &o, func(disk.Bucket, *disk.Object) error { return nil }); err != nil {
		return fmt.Errorf("replicate %s/%s: %w", bucket, key, err)
	}
	return nil
}
