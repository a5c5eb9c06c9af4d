package oss

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

const maxParts = 10000

func (c *call) initiateUpload() error {
	_, _ = io.Copy(io.Discard, c.body)
	o, err := c.template(typeMultipart)
	if err != nil {
		return err
	}
	u := &disk.Upload{ID: newRequestID() + newRequestID()[:8], Key: c.key, Initiated: c.now().UTC(), Template: o}
	if err := c.server.store.Initiate(c.bucket, u, c.mayWrite); err != nil {
		return err
	}
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	c.setEncryption(&o)
	return c.writeXML(initiateXML{EncodingType: encodingType, Bucket: c.bucket, Key: encode(c.key), UploadID: u.ID})
}

func (c *call) partNumber() (int, error) {
	text := c.query.get("partNumber")
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxParts {
		return 0, badArgument("partNumber", text, fmt.Sprintf("Part number must be an integer between 1 and %d, inclusive.", maxParts))
	}
	return n, nil
}

func (c *call) uploadPart() error {
	n, err := c.partNumber()
	if err != nil {
		return err
	}
	if err := c.server.store.CheckUpload(c.bucket, c.key, c.query.get("uploadId")); err != nil {
		return err
	}
	blob, err := c.receive(c.server.limits.put)
	if err != nil {
		return err
	}
	defer blob.Discard()
	p, err := c.storePart(n, blob)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("ETag", `"`+p.ETag+`"`)
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(p.CRC64, 10))
	return c.writeEmpty(http.StatusOK)
}

func (c *call) storePart(n int, blob *disk.Blob) (disk.Part, error) {
	p := disk.Part{
		Number: n, Extents: blob.Extents(), Size: blob.Size, CRC64: blob.CRC64,
		ETag: strings.ToUpper(hex.EncodeToString(blob.MD5[:])), Modified: c.now().UTC(),
	}
	return p, c.server.store.PutPart(c.bucket, c.key, c.query.get("uploadId"), p)
}

func (c *call) completeUpload() error {
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	wanted, all, err := c.wantedParts()
	if err != nil {
		return err
	}
	var result *disk.Object
	err = c.server.store.Complete(c.bucket, c.key, c.query.get("uploadId"),
		func(b disk.Bucket, current *disk.Object, u *disk.Upload) (*disk.Object, error) {
			if all {
				wanted = allParts(u)
			}
			parts, err := c.pickParts(u, wanted)
			if err != nil {
				return nil, err
			}
			if err := c.mayWrite(b, current); err != nil {
				return nil, err
			}
			result = assemble(u.Template, parts)
			result.Key, result.Version, result.Modified = c.key, version(b), c.now().UTC()
			return result, nil
		})
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("ETag", `"`+result.ETag+`"`)
	h.Set("x-oss-hash-crc64ecma", strconv.FormatUint(result.CRC64, 10))
	c.setVersion(result)
	return c.writeXML(completeResultXML{
		EncodingType: encodingType, Location: "http://" + c.http.Host + "/" + c.bucket + "/" + percentEncode(c.key, "/"),
		Bucket: c.bucket, Key: encode(c.key), ETag: `"` + result.ETag + `"`,
	})
}

// wantedParts reads which parts the object is to have; all is true if the client leaves that to the server.
func (c *call) wantedParts() (parts []completePartXML, all bool, err error) {
	data, err := c.readSmall(4 << 20)
	if err != nil {
		return nil, false, err
	}
	if c.http.Header.Get("x-oss-complete-all") == "yes" {
		if len(data) > 0 {
			return nil, false, badArgument("x-oss-complete-all", "yes", "A body is not allowed with x-oss-complete-all.")
		}
		return nil, true, nil
	}
	var doc completeXML
	if err := xml.Unmarshal(data, &doc); err != nil {
		return nil, false, fail(400, "MalformedXML", "The XML you provided was not well-formed: %v.", err)
	}
	if n := len(doc.Parts); n < 1 || n > maxParts {
		return nil, false, fail(400, "MalformedXML", "The XML names %d parts: between 1 and %d are allowed.", n, maxParts)
	}
	return doc.Parts, false, nil
}

