package oss

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

func (c *call) getObject() error {
	o, err := c.server.store.Open(c.bucket, c.key)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := c.checkRead(o.Object); err != nil {
		return err
	}
	if archived(o.Object) {
		return fail(403, "InvalidObjectState", "The operation is not valid for the object's state: it is %s and has not been restored.", o.Class).with("ObjectName", c.key)
	}
	standard := c.http.Header.Get("x-oss-range-behavior") == "standard"
	s, ok := parseRange(c.http.Header.Get("Range"), o.Size, standard)
	if !ok {
		e := fail(416, "InvalidRange", "The requested range cannot be satisfied.").
			with("RangeRequested", c.http.Header.Get("Range")).with("ActualObjectSize", strconv.FormatInt(o.Size, 10))
		e.Header = http.Header{"Content-Range": {fmt.Sprintf("bytes */%d", o.Size)}}
		return e
	}
	c.setObjectHeaders(o.Object)
	c.overrideHeaders()
	h := c.w.Header()
	h.Set("Content-Length", strconv.FormatInt(s.length, 10))
	status := http.StatusOK
	if s.partial {
		status = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", s.from, s.from+s.length-1, o.Size))
	}
	c.w.WriteHeader(status)
	if err := o.Copy(c.w, s.from, s.length); err != nil && !errors.Is(err, errCut) {
		return &connectionError{err}
	}
	return nil
}

func (c *call) headObject() error {
	o, err := c.server.store.Stat(c.bucket, c.key)
	if err != nil {
		return err
	}
	if err := c.checkRead(o); err != nil {
		return err
	}
	c.setObjectHeaders(o)
	c.w.Header().Set("Content-Length", strconv.FormatInt(o.Size, 10))
	if o.Type == typeAppendable {
		c.w.Header().Set("x-oss-next-append-position", strconv.FormatInt(o.Size, 10))
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) getObjectMeta() error {
	o, err := c.server.store.Stat(c.bucket, c.key)
	if err != nil {
		return err
	}
	if err := c.checkVersion(o); err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Length", strconv.FormatInt(o.Size, 10))
	h.Set("ETag", `"`+o.ETag+`"`)
	h.Set("Last-Modified", o.Modified.Format(http.TimeFormat))
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(o.CRC64, 10))
	c.setVersion(o)
	c.w.WriteHeader(http.StatusOK)
	return nil
}

func (c *call) setObjectHeaders(o *disk.Object) {
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	for name, v := range o.Header {
		if name != "x-oss-object-acl" {
			h.Set(name, v)
		}
	}
	c.setWritten(o)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Last-Modified", o.Modified.Format(http.TimeFormat))
	h.Set("x-oss-object-type", o.Type)
	h.Set("x-oss-storage-class", o.Class)
	if tags, err := parseTags(o.Tagging); err == nil && len(tags) > 0 {
		h.Set("x-oss-tagging-count", strconv.Itoa(len(tags)))
	}
	if o.Restored {
		h.Set("x-oss-restore", `ongoing-request="false", expiry-date="`+c.now().Add(24*time.Hour).UTC().Format(http.TimeFormat)+`"`)
	}
}

// overrideHeaders applies the response-* parameters of a GET.
func (c *call) overrideHeaders() {
	for _, name := range []string{"Content-Type", "Content-Language", "Expires", "Cache-Control", "Content-Disposition", "Content-Encoding"} {
		if v := c.query.get("response-" + strings.ToLower(name)); v != "" {
			c.w.Header().Set(name, v)
		}
	}
}

// checkRead judges the version and the If-* headers of a read.
func (c *call) checkRead(o *disk.Object) error {
	if err := c.checkVersion(o); err != nil {
		return err
	}
	h := c.http.Header
	return checkConditions(conditions{
		match: h.Get("If-Match"), noneMatch: h.Get("If-None-Match"),
		modified: h.Get("If-Modified-Since"), unmodified: h.Get("If-Unmodified-Since"),
	}, o, fail(http.StatusNotModified, "NotModified", "Not Modified"))
}

func (c *call) checkVersion(o *disk.Object) error {
	id := c.query.get("versionId")
	if id == "" || id == o.Version || id == "null" && o.Version == "" {
		return nil
	}
	return fail(404, "NoSuchVersion", "The specified version does not exist: superseded versions are not kept here.").
		with("Key", c.key).with("VersionId", id)
}

type conditions struct{ match, noneMatch, modified, unmodified string }

// checkConditions answers 412 or, for what has not changed, the error notModified.
func checkConditions(c conditions, o *disk.Object, notModified *Error) error {
	failed := func(name string) error {
		return fail(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.").with("Condition", name)
	}
	same := func(list string) bool {
		for tag := range strings.SplitSeq(list, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || strings.Trim(tag, `"`) == o.ETag {
				return true
			}
		}
		return false
	}
	newer := func(since string) (is, valid bool) {
		t, err := http.ParseTime(since)
		return o.Modified.Truncate(time.Second).After(t), err == nil
	}
	if c.match != "" && !same(c.match) {
		return failed("If-Match")
	}
	if is, valid := newer(c.unmodified); valid && is {
		return failed("If-Unmodified-Since")
	}
	if c.noneMatch != "" && same(c.noneMatch) {
		return notModified
	}
	if is, valid := newer(c.modified); valid && !is && c.noneMatch == "" {
		return notModified
	}
	return nil
}

func (c *call) getObjectTagging() error {
	o, err := c.server.store.Stat(c.bucket, c.key)
	if err != nil {
		return err
	}
	tags, err := parseTags(o.Tagging)
	if err != nil {
		return err
	}
	var doc taggingXML
	for _, t := range tags {
		doc.Tags = append(doc.Tags, tagXML{t.name, t.value})
	}
	return c.writeXML(doc)
}
