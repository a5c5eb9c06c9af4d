package oss

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// The types of objects, as in x-oss-object-type.
const (
	typeNormal     = "Normal"
	typeMultipart  = "Multipart"
	typeAppendable = "Appendable"
)

const metaPrefix = "x-oss-meta-"

// storedHeaders are kept with an object and come back with it, besides user metadata.
func storedHeaders() []string {
	return []string{
		"content-type", "cache-control", "content-disposition", "content-encoding", "content-language", "expires",
		"x-oss-server-side-encryption", "x-oss-server-side-encryption-key-id", "x-oss-server-side-data-encryption", "x-oss-object-acl",
	}
}

// template reads the properties of a new object from the headers of the request.
func (c *call) template(objectType string) (disk.Object, error) {
	h := c.http.Header
	o := disk.Object{Key: c.key, Type: objectType, Class: h.Get("x-oss-storage-class"), Header: map[string]string{}, Tagging: h.Get("x-oss-tagging")}
	if o.Class == "" {
		b, err := c.server.store.Bucket(c.bucket)
		if err != nil {
			return o, err
		}
		o.Class = b.Class
	}
	if err := c.checkTemplate(o); err != nil {
		return o, err
	}
	if o.Tagging != "" {
		if err := c.authorize("oss:PutObjectTagging", c.bucket, c.policyKey()); err != nil {
			return o, err
		}
	}
	for _, name := range storedHeaders() {
		if v := h.Get(name); v != "" {
			o.Header[name] = v
		}
	}
	size := 0
	for name := range h {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, metaPrefix) {
			o.Header[lower] = headerValue(h, name)
			size += len(lower) - len(metaPrefix) + len(o.Header[lower])
		}
	}
	if size > 8<<10 {
		return o, fail(400, "InvalidArgument", "The user metadata is larger than 8 KiB.")
	}
	for name, v := range o.Header {
		if !utf8.ValidString(v) {
			return o, badArgument(name, v, "The header is not valid UTF-8.")
		}
	}
	return o, nil
}

func (c *call) checkTemplate(o disk.Object) error {
	h := c.http.Header
	for _, name := range []string{"If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"} {
		if h.Get(name) != "" {
			e := fail(400, "NotImplemented", "A header you provided implies functionality that is not implemented.").with("Header", name)
			e.EC = "0017-00000245"
			return e
		}
	}
	if !slices.Contains([]string{"Standard", "IA", "Archive", "ColdArchive", "DeepColdArchive"}, o.Class) {
		return badArgument("x-oss-storage-class", o.Class, "Unknown storage class.")
	}
	if acl := h.Get("x-oss-object-acl"); !slices.Contains([]string{"", "default", "private", "public-read", "public-read-write"}, acl) {
		return badArgument("x-oss-object-acl", acl, "Unknown ACL.")
	}
	sse := h.Get("x-oss-server-side-encryption")
	if !slices.Contains([]string{"", "AES256", "KMS", "SM4"}, sse) {
		return fail(400, "InvalidEncryptionAlgorithmError", "The encryption algorithm %q is unknown: AES256, KMS and SM4 are allowed.", sse)
	}
	if h.Get("x-oss-server-side-encryption-key-id") != "" && sse != "KMS" {
		return badArgument("x-oss-server-side-encryption-key-id", h.Get("x-oss-server-side-encryption-key-id"), "A key id goes with KMS only.")
	}
	_, err := parseTags(o.Tagging)
	return err
}

