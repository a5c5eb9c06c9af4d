package oss

import (
	"encoding/base64"
	"strconv"
	"strings"
	"unicode/utf8"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

// pageSize reads a parameter that limits a page: 1 to 1000.
func (c *call) pageSize(name string, fallback int) (int, error) {
	text := c.query.get(name)
	if text == "" {
		return fallback, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, badArgument(name, text, name+" has to be a number between 1 and 1000.")
	}
	return n, nil
}

// encoder returns how names are written in a listing and the value of EncodingType.
func (c *call) encoder() (encode func(string) string, encodingType string, err error) {
	switch v := c.query.get("encoding-type"); v {
	case "":
		return func(s string) string { return s }, "", nil
	case "url":
		return func(s string) string { return percentEncode(s, "") }, "url", nil
	default:
		return nil, "", badArgument("encoding-type", v, "The only encoding type is url.")
	}
}

func (c *call) owner() ownerXML {
	return ownerXML{ID: "1000000000000001", DisplayName: "1000000000000001"}
}

func (c *call) listObjects() error {
	marker := c.query.get("marker")
	return c.list(marker, func(doc *listXML, page disk.Page, encode func(string) string) {
		m := encode(marker)
		doc.Marker = &m
		if page.Truncated {
			next := encode(page.Last)
			doc.NextMarker = &next
		}
		owner := c.owner()
		for i := range doc.Contents {
			doc.Contents[i].Owner = &owner
		}
	})
}

func (c *call) listObjectsV2() error {
	if v := c.query.get("list-type"); v != "2" {
		return badArgument("list-type", v, "list-type has to be 2.")
	}
	startAfter, token := c.query.get("start-after"), c.query.get("continuation-token")
	after := startAfter
	if token != "" {
		last, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return badArgument("continuation-token", token, "The continuation token is not one that this server gave out.")
		}
		after = string(last)
	}
	return c.list(after, func(doc *listXML, page disk.Page, encode func(string) string) {
		if s := encode(startAfter); s != "" {
			doc.StartAfter = &s
		}
		if t := encode(token); t != "" {
			doc.ContinuationToken = &t
		}
		if page.Truncated {
			next := encode(base64.RawURLEncoding.EncodeToString([]byte(page.Last)))
			doc.NextContinuationToken = &next
		}
		count := len(page.Objects) + len(page.Prefixes)
		doc.KeyCount = &count
		if c.query.get("fetch-owner") == "true" {
			owner := c.owner()
			for i := range doc.Contents {
				doc.Contents[i].Owner = &owner
			}
		}
	})
}

// list does what both versions have in common; finish adds the rest.
func (c *call) list(after string, finish func(*listXML, disk.Page, func(string) string)) error {
	size, err := c.pageSize("max-keys", 100)
	if err != nil {
		return err
	}
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	q := disk.Query{Prefix: c.query.get("prefix"), Delimiter: c.query.get("delimiter"), After: after, Max: size}
	page, err := c.server.store.List(c.bucket, q)
	if err != nil {
		return err
	}
	doc := listXML{
		Name: c.bucket, Prefix: encode(q.Prefix), Delimiter: encode(q.Delimiter), MaxKeys: size,
		EncodingType: encodingType, IsTruncated: page.Truncated,
	}
	for _, o := range page.Objects {
		doc.Contents = append(doc.Contents, objectXML{
			Key: encode(o.Key), LastModified: o.Modified.Format(timeXML), ETag: `"` + o.ETag + `"`,
			Type: o.Type, Size: o.Size, StorageClass: o.Class,
		})
	}
	for _, p := range page.Prefixes {
		doc.CommonPrefixes = append(doc.CommonPrefixes, prefixXML{encode(p)})
	}
	finish(&doc, page, encode)
	return c.writeXML(doc)
}

// deleteObjects removes up to 1000 keys; a key that does not exist counts as deleted.
func (c *call) deleteObjects() error {
	if c.http.Header.Get("Content-Md5") == "" {
		return fail(400, "MissingArgument", "Missing Some Required Arguments: Content-MD5.").with("ArgumentName", "Content-MD5")
	}
	var request deleteXML
	if err := c.readXML(&request, 2<<20); err != nil {
		return err
	}
	if n := len(request.Objects); n < 1 || n > 1000 {
		return fail(400, "MalformedXML", "The XML names %d objects: between 1 and 1000 are allowed.", n)
	}
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	var names []string
	for _, o := range request.Objects {
		if o.Key == "" || !utf8.ValidString(o.Key) {
			return fail(400, "MalformedXML", "The XML holds an object without a valid key.")
		}
		if err := checkKey(o.Key); err != nil {
			return err
		}
		if err := c.authorize("oss:DeleteObject", c.bucket, requestFor(o.Key)); err != nil {
			return err
		}
		names = append(names, o.Key)
	}
	if err := c.remove(names); err != nil {
		return err
	}
	if request.Quiet {
		return c.writeEmpty(200)
	}
	marker := c.w.Header().Get("x-oss-delete-marker") != ""
	doc := deleteResultXML{EncodingType: encodingType}
	for _, k := range names {
		doc.Deleted = append(doc.Deleted, deletedXML{encode(k), marker})
	}
	return c.writeXML(doc)
}

// listUploads lists multipart uploads in progress.
func (c *call) listUploads() error {
	size, err := c.pageSize("max-uploads", 1000)
	if err != nil {
		return err
	}
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	q := c.query
	prefix, delimiter := q.get("prefix"), q.get("delimiter")
	keyMarker, idMarker := q.get("key-marker"), q.get("upload-id-marker")
	uploads, err := c.server.store.Uploads(c.bucket, prefix)
	if err != nil {
		return err
	}
	doc := listUploadsXML{
		EncodingType: encodingType, Bucket: c.bucket, KeyMarker: encode(keyMarker), UploadIDMarker: idMarker,
		Delimiter: encode(delimiter), Prefix: encode(prefix), MaxUploads: size,
	}
	lastKey, lastID := "", ""
	for _, u := range uploads {
		if u.Key < keyMarker || u.Key == keyMarker && (idMarker == "" || u.ID <= idMarker) {
			continue
		}
		name, id := u.Key, u.ID
		if i := strings.Index(name[len(prefix):], delimiter); delimiter != "" && i >= 0 {
			name, id = name[:len(prefix)+i+len(delimiter)], ""
			if name == lastKey || strings.HasPrefix(keyMarker, name) {
				continue
			}
		}
		if len(doc.Uploads)+len(doc.CommonPrefixes) == size {
			doc.IsTruncated, doc.NextKeyMarker, doc.NextUploadIDMarker = true, encode(lastKey), lastID
			break
		}
		lastKey, lastID = name, id
		if id == "" {
			doc.CommonPrefixes = append(doc.CommonPrefixes, prefixXML{encode(name)})
		} else {
			doc.Uploads = append(doc.Uploads, uploadXML{encode(name), id, u.Template.Class, u.Initiated.Format(timeXML)})
		}
	}
	return c.writeXML(doc)
}
