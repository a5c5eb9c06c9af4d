package disk

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// Bucket returns the configuration of a bucket.
func (s *Store) Bucket(name string) (Bucket, error) {
	b, _, err := s.current(name, "")
	return b, err
}

// Buckets lists all buckets by name.
func (s *Store) Buckets() []Bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var out []Bucket
	for _, b := range s.buckets {
		out = append(out, b.config)
	}
	slices.SortFunc(out, func(a, b Bucket) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Usage is what a bucket holds.
type Usage struct {
	Objects int   `json:"objects"`
	Bytes   int64 `json:"bytes"`
	Uploads int   `json:"uploads"`
}

// Usage counts what a bucket holds; parts of unfinished uploads are not in Bytes.
func (s *Store) Usage(name string) (Usage, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[name]
	if b == nil {
		return Usage{}, ErrNoBucket
	}
	return Usage{Objects: b.objects.count, Bytes: b.objects.bytes, Uploads: len(b.uploads)}, nil
}

// Stat returns the object of a key; ErrNoObject proves its absence.
func (s *Store) Stat(bucket, key string) (*Object, error) {
	_, o, err := s.current(bucket, key)
	if err == nil && o == nil {
		err = ErrNoObject
	}
	return o, err
}

// Open pins the object of a key for reading.
func (s *Store) Open(bucket, key string) (*Handle, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buckets[bucket]
	if b == nil {
		return nil, ErrNoBucket
	}
	o := b.objects.get(key)
	if o == nil {
		return nil, ErrNoObject
	}
	s.retain(o.Extents)
	return &Handle{Object: o, store: s}, nil
}

// Page is one answer to a listing. Entries come in byte-wise order of their names.
type Page struct {
	Objects   []*Object
	Prefixes  []string
	Truncated bool
	Last      string // the last object or common prefix of the page
}

// Query selects what List returns.
type Query struct {
	Prefix    string
	Delimiter string
	After     string // only names above this one
	Max       int
}

// List returns the next page of a bucket. If After is a common prefix then none of the names under it are returned.
func (s *Store) List(bucket string, q Query) (Page, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucket]
	if b == nil {
		return Page{}, ErrNoBucket
	}
	from, ok := q.start()
	if !ok {
		return Page{}, nil
	}
	var page Page
	b.objects.ascend(from, func(o *Object) (string, bool) {
		if !strings.HasPrefix(o.Key, q.Prefix) {
			return "", false
		}
		if len(page.Objects)+len(page.Prefixes) == q.Max {
			page.Truncated = true
			return "", false
		}
		group := q.group(o.Key)
		if group == "" {
			page.Objects = append(page.Objects, o)
			page.Last = o.Key
			return "", true
		}
		page.Prefixes = append(page.Prefixes, group)
		page.Last = group
		return afterPrefix(group)
	})
	return page, nil
}

// group gives the common prefix that the key belongs to, or "".
func (q Query) group(key string) string {
	if q.Delimiter == "" || !strings.HasPrefix(key, q.Prefix) {
		return ""
	}
	if i := strings.Index(key[len(q.Prefix):], q.Delimiter); i >= 0 {
		return key[:len(q.Prefix)+i+len(q.Delimiter)]
	}
	return ""
}

// start gives the lowest key of interest; ok is false if there can be none.
func (q Query) start() (from string, ok bool) {
	if q.After == "" || q.After < q.Prefix {
		return q.Prefix, true
	}
	if q.group(q.After) == q.After {
		return afterPrefix(q.After)
	}
	return q.After + "\x00", true
}

// upload finds an upload; the caller holds mu.
func (s *Store) upload(bucket, key, id string) (*Upload, error) {
	b := s.buckets[bucket]
	if b == nil {
		return nil, ErrNoBucket
	}
	u := b.uploads[id]
	if u == nil || u.Key != key {
		return nil, ErrNoUpload
	}
	return u, nil
}

// CheckUpload returns ErrNoUpload if the upload is not in progress.
func (s *Store) CheckUpload(bucket, key, id string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, err := s.upload(bucket, key, id)
	return err
}

// Upload returns an upload in progress, as it is now.
func (s *Store) Upload(bucket, key, id string) (*Upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u, err := s.upload(bucket, key, id)
	if err != nil {
		return nil, err
	}
	snapshot := *u
	snapshot.Parts = maps.Clone(u.Parts)
	return &snapshot, nil
}

// Uploads lists the uploads in progress below the prefix by key and ID, without their parts.
func (s *Store) Uploads(bucket, prefix string) ([]Upload, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucket]
	if b == nil {
		return nil, ErrNoBucket
	}
	var out []Upload
	for _, u := range b.uploads {
		if strings.HasPrefix(u.Key, prefix) {
			snapshot := *u
			snapshot.Parts = nil
			out = append(out, snapshot)
		}
	}
	slices.SortFunc(out, func(a, b Upload) int { return cmp.Or(cmp.Compare(a.Key, b.Key), cmp.Compare(a.ID, b.ID)) })
	return out, nil
}
