package oss

import (
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// Error is an answer that OSS gives instead of doing what was asked.
type Error struct {
	Status  int
	Code    string
	Message string
	EC      string      // cause number, as in the header x-oss-ec
	Extra   []Element   // error-specific elements of the XML body
	Header  http.Header // further response headers
}

// Element is a child element of the XML error body.
type Element struct{ Name, Value string }

func (e *Error) Error() string { return fmt.Sprintf("%d %s: %s", e.Status, e.Code, e.Message) }

// with returns a copy with one more element.
func (e *Error) with(name, value string) *Error {
	c := *e
	c.Extra = append(append([]Element(nil), e.Extra...), Element{name, value})
	return &c
}

func fail(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func badArgument(name, value, why string) *Error {
	return fail(400, "InvalidArgument", "%s", why).with("ArgumentName", name).with("ArgumentValue", value)
}

func errNoSuchKey(key string) *Error {
	return fail(404, "NoSuchKey", "The specified key does not exist.").with("Key", key)
}

func errNoSuchBucket(bucket string) *Error {
	return fail(404, "NoSuchBucket", "The specified bucket does not exist.").with("BucketName", bucket)
}

func errNoSuchUpload(id string) *Error {
	return fail(404, "NoSuchUpload", "The upload id is unknown: it was completed, aborted or never existed.").with("UploadId", id)
}

// toError gives the answer for an error of a handler; whatever is not foreseen is the server's own failure.
func (c *call) toError(err error) *Error {
	var known *Error
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, disk.ErrNoBucket):
		return errNoSuchBucket(c.bucket)
	case errors.Is(err, disk.ErrNoObject):
		return errNoSuchKey(c.key)
	case errors.Is(err, disk.ErrNoUpload):
		return errNoSuchUpload(c.query.get("uploadId"))
	case errors.Is(err, disk.ErrBucketNotEmpty):
		return fail(409, "BucketNotEmpty", "The bucket you tried to delete is not empty.").with("BucketName", c.bucket)
	}
	c.server.log.Error("request failed inside the server", "operation", c.op.name, "bucket", c.bucket, "key", c.key, "err", err)
	return fail(500, "InternalError", "%v", err)
}

// errorBody writes the XML document of an error by hand: its element names vary.
func (c *call) errorBody(e *Error) []byte {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n<Error>\n")
	element := func(name, value string) {
		b.WriteString("  <" + name + ">")
		_ = xml.EscapeText(&b, []byte(value)) // a Builder never fails
		b.WriteString("</" + name + ">\n")
	}
	element("Code", e.Code)
	element("Message", e.Message)
	element("RequestId", c.id)
	element("HostId", c.http.Host)
	for _, x := range e.Extra {
		element(x.Name, x.Value)
	}
	element("EC", e.ec())
	b.WriteString("</Error>\n")
	return []byte(b.String())
}

// ec gives the cause number, or one that is well-formed and means nothing.
func (e *Error) ec() string {
	if e.EC != "" {
		return e.EC
	}
	return "0000-00000000"
}

// writeError answers with the error. A HEAD has no body, so the document goes into a header there.
func (c *call) writeError(e *Error, withBody bool) {
	h := c.w.Header()
	for name, values := range e.Header {
		h[http.CanonicalHeaderKey(name)] = values
	}
	c.code = e.Code
	if e.Status == http.StatusNotModified {
		c.w.WriteHeader(e.Status)
		return
	}
	h.Set("x-oss-ec", e.ec())
	switch {
	case !withBody:
		h.Set("Content-Length", "0")
		c.w.WriteHeader(e.Status)
	case c.http.Method == http.MethodHead:
		h.Set("x-oss-err", base64.StdEncoding.EncodeToString(c.errorBody(e)))
		c.w.WriteHeader(e.Status)
	default:
		h.Set("Content-Type", "application/xml")
		c.w.WriteHeader(e.Status)
		_, _ = c.w.Write(c.errorBody(e))
	}
}
