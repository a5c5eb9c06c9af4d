package oss

import (
	"encoding/xml"
	"io"
	"net/http"
	"slices"
	"strings"

	"outrider.dev/e2e/devcloud/oss/internal/disk"
)

func (c *call) bucketXML(b disk.Bucket) bucketXML {
	return bucketXML{
		CreationDate: b.Created.Format(timeXML), ExtranetEndpoint: "oss-" + c.server.region + ".aliyuncs.com",
		IntranetEndpoint: "oss-" + c.server.region + "-internal.aliyuncs.com", Location: "oss-" + c.server.region,
		Name: b.Name, Region: c.server.region, StorageClass: b.Class,
	}
}

func (c *call) listBuckets() error {
	doc := listBucketsXML{Owner: c.owner(), Prefix: c.query.get("prefix"), Marker: c.query.get("marker")}
	size, err := c.pageSize("max-keys", 100)
	if err != nil {
		return err
	}
	for _, b := range c.server.store.Buckets() {
		if !strings.HasPrefix(b.Name, doc.Prefix) || b.Name <= doc.Marker {
			continue
		}
		if len(doc.Buckets) == size {
			doc.IsTruncated, doc.MaxKeys, doc.NextMarker = true, size, doc.Buckets[size-1].Name
			break
		}
		doc.Buckets = append(doc.Buckets, c.bucketXML(b))
	}
	return c.writeXML(doc)
}

// putBucket creates a bucket, or changes the ACL of one that exists: there is one owner only.
func (c *call) putBucket() error {
	data, err := c.readSmall(64 << 10)
	if err != nil {
		return err
	}
	doc := createBucketXML{"Standard", "LRS"}
	if len(data) > 0 {
		if err := xml.Unmarshal(data, &doc); err != nil {
			return fail(400, "MalformedXML", "The XML you provided was not well-formed: %v.", err)
		}
	}
	acl := c.http.Header.Get("x-oss-acl")
	if !slices.Contains([]string{"", "private", "public-read", "public-read-write"}, acl) {
		return badArgument("x-oss-acl", acl, "Unknown ACL.")
	}
	err = c.server.store.SetBucket(c.bucket, func(b *disk.Bucket, exists bool) error {
		if !exists {
			b.Created, b.Class, b.ACL = c.now().UTC(), or(doc.StorageClass, "Standard"), "private"
			b.Redundancy = or(doc.DataRedundancyType, "LRS")
		}
		b.ACL = or(acl, b.ACL)
		return nil
	})
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/"+c.bucket)
	return c.writeEmpty(http.StatusOK)
}

func (c *call) deleteBucket() error {
	if err := c.server.store.RemoveBucket(c.bucket); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusNoContent)
}

func (c *call) getBucketInfo() error {
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	var doc bucketInfoXML
	doc.Bucket.bucketXML = c.bucketXML(b)
	doc.Bucket.DataRedundancyType, doc.Bucket.Versioning = b.Redundancy, b.Versioning
	doc.Bucket.Owner, doc.Bucket.Grant = c.owner(), b.ACL
	return c.writeXML(doc)
}

func (c *call) getBucketLocation() error {
	if _, err := c.server.store.Bucket(c.bucket); err != nil {
		return err
	}
	return c.writeXML(locationXML{Location: "oss-" + c.server.region})
}

func (c *call) getBucketACL() error {
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	return c.writeXML(aclXML{Owner: c.owner(), Grant: b.ACL})
}

func (c *call) getBucketStat() error {
	u, err := c.server.store.Usage(c.bucket)
	if err != nil {
		return err
	}
	return c.writeXML(statXML{Storage: u.Bytes, ObjectCount: u.Objects, MultipartUploadCount: u.Uploads, LastModifiedTime: c.now().Unix()})
}

func (c *call) getBucketVersioning() error {
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	return c.writeXML(versioningXML{Status: b.Versioning})
}

func (c *call) putBucketVersioning() error {
	var doc versioningXML
	if err := c.readXML(&doc, 64<<10); err != nil {
		return err
	}
	if doc.Status != "Enabled" && doc.Status != "Suspended" {
		return fail(400, "MalformedXML", "The versioning status has to be Enabled or Suspended.")
	}
	if err := c.server.SetVersioning(c.bucket, doc.Status); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusOK)
}

func (c *call) getBucketLifecycle() error {
	b, err := c.server.store.Bucket(c.bucket)
	if err != nil {
		return err
	}
	if b.Lifecycle == "" {
		return fail(404, "NoSuchLifecycle", "No Row found in Lifecycle Table.").with("BucketName", c.bucket)
	}
	c.w.Header().Set("Content-Type", "application/xml")
	c.w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(c.w, b.Lifecycle)
	return nil
}

func (c *call) putBucketLifecycle() error {
	data, err := c.readSmall(2 << 20)
	if err != nil {
		return err
	}
	var doc struct {
		XMLName xml.Name `xml:"LifecycleConfiguration"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		return fail(400, "MalformedXML", "The XML you provided was not well-formed: %v.", err)
	}
	if err := c.server.changeBucket(c.bucket, func(b *disk.Bucket) { b.Lifecycle = string(data) }); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusOK)
}

func (c *call) deleteBucketLifecycle() error {
	if err := c.server.changeBucket(c.bucket, func(b *disk.Bucket) { b.Lifecycle = "" }); err != nil {
		return err
	}
	return c.writeEmpty(http.StatusNoContent)
}