// parseTags reads the header x-oss-tagging; blanks may be written as %20 or +.
func parseTags(text string) ([]parameter, error) {
	if text == "" {
		return nil, nil
	}
	var tags []parameter
	seen := map[string]bool{}
	for pair := range strings.SplitSeq(text, "&") {
		name, value, _ := strings.Cut(pair, "=")
		k, errK := url.QueryUnescape(name)
		v, errV := url.QueryUnescape(value)
		if errK != nil || errV != nil || k == "" || seen[k] || utf8.RuneCountInString(k) > 128 || utf8.RuneCountInString(v) > 256 {
			return nil, badArgument("x-oss-tagging", text, "The tags are not of the form key=value&key2=value2, url-encoded, with distinct keys of 1 to 128 and values of at most 256 characters.")
		}
		seen[k] = true
		tags = append(tags, parameter{k, v})
	}
	if len(tags) > 10 {
		return nil, badArgument("x-oss-tagging", text, "There can be no more than 10 tags.")
	}
	return tags, nil
}

// receive stores the body of the request as a blob, checked against length and digest.
func (c *call) receive(limit int64) (*disk.Blob, error) {
	if c.http.ContentLength < 0 && !slices.Contains(c.http.TransferEncoding, "chunked") {
		return nil, fail(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
	}
	if c.http.ContentLength > limit {
		return nil, fail(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed object size of %d bytes.", limit)
	}
	if _, err := c.server.store.Bucket(c.bucket); err != nil {
		return nil, err
	}
	blob, err := c.server.store.WriteBlob(&limited{r: c.body, left: limit, limit: limit})
	if err != nil {
		return nil, err
	}
	if err := checkSum(c.http.Header.Get("Content-Md5"), blob.MD5); err != nil {
		blob.Discard()
		return nil, err
	}
	return blob, nil
}

// mayWrite is the check before anything that creates or replaces an object. In a bucket whose versioning is or was on,
// OSS ignores x-oss-forbid-overwrite without a word.
func (c *call) mayWrite(b disk.Bucket, current *disk.Object) error {
	if current == nil {
		return nil
	}
	if b.WORM {
		return errImmutable()
	}
	if b.Versioning == "" && strings.EqualFold(c.http.Header.Get("x-oss-forbid-overwrite"), "true") {
		return fail(409, "FileAlreadyExists", "The object you specified already exists and can not be overwritten.").with("Key", c.key)
	}
	return nil
}

func errImmutable() *Error {
	return fail(409, "FileImmutable", "The object you specified is immutable.")
}

// version gives the id of a new version.
func version(b disk.Bucket) string {
	switch b.Versioning {
	case "Enabled":
		return "CAEQ" + newRequestID()
	case "Suspended":
		return "null"
	}
	return ""
}

func (c *call) putObject() error {
	o, err := c.template(typeNormal)
	if err != nil {
		return err
	}
	blob, err := c.receive(c.server.limits.put)
	if err != nil {
		return err
	}
	defer blob.Discard()
	o.Extents, o.Size, o.CRC64 = blob.Extents(), blob.Size, blob.CRC64
	o.ETag = strings.ToUpper(hex.EncodeToString(blob.MD5[:]))
	o.MD5 = base64.StdEncoding.EncodeToString(blob.MD5[:])
	err = c.server.store.Put(c.bucket, &o, func(b disk.Bucket, current *disk.Object) error {
		o.Version, o.Modified = version(b), c.now().UTC()
		return c.mayWrite(b, current)
	})
	if err != nil {
		return err
	}
	c.setWritten(&o)
	return c.writeEmpty(http.StatusOK)
}

// setWritten sets the headers that every answer to a write carries.
func (c *call) setWritten(o *disk.Object) {
	h := c.w.Header()
	h.Set("ETag", `"`+o.ETag+`"`)
	if o.MD5 != "" {
		h.Set("Content-MD5", o.MD5)
	}
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(o.CRC64, 10))
	c.setVersion(o)
	c.setEncryption(o)
}

func (c *call) setVersion(o *disk.Object) {
	if o.Version != "" {
		c.w.Header().Set("x-oss-version-id", o.Version)
	}
}

func (c *call) setEncryption(o *disk.Object) {
	for name, v := range o.Header {
		if strings.HasPrefix(name, "x-oss-server-side-") {
			c.w.Header().Set(name, v)
		}
	}
}