func allParts(u *disk.Upload) []completePartXML {
	var out []completePartXML
	for _, n := range slices.Sorted(maps.Keys(u.Parts)) {
		out = append(out, completePartXML{n, u.Parts[n].ETag})
	}
	return out
}

// pickParts checks order, ETags and sizes.
func (c *call) pickParts(u *disk.Upload, wanted []completePartXML) ([]disk.Part, error) {
	if len(wanted) == 0 {
		return nil, fail(400, "InvalidPart", "The upload has no parts.").with("UploadId", u.ID)
	}
	var parts []disk.Part
	for i, w := range wanted {
		if i > 0 && w.Number <= wanted[i-1].Number {
			return nil, fail(400, "InvalidPartOrder", "The list of parts was not in ascending order: part %d follows %d.", w.Number, wanted[i-1].Number)
		}
		p, ok := u.Parts[w.Number]
		if !ok || !strings.EqualFold(strings.Trim(w.ETag, `"`), p.ETag) {
			return nil, fail(400, "InvalidPart", "One or more of the specified parts could not be found or the specified entity tag might not have matched the part's entity tag: part %d.", w.Number).
				with("UploadId", u.ID).with("PartNumber", strconv.Itoa(w.Number))
		}
		if p.Size < c.server.limits.minPart && i < len(wanted)-1 {
			return nil, fail(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size of %d bytes: part %d.", c.server.limits.minPart, w.Number).
				with("ProposedSize", strconv.FormatInt(p.Size, 10)).with("PartNumber", strconv.Itoa(w.Number)).with("ETag", p.ETag)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

func assemble(o disk.Object, parts []disk.Part) *disk.Object {
	sum := md5.New()
	o.Extents, o.Size, o.CRC64 = nil, 0, 0
	for _, p := range parts {
		o.Extents = append(o.Extents, p.Extents...)
		o.CRC64 = combineCRC64(o.CRC64, p.CRC64, p.Size)
		o.Size += p.Size
		_, _ = io.WriteString(sum, p.ETag)
	}
	o.ETag = fmt.Sprintf("%X-%d", sum.Sum(nil), len(parts))
	return &o
}

func (c *call) abortUpload() error {
	if err := c.server.store.Abort(c.bucket, c.key, c.query.get("uploadId")); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusNoContent)
}

func (c *call) listParts() error {
	u, err := c.server.store.Upload(c.bucket, c.key, c.query.get("uploadId"))
	if err != nil {
		return err
	}
	size, err := c.pageSize("max-parts", 1000)
	if err != nil {
		return err
	}
	encode, encodingType, err := c.encoder()
	if err != nil {
		return err
	}
	marker := 0
	if text := c.query.get("part-number-marker"); text != "" {
		if marker, err = strconv.Atoi(text); err != nil || marker < 0 {
			return badArgument("part-number-marker", text, "part-number-marker has to be a number that is not negative.")
		}
	}
	doc := listPartsXML{
		EncodingType: encodingType, Bucket: c.bucket, Key: encode(c.key), UploadID: u.ID, StorageClass: u.Template.Class,
		Marker: marker, MaxParts: size,
	}
	parts := slices.SortedFunc(maps.Values(u.Parts), func(a, b disk.Part) int { return cmp.Compare(a.Number, b.Number) })
	for _, p := range parts {
		if p.Number <= marker {
			continue
		}
		if len(doc.Parts) == size {
			doc.IsTruncated = true
			break
		}
		doc.NextMarker = p.Number
		doc.Parts = append(doc.Parts, partXML{p.Number, p.Modified.Format(timeXML), `"` + p.ETag + `"`, p.CRC64, p.Size})
	}
	return c.writeXML(doc)
}
