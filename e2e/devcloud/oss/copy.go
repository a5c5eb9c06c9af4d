package oss

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"outrider.dev/e2e/devcloud/keys"
	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

func requestFor(key string) keys.Request { return keys.Request{Key: key} }

// openSource opens the object that x-oss-copy-source names, if the caller may read it and the conditions hold.
func (c *call) openSource() (*disk.Handle, error) {
	h := c.http.Header
	source := h.Get("x-oss-copy-source")
	path, parameters, _ := strings.Cut(source, "?")
	path, err := url.QueryUnescape(path)
	bucket, key, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if err != nil || !ok || key == "" {
		return nil, badArgument("x-oss-copy-source", source, "Copy source has to be /bucket/key, url-encoded.")
	}
	if err := c.authorize("oss:GetObject", bucket, requestFor(key)); err != nil {
		return nil, err
	}
	o, err := c.server.store.Open(bucket, key)
	switch {
	case errors.Is(err, disk.ErrNoBucket):
		return nil, errNoSuchBucket(bucket)
	case errors.Is(err, disk.ErrNoObject):
		return nil, errNoSuchKey(key)
	case err != nil:
		return nil, err
	}
	if err := c.checkSource(o.Object, parameters); err != nil {
		o.Close()
		return nil, err
	}
	return o, nil
}

func (c *call) checkSource(o *disk.Object, parameters string) error {
	h := c.http.Header
	if id, ok := strings.CutPrefix(parameters, "versionId="); ok && id != o.Version && (id != "null" || o.Version != "") {
		return fail(404, "NoSuchVersion", "The specified version does not exist: superseded versions are not kept here.").with("VersionId", id)
	}
	if o.Type == typeAppendable {
		return fail(400, "OperationNotSupported", "An appendable object cannot be the source of a copy.")
	}
	if archived(o) {
		return fail(403, "InvalidObjectState", "The source is %s and has not been restored.", o.Class)
	}
	failed := fail(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
	return checkConditions(conditions{
		match: h.Get("x-oss-copy-source-if-match"), noneMatch: h.Get("x-oss-copy-source-if-none-match"),
		modified: h.Get("x-oss-copy-source-if-modified-since"), unmodified: h.Get("x-oss-copy-source-if-unmodified-since"),
	}, o, failed)
}

func (c *call) copyObject() error {
	_, _ = io.Copy(io.Discard, c.body)
	source, err := c.openSource()
	if err != nil {
		return err
	}
	defer source.Close()
	o, err := c.template(source.Type)
	if err != nil {
		return err
	}
	switch v := c.http.Header.Get("x-oss-metadata-directive"); strings.ToUpper(v) {
	case "", "COPY":
		for name, value := range source.Header {
			if !strings.HasPrefix(name, "x-oss-server-side-") && name != "x-oss-object-acl" {
				o.Header[name] = value
			}
		}
	case "REPLACE":
	default:
		return badArgument("x-oss-metadata-directive", v, "The directive has to be COPY or REPLACE.")
	}
	switch v := c.http.Header.Get("x-oss-tagging-directive"); strings.ToUpper(v) {
	case "", "COPY":
		o.Tagging = source.Tagging
	case "REPLACE":
	default:
		return badArgument("x-oss-tagging-directive", v, "The directive has to be Copy or Replace.")
	}
	// The bytes are shared: nothing changes them once they are written.
	o.Extents, o.Size, o.CRC64, o.ETag, o.MD5 = source.Extents, source.Size, source.CRC64, source.ETag, source.MD5
	err = c.server.store.Put(c.bucket, &o, func(b disk.Bucket, current *disk.Object) error {
		o.Version, o.Modified = version(b), c.now().UTC()
		return c.mayWrite(b, current)
	})
	if err != nil {
		return err
	}
	c.setWritten(&o)
	c.w.Header().Del("Content-MD5")
	return c.writeXML(copyResultXML{xml.Name{Local: "CopyObjectResult"}, o.Modified.Format(timeXML), `"` + o.ETag + `"`})
}

func (c *call) uploadPartCopy() error {
	_, _ = io.Copy(io.Discard, c.body)
	n, err := c.partNumber()
	if err != nil {
		return err
	}
	if err := c.server.store.CheckUpload(c.bucket, c.key, c.query.get("uploadId")); err != nil {
		return err
	}
	source, err := c.openSource()
	if err != nil {
		return err
	}
	defer source.Close()
	s := span{from: 0, length: source.Size}
	if text := c.http.Header.Get("x-oss-copy-source-range"); text != "" {
		ok := false
		if s, ok = parseRange(text, source.Size, true); !ok || !s.partial {
			return badArgument("x-oss-copy-source-range", text, fmt.Sprintf("The range is not one within the %d bytes of the source.", source.Size))
		}
	}
	blob, err := c.copyBytes(source, s)
	if err != nil {
		return err
	}
	defer blob.Discard()
	p, err := c.storePart(n, blob)
	if err != nil {
		return err
	}
	c.w.Header().Set("ETag", `"`+p.ETag+`"`)
	c.w.Header().Set("x-oss-hash-crc64ecma", strconv.FormatUint(p.CRC64, 10))
	return c.writeXML(copyResultXML{xml.Name{Local: "CopyPartResult"}, p.Modified.Format(timeXML), `"` + p.ETag + `"`})
}

func (c *call) copyBytes(source *disk.Handle, s span) (*disk.Blob, error) {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(source.Copy(w, s.from, s.length)) // never fails
	}()
	blob, err := c.server.store.WriteBlob(r)
	_ = r.Close() // ends the copy if writing failed; never fails
	<-done
	return blob, err
}
