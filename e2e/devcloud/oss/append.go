package oss

import (
	"crypto/md5"
	"encoding/hex"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// appendObject adds the body to an appendable object if that has just the length which the client says.
func (c *call) appendObject() error {
	text, ok := c.query.lookup("position")
	position, parseErr := strconv.ParseInt(text, 10, 64)
	if !ok || parseErr != nil || position < 0 {
		return badArgument("position", text, "The argument position has to be a number that is not negative.")
	}
	o, err := c.template(typeAppendable)
	if err != nil {
		return err
	}
	// Look before the body is read; what counts is the look under the lock.
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	current, _ := c.server.store.Stat(c.bucket, c.key)
	if err := c.mayAppend(b, current, position); err != nil {
		return err
	}
	blob, err := c.receive(c.server.limits.append)
	if err != nil {
		return err
	}
	defer blob.Discard()
	var result *disk.Object
	err = c.server.store.Append(c.bucket, c.key, blob, func(b disk.Bucket, current *disk.Object) (*disk.Object, error) {
		if err := c.mayAppend(b, current, position); err != nil {
			return nil, err
		}
		next, err := c.extended(o, current, blob)
		result = next
		if b.Versioning != "" {
			next.Version = "null"
		}
		return next, err
	})
	if err != nil {
		return err
	}
	c.setWritten(result)
	c.w.Header().Set("x-oss-next-append-position", strconv.FormatInt(result.Size, 10))
	return c.writeEmpty(http.StatusOK)
}

// extended describes current, or the new object o, after the blob was added.
func (c *call) extended(o disk.Object, current *disk.Object, blob *disk.Blob) (*disk.Object, error) {
	if current != nil {
		o = *current
		if blob.Size == 0 {
			return &o, nil
		}
	} else {
		o.ETag = hex.EncodeToString(make([]byte, md5.Size))
	}
	if o.Size+blob.Size > c.server.limits.append {
		return &o, fail(400, "InvalidArgument", "The object would become larger than the %d bytes allowed for an appendable.", c.server.limits.append)
	}
	sum := md5.Sum(append([]byte(o.ETag), blob.MD5[:]...)) // not the MD5 of the content: changes with each append
	o.ETag = strings.ToUpper(hex.EncodeToString(sum[:]))
	o.CRC64 = combineCRC64(o.CRC64, blob.CRC64, blob.Size)
	o.Size += blob.Size
	o.Modified = c.now().UTC()
	return &o, nil
}

func (c *call) mayAppend(b disk.Bucket, current *disk.Object, position int64) error {
	length := int64(0)
	if current != nil {
		if b.WORM {
			return errImmutable()
		}
		if current.Type != typeAppendable {
			return fail(409, "ObjectNotAppendable", "The object is not appendable.").with("Key", c.key)
		}
		length = current.Size
	}
	if position != length {
		e := fail(409, "PositionNotEqualToLength", "Position is not equal to file length: %d is, %d was given.", length, position)
		e.Header = http.Header{"X-Oss-Next-Append-Position": {strconv.FormatInt(length, 10)}}
		return e
	}
	if current != nil {
		return nil
	}
	h := c.http.Header
	if class := h.Get("x-oss-storage-class"); !slices.Contains([]string{"", "Standard", "IA", "Archive"}, class) {
		e := fail(400, "OperationNotSupported", "The storage class %s does not allow an append.", class)
		e.EC = "0016-00000503"
		return e
	}
	if h.Get("x-oss-server-side-encryption-key-id") != "" {
		return fail(400, "OperationNotSupported", "An appendable object cannot be encrypted with a KMS key of one's own.")
	}
	return nil
}
