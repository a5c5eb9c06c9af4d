package disk

import (
	"encoding/json"
	"time"
)

// Extent is a run of bytes of an object: the first Size bytes of a blob.
type Extent struct {
	Blob uint64 `json:"blob"`
	Size int64  `json:"size"`
}

// Object is the description of one stored object. A value that has been committed is never changed: a new state of the
// key is a new value, so readers need no lock.
type Object struct {
	Key      string            `json:"-"` // any bytes, hence not a JSON string: see MarshalJSON
	Extents  []Extent          `json:"extents,omitempty"`
	Size     int64             `json:"size"`
	CRC64    uint64            `json:"crc64"`
	ETag     string            `json:"etag"`          // without quotes
	MD5      string            `json:"md5,omitempty"` // base64, only where the ETag is the MD5
	Type     string            `json:"type"`          // Normal, Multipart, Appendable
	Class    string            `json:"class"`
	Modified time.Time         `json:"modified"`
	Version  string            `json:"version,omitempty"`
	Header   map[string]string `json:"header,omitempty"` // stored headers by lower-case name, user metadata among them
	Tagging  string            `json:"tagging,omitempty"`
	Restored bool              `json:"restored,omitempty"`
}

// Part is one uploaded part of a multipart upload.
type Part struct {
	Number   int       `json:"number"`
	Extents  []Extent  `json:"extents,omitempty"`
	Size     int64     `json:"size"`
	CRC64    uint64    `json:"crc64"`
	ETag     string    `json:"etag"`
	Modified time.Time `json:"modified"`
}

// Upload is a multipart upload in progress. Template carries what the finished object takes over from the start of
// the upload: headers, class, tags.
type Upload struct {
	ID        string       `json:"id"`
	Key       string       `json:"-"`
	Initiated time.Time    `json:"initiated"`
	Template  Object       `json:"template"`
	Parts     map[int]Part `json:"parts,omitempty"`
}

// Bucket is the configuration of one bucket.
type Bucket struct {
	Name       string    `json:"name"`
	Created    time.Time `json:"created"`
	Class      string    `json:"class"`
	Redundancy string    `json:"redundancy"`
	ACL        string    `json:"acl"`
	Versioning string    `json:"versioning,omitempty"` // "", Enabled, Suspended
	WORM       bool      `json:"worm,omitempty"`
	Lifecycle  string    `json:"lifecycle,omitempty"` // the XML as it was put
}

type plainObject Object

type objectJSON struct {
	Key []byte `json:"key"`
	*plainObject
}

// MarshalJSON writes the key as base64, so that keys which are not valid UTF-8 survive.
func (o *Object) MarshalJSON() ([]byte, error) {
	return json.Marshal(objectJSON{[]byte(o.Key), (*plainObject)(o)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (o *Object) UnmarshalJSON(data []byte) error {
	v := objectJSON{plainObject: (*plainObject)(o)}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	o.Key = string(v.Key)
	return nil
}

type plainUpload Upload

type uploadJSON struct {
	Key []byte `json:"key"`
	*plainUpload
}

// MarshalJSON writes the key as base64, so that keys which are not valid UTF-8 survive.
func (u *Upload) MarshalJSON() ([]byte, error) {
	return json.Marshal(uploadJSON{[]byte(u.Key), (*plainUpload)(u)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (u *Upload) UnmarshalJSON(data []byte) error {
	v := uploadJSON{plainUpload: (*plainUpload)(u)}
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	u.Key = string(v.Key)
	return nil
}
