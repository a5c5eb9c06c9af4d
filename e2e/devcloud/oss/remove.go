package oss

import (
	"io"
	"net/http"
	"strings"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

func (c *call) deleteObject() error {
	if err := c.remove([]string{c.key}); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusNoContent)
}

func (c *call) remove(keys []string) error {
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	if b.Versioning != "" {
		c.w.Header().Set("x-oss-delete-marker", "true")
	}
	return c.server.store.Delete(c.bucket, keys, func(b disk.Bucket, _ *disk.Object) error {
		if b.WORM {
			return errImmutable()
		}
		return nil
	})
}

// restoreObject makes an object of an archive class readable, at once.
func (c *call) restoreObject() error {
	_, _ = io.Copy(io.Discard, c.body)
	o, err := c.server.store.Stat(c.bucket, c.key)
	if err != nil {
		return err
	}
	if !archived(o) {
		if o.Restored {
			return c.writeEmpty(http.StatusOK)
		}
		return fail(400, "OperationNotSupported", "The operation is not supported for this resource: its class is %s.", o.Class)
	}
	next := *o
	next.Restored = true
	if err := c.server.store.Put(c.bucket, &next, func(_ disk.Bucket, current *disk.Object) error {
		if current != o {
			return fail(409, "RestoreAlreadyInProgress", "The object changed meanwhile.")
		}
		return nil
	}); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusAccepted)
}

func archived(o *disk.Object) bool { return strings.HasSuffix(o.Class, "Archive") && !o.Restored }
