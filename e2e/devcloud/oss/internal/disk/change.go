package disk

import (
	"hash/fnv"
	"io"
	"slices"
)

// Check looks at the state before a change, under the lock of the key: current is nil if the key does not exist. An
// error that it returns cancels the change and comes back unchanged.
type Check func(b Bucket, current *Object) error

func (s *Store) stripe(bucket, key string) int {
	h := fnv.New32a()
	_, _ = io.WriteString(h, bucket)
	_, _ = h.Write([]byte{0})
	_, _ = io.WriteString(h, key)
	return int(h.Sum32() % uint32(len(s.keys)))
}

// lockKeys locks the keys and the existence of all buckets.
func (s *Store) lockKeys(bucket string, keys ...string) (unlock func()) {
	stripes := make([]int, 0, len(keys))
	for _, k := range keys {
		stripes = append(stripes, s.stripe(bucket, k))
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	s.bucketGate.RLock()
	for _, i := range stripes {
		s.keys[i].Lock()
	}
	return func() {
		for _, i := range stripes {
			s.keys[i].Unlock()
		}
		s.bucketGate.RUnlock()
	}
}

func (s *Store) current(bucketName, key string) (Bucket, *Object, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b := s.buckets[bucketName]
	if b == nil {
		return Bucket{}, nil, ErrNoBucket
	}
	return b.config, b.objects.get(key), nil
}

// Put makes o the object of its key if check agrees. It returns when that is durable.
func (s *Store) Put(bucket string, o *Object, check Check) error {
	defer s.lockKeys(bucket, o.Key)()
	config, old, err := s.current(bucket, o.Key)
	if err != nil {
		return err
	}
	if err := check(config, old); err != nil {
		return err
	}
	return s.commit(&record{In: bucket, Put: o})
}

// Append adds the blob to the object of the key, which next describes, its Extents excepted. next runs under the lock
// of the key, as a Check does.
func (s *Store) Append(bucket, key string, add *Blob, next func(Bucket, *Object) (*Object, error)) error {
	defer s.lockKeys(bucket, key)()
	config, old, err := s.current(bucket, key)
	if err != nil {
		return err
	}
	o, err := next(config, old)
	if err != nil {
		return err
	}
	switch {
	case old == nil || len(old.Extents) == 0:
		o.Extents = add.Extents()
	case add.Size > 0:
		e := old.Extents[0]
		if err := s.extend(e.Blob, e.Size, add); err != nil {
			return err
		}
		o.Extents = []Extent{{Blob: e.Blob, Size: e.Size + add.Size}}
	default:
		o.Extents = old.Extents
	}
	return s.commit(&record{In: bucket, Put: o})
}

// Delete removes the keys if check agrees to each of those that exist; all or none. Missing keys are no error.
func (s *Store) Delete(bucket string, keys []string, check Check) error {
	defer s.lockKeys(bucket, keys...)()
	var records []*record
	for _, k := range keys {
		config, old, err := s.current(bucket, k)
		if err != nil {
			return err
		}
		if old == nil {
			continue
		}
		if err := check(config, old); err != nil {
			return err
		}
		records = append(records, &record{In: bucket, Delete: []byte(k)})
	}
	if len(records) == 0 {
		return nil
	}
	return s.commit(records...)
}

// Initiate stores a new upload if check agrees.
func (s *Store) Initiate(bucket string, u *Upload, check Check) error {
	defer s.lockKeys(bucket, u.Key)()
	config, old, err := s.current(bucket, u.Key)
	if err != nil {
		return err
	}
	if err := check(config, old); err != nil {
		return err
	}
	return s.commit(&record{In: bucket, Upload: u})
}

// PutPart stores a part, in place of an earlier one with its number.
func (s *Store) PutPart(bucket, key, id string, p Part) error {
	defer s.lockKeys(bucket, key)()
	if err := s.CheckUpload(bucket, key, id); err != nil {
		return err
	}
	return s.commit(&record{In: bucket, ID: id, Part: &p})
}

// Complete turns the upload into the object that build makes of it; build may refuse, and then nothing changes.
func (s *Store) Complete(bucket, key, id string, build func(Bucket, *Object, *Upload) (*Object, error)) error {
	defer s.lockKeys(bucket, key)()
	u, err := s.Upload(bucket, key, id)
	if err != nil {
		return err
	}
	config, old, err := s.current(bucket, key)
	if err != nil {
		return err
	}
	o, err := build(config, old, u)
	if err != nil {
		return err
	}
	return s.commit(&record{In: bucket, ID: id, Put: o})
}

// Abort drops the upload and its parts.
func (s *Store) Abort(bucket, key, id string) error {
	defer s.lockKeys(bucket, key)()
	if err := s.CheckUpload(bucket, key, id); err != nil {
		return err
	}
	return s.commit(&record{In: bucket, ID: id})
}

// SetBucket creates or changes a bucket: change gets the present configuration, or one with only the name if there is
// none.
func (s *Store) SetBucket(name string, change func(b *Bucket, exists bool) error) error {
	s.bucketGate.Lock()
	defer s.bucketGate.Unlock()
	config, err := s.Bucket(name)
	if err != nil {
		config = Bucket{Name: name}
	}
	if err := change(&config, err == nil); err != nil {
		return err
	}
	return s.commit(&record{Bucket: &config})
}

// RemoveBucket removes an empty bucket.
func (s *Store) RemoveBucket(name string) error {
	s.bucketGate.Lock()
	defer s.bucketGate.Unlock()
	s.mu.RLock()
	b := s.buckets[name]
	s.mu.RUnlock()
	if b == nil {
		return ErrNoBucket
	}
	if b.objects.count > 0 || len(b.uploads) > 0 {
		return ErrBucketNotEmpty
	}
	return s.commit(&record{RemoveBucket: name})
}
