package oss_test

import (
	"bytes"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func TestSDKv1(t *testing.T) {
	for name, auth := range map[string]v1.ClientOption{"V1": v1.AuthVersion(v1.AuthV1), "V4": v1.AuthVersion(v1.AuthV4)} {
		t.Run(name, func(t *testing.T) {
			cloud := devtest.Start(t, func(c *oss.Config) { c.MinPartBytes = 10 })
			b := newV1(t, cloud, auth)
			t.Run("objects", func(t *testing.T) { v1Objects(t, b) })
			t.Run("read", func(t *testing.T) { v1Read(t, b) })
			t.Run("conditions", func(t *testing.T) { v1Conditions(t, b) })
			t.Run("archive", func(t *testing.T) { v1Archive(t, b) })
			t.Run("append", func(t *testing.T) { v1Append(t, b) })
			t.Run("multipart", func(t *testing.T) { v1Multipart(t, b) })
			t.Run("abort", func(t *testing.T) { v1Abort(t, b) })
			t.Run("copy", func(t *testing.T) { v1Copy(t, b) })
			t.Run("bucket", func(t *testing.T) { v1Bucket(t, b) })
			t.Run("presigned", func(t *testing.T) { v1Presigned(t, b) })
		})
	}
}

func v1Objects(t *testing.T, b *v1.Bucket) {
	var h http.Header
	must(t, b.PutObject(oddKey, body("hello"), v1.ForbidOverWrite(true), v1.Meta("Lsn", "0/1"), v1.ContentType("text/x"),
		v1.SetTagging(v1.Tagging{Tags: []v1.Tag{{Key: "k", Value: "v w"}}}), v1.ServerSideEncryption("AES256"),
		v1.ObjectStorageClass(v1.StorageIA), v1.GetResponseHeader(&h)))
	header(t, h, "ETag", `"5D41402ABC4B2A76B9719D911017C592"`)
	header(t, h, "Content-MD5", "XUFAKrxLKna5cZ2REBfFkg==")
	header(t, h, "x-oss-hash-crc64ecma", "11177612005948864433")
	header(t, h, "x-oss-server-side-encryption", "AES256")
	if len(h.Get("x-oss-request-id")) != 24 || h.Get("x-oss-server-time") == "" || h.Get("Server") != "AliyunOSS" {
		t.Errorf("common headers: %v", h)
	}
	wantCode(t, b.PutObject(oddKey, body("other"), v1.ForbidOverWrite(true)), "FileAlreadyExists")
	wantCode(t, b.PutObject("bad", body("hello"), v1.ContentMD5("XUFAKrxLKna5cZ2REBfFkQ==")), "InvalidDigest")
	wantCode(t, b.PutObject("bad", body("x"), v1.ObjectStorageClass("Warm")), "InvalidArgument")
	wantCode(t, b.PutObject("bad", body("x"), v1.ServerSideEncryption("ROT13")), "InvalidEncryptionAlgorithmError")
	wantCode(t, b.PutObject("bad", body("x"), v1.IfMatch("x")), "NotImplemented")
	wantCode(t, b.PutObject(strings.Repeat("k", 1024), body("x")), "InvalidObjectName")
	wantCode(t, b.PutObject("bad", body("x"), v1.Meta("Big", strings.Repeat("x", 9000))), "InvalidArgument")
	if ok, err := b.IsObjectExist("bad"); ok || err != nil {
		t.Errorf("a refused put left something: %v %v", ok, err)
	}
	h, err := b.GetObjectDetailedMeta(oddKey)
	must(t, err)
	header(t, h, "Content-Length", "5")
	header(t, h, "Content-Type", "text/x")
	header(t, h, "x-oss-meta-lsn", "0/1")
	header(t, h, "x-oss-object-type", "Normal")
	header(t, h, "x-oss-storage-class", "IA")
	header(t, h, "x-oss-tagging-count", "1")
	h, err = b.GetObjectMeta(oddKey)
	must(t, err)
	header(t, h, "Content-Length", "5")
	header(t, h, "x-oss-meta-lsn", "")
	tags, err := b.GetObjectTagging(oddKey)
	if err != nil || len(tags.Tags) != 1 || tags.Tags[0].Value != "v w" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	_, err = b.GetObjectDetailedMeta("missing")
	wantCode(t, err, "NoSuchKey")
	_, err = b.GetObject("missing")
	wantCode(t, err, "NoSuchKey")
	must(t, b.PutObject("stream", struct{ *bytes.Buffer }{bytes.NewBufferString("of unknown length")}))
	r, err := b.GetObject("stream")
	equal(t, "stream", read(t, r, err), "of unknown length")
	must(t, b.DeleteObject("stream"))
	must(t, b.DeleteObject("stream"))
	must(t, b.PutObject("prefix", body("1")))
	must(t, b.PutObject("prefix/key", body("2")))
	result, err := b.DeleteObjects([]string{oddKey, "prefix", "prefix/key", "missing"})
	if err != nil || len(result.DeletedObjects) != 4 || result.DeletedObjects[0] != oddKey {
		t.Errorf("deleted %q, %v", result.DeletedObjects, err)
	}
	must(t, b.PutObject("q", body("2")))
	result, err = b.DeleteObjects([]string{"q"}, v1.DeleteObjectsQuiet(true))
	if err != nil || len(result.DeletedObjects) != 0 {
		t.Errorf("quietly deleted %q, %v", result.DeletedObjects, err)
	}
}

func v1Read(t *testing.T, b *v1.Bucket) {
	var h http.Header
	must(t, b.PutObject("r", body("0123456789")))
	get := func(options ...v1.Option) (string, int) {
		t.Helper()
		result, err := b.DoGetObject(&v1.GetObjectRequest{ObjectKey: "r"}, append(options, v1.GetResponseHeader(&h)))
		must(t, err)
		return read(t, result.Response.Body, nil), result.Response.StatusCode
	}
	text, status := get(v1.Range(2, 4))
	equal(t, "range", text, "234")
	equal(t, "status", status, 206)
	header(t, h, "Content-Range", "bytes 2-4/10")
	header(t, h, "x-oss-hash-crc64ecma", crcOf("0123456789")) // of the whole object
	header(t, h, "Content-MD5", "eB5eJF1ptWaXm4bijSPyxw==")
	text, status = get(v1.Range(8, 99))
	equal(t, "range too long, by default", text, "0123456789")
	equal(t, "status", status, 200)
	text, status = get(v1.Range(8, 99), v1.RangeBehavior("standard"))
	equal(t, "range too long, standard", text, "89")
	equal(t, "status", status, 206)
	text, _ = get(v1.NormalizedRange("-3"))
	equal(t, "suffix", text, "789")
	_, err := b.GetObject("r", v1.Range(10, 12), v1.RangeBehavior("standard"))
	wantCode(t, err, "InvalidRange")
	_, _ = get(v1.ResponseContentType("text/x y"), v1.ResponseCacheControl("no-store"))
	header(t, h, "Content-Type", "text/x y")
	header(t, h, "Cache-Control", "no-store")
}

func v1Conditions(t *testing.T, b *v1.Bucket) {
	must(t, b.PutObject("r", body("0123456789")))
	h, err := b.GetObjectMeta("r")
	must(t, err)
	etag, hour := h.Get("ETag"), time.Hour
	for _, v := range []struct {
		name   string
		option v1.Option
		status int
	}{
		{"If-Match", v1.IfMatch(etag), 200},
		{"If-Match other", v1.IfMatch(`"X"`), 412},
		{"If-None-Match", v1.IfNoneMatch(etag), 304},
		{"If-None-Match other", v1.IfNoneMatch(`"X"`), 200},
		{"If-Modified-Since past", v1.IfModifiedSince(time.Now().Add(-hour)), 200},
		{"If-Modified-Since future", v1.IfModifiedSince(time.Now().Add(hour)), 304},
		{"If-Unmodified-Since past", v1.IfUnmodifiedSince(time.Now().Add(-hour)), 412},
		{"If-Unmodified-Since future", v1.IfUnmodifiedSince(time.Now().Add(hour)), 200},
	} {
		r, err := b.GetObject("r", v.option)
		got := 200
		if err != nil {
			got = statusOf(err)
		} else {
			_ = r.Close()
		}
		equal(t, v.name, got, v.status)
	}
}

func v1Archive(t *testing.T, b *v1.Bucket) {
	must(t, b.PutObject("cold", body("x"), v1.ObjectStorageClass(v1.StorageArchive)))
	_, err := b.GetObject("cold")
	wantCode(t, err, "InvalidObjectState")
	must(t, b.RestoreObject("cold"))
	r, err := b.GetObject("cold")
	equal(t, "restored", read(t, r, err), "x")
}

// statusOf reads the status of errors of which SDK v1 makes text only.
func statusOf(err error) int {
	if _, status := code(err); status != 0 {
		return status
	}
	for _, s := range []int{304, 412} {
		if strings.Contains(err.Error(), strconv.Itoa(s)) {
			return s
		}
	}
	return 0
}

func v1Append(t *testing.T, b *v1.Bucket) {
	var h http.Header
	next, err := b.AppendObject("tail", body("abc"), 0, v1.Meta("A", "1"))
	must(t, err)
	equal(t, "next", next, 3)
	result, err := b.DoAppendObject(&v1.AppendObjectRequest{ObjectKey: "tail", Reader: body("def"), Position: 3}, nil)
	must(t, err)
	equal(t, "next", result.NextPosition, 6)
	must(t, b.PutObject("same", body("abcdef"), v1.GetResponseHeader(&h)))
	header(t, h, "x-oss-hash-crc64ecma", strconv.FormatUint(result.CRC, 10))
	_, err = b.AppendObject("tail", body("zzz"), 3, v1.GetResponseHeader(&h))
	wantCode(t, err, "PositionNotEqualToLength")
	header(t, h, "x-oss-next-append-position", "6")
	_, err = b.AppendObject("new", body("zzz"), 3)
	wantCode(t, err, "PositionNotEqualToLength")
	_, err = b.AppendObject("same", body("zzz"), 6)
	wantCode(t, err, "ObjectNotAppendable")
	_, err = b.AppendObject("new", body("zzz"), 0, v1.ObjectStorageClass(v1.StorageColdArchive))
	wantCode(t, err, "OperationNotSupported")
	_, err = b.AppendObject("tail", body(""), 6)
	must(t, err)
	h, err = b.GetObjectDetailedMeta("tail")
	must(t, err)
	header(t, h, "x-oss-object-type", "Appendable")
	header(t, h, "x-oss-next-append-position", "6")
	header(t, h, "x-oss-meta-a", "1")
	header(t, h, "Content-MD5", "")
	r, err := b.GetObject("tail")
	equal(t, "content", read(t, r, err), "abcdef")
	_, err = b.CopyObject("tail", "copy-of-tail")
	wantCode(t, err, "OperationNotSupported")
	must(t, b.PutObject("tail", body("final")))
	h, err = b.GetObjectDetailedMeta("tail")
	must(t, err)
	header(t, h, "x-oss-object-type", "Normal")
}

func v1Multipart(t *testing.T, b *v1.Bucket) {
	m, err := b.InitiateMultipartUpload(oddKey, v1.Meta("A", "1"), v1.ServerSideEncryption("KMS"))
	must(t, err)
	p1, err := b.UploadPart(m, body("aaaaaaaaaa"), 10, 1)
	must(t, err)
	small, err := b.UploadPart(m, body("bb"), 2, 3)
	must(t, err)
	p7, err := b.UploadPart(m, body("cc"), 2, 7)
	must(t, err)
	uploads, err := b.ListMultipartUploads(v1.Prefix("wal/"))
	if err != nil || len(uploads.Uploads) != 1 || uploads.Uploads[0].Key != oddKey || uploads.Uploads[0].UploadID != m.UploadID {
		t.Fatalf("uploads %+v, %v", uploads, err)
	}
	list, err := b.ListUploadedParts(m, v1.MaxParts(2))
	if err != nil || len(list.UploadedParts) != 2 || !list.IsTruncated || list.NextPartNumberMarker != "3" || list.Key != oddKey {
		t.Fatalf("parts %+v, %v", list, err)
	}
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{p1, small, p7})
	wantCode(t, err, "EntityTooSmall")
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{{PartNumber: 1, ETag: `"X"`}})
	wantCode(t, err, "InvalidPart")
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{p1, {PartNumber: 2, ETag: p1.ETag}})
	wantCode(t, err, "InvalidPart")
	if ok, _ := b.IsObjectExist(oddKey); ok {
		t.Error("visible before it is complete")
	}
	p3, err := b.UploadPart(m, body("BBBBBBBBBB"), 10, 3)
	must(t, err)
	done, err := b.CompleteMultipartUpload(m, []v1.UploadPart{p1, p3, p7})
	must(t, err)
	if done.Key != oddKey || !strings.HasSuffix(done.ETag, `-3"`) {
		t.Errorf("completed %+v", done)
	}
	r, err := b.GetObject(oddKey)
	equal(t, "content", read(t, r, err), "aaaaaaaaaaBBBBBBBBBBcc")
	r, err = b.GetObject(oddKey, v1.Range(8, 20))
	equal(t, "range over three parts", read(t, r, err), "aaBBBBBBBBBBc")
	var h http.Header
	must(t, b.PutObject("same", body("aaaaaaaaaaBBBBBBBBBBcc"), v1.GetResponseHeader(&h)))
	crc := h.Get("x-oss-hash-crc64ecma")
	h, err = b.GetObjectDetailedMeta(oddKey)
	must(t, err)
	header(t, h, "x-oss-hash-crc64ecma", crc)
	header(t, h, "x-oss-object-type", "Multipart")
	header(t, h, "x-oss-meta-a", "1")
	header(t, h, "x-oss-server-side-encryption", "KMS")
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{p1})
	wantCode(t, err, "NoSuchUpload")
	wantCode(t, b.AbortMultipartUpload(m), "NoSuchUpload")
}

func v1Abort(t *testing.T, b *v1.Bucket) {
	m, err := b.InitiateMultipartUpload("aborted")
	must(t, err)
	_, err = b.UploadPart(m, body("x"), 1, 1)
	must(t, err)
	must(t, b.AbortMultipartUpload(m))
	_, err = b.UploadPart(m, body("x"), 1, 1)
	wantCode(t, err, "NoSuchUpload")

	m, err = b.InitiateMultipartUpload("late", v1.ForbidOverWrite(true))
	must(t, err)
	p1, err := b.UploadPart(m, body("x"), 1, 1)
	must(t, err)
	must(t, b.PutObject("late", body("was first")))
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{p1}, v1.ForbidOverWrite(true))
	wantCode(t, err, "FileAlreadyExists")
	must(t, b.AbortMultipartUpload(m))
	_, err = b.InitiateMultipartUpload("late", v1.ForbidOverWrite(true))
	wantCode(t, err, "FileAlreadyExists")
}

func v1Copy(t *testing.T, b *v1.Bucket) {
	must(t, b.PutObject(oddKey, body("0123456789abcdef"), v1.Meta("A", "1"), v1.ContentType("text/x")))
	_, err := b.CopyObject(oddKey, "copy/of it")
	must(t, err)
	must(t, b.DeleteObject(oddKey))
	r, err := b.GetObject("copy/of it")
	equal(t, "copy outlives its source", read(t, r, err), "0123456789abcdef")
	h, err := b.GetObjectDetailedMeta("copy/of it")
	must(t, err)
	header(t, h, "x-oss-meta-a", "1")
	header(t, h, "Content-Type", "text/x")
	_, err = b.CopyObject("copy/of it", "second", v1.MetadataDirective(v1.MetaReplace), v1.Meta("B", "2"))
	must(t, err)
	h, err = b.GetObjectDetailedMeta("second")
	must(t, err)
	header(t, h, "x-oss-meta-a", "")
	header(t, h, "x-oss-meta-b", "2")
	_, err = b.CopyObject("copy/of it", "second", v1.ForbidOverWrite(true))
	wantCode(t, err, "FileAlreadyExists")
	_, err = b.CopyObject(oddKey, "third")
	wantCode(t, err, "NoSuchKey")
	_, err = b.CopyObject("second", "third", v1.CopySourceIfMatch(`"X"`))
	wantCode(t, err, "PreconditionFailed")
	m, err := b.InitiateMultipartUpload("parts")
	must(t, err)
	p1, err := b.UploadPartCopy(m, b.BucketName, "copy/of it", 0, 10, 1)
	must(t, err)
	p2, err := b.UploadPartCopy(m, b.BucketName, "copy/of it", 12, 4, 2)
	must(t, err)
	_, err = b.CompleteMultipartUpload(m, []v1.UploadPart{p1, p2})
	must(t, err)
	r, err = b.GetObject("parts")
	equal(t, "part copy", read(t, r, err), "0123456789cdef")
}

func v1Bucket(t *testing.T, b *v1.Bucket) {
	client := b.Client
	must(t, client.CreateBucket("second-bucket", v1.StorageClass(v1.StorageIA)))
	must(t, client.CreateBucket("second-bucket"))
	wantCode(t, client.CreateBucket("second-Bucket"), "")
	info, err := client.GetBucketInfo("second-bucket")
	if err != nil || info.BucketInfo.StorageClass != "IA" || info.BucketInfo.Location != "oss-cn-hangzhou" || info.BucketInfo.ACL != "private" {
		t.Errorf("info %+v, %v", info.BucketInfo, err)
	}
	location, err := client.GetBucketLocation("second-bucket")
	if err != nil || location != "oss-cn-hangzhou" {
		t.Errorf("location %q, %v", location, err)
	}
	acl, err := client.GetBucketACL("second-bucket")
	if err != nil || acl.ACL != "private" {
		t.Errorf("acl %+v, %v", acl, err)
	}
	list, err := client.ListBuckets()
	if err != nil || len(list.Buckets) != 2 || list.Buckets[1].Name != "second-bucket" {
		t.Errorf("buckets %+v, %v", list, err)
	}
	versioning, err := client.GetBucketVersioning("second-bucket")
	if err != nil || versioning.Status != "" {
		t.Errorf("versioning %+v, %v", versioning, err)
	}
	must(t, client.SetBucketVersioning("second-bucket", v1.VersioningConfig{Status: "Enabled"}))
	versioning, err = client.GetBucketVersioning("second-bucket")
	if err != nil || versioning.Status != "Enabled" {
		t.Errorf("versioning %+v, %v", versioning, err)
	}
	rules := []v1.LifecycleRule{v1.BuildLifecycleRuleByDays("a", "p/", true, 3)}
	must(t, client.SetBucketLifecycle("second-bucket", rules))
	got, err := client.GetBucketLifecycle("second-bucket")
	if err != nil || len(got.Rules) != 1 || got.Rules[0].ID != "a" {
		t.Errorf("lifecycle %+v, %v", got, err)
	}
	must(t, client.DeleteBucketLifecycle("second-bucket"))
	_, err = client.GetBucketLifecycle("second-bucket")
	wantCode(t, err, "NoSuchLifecycle")
	stat, err := client.GetBucketStat(b.BucketName)
	if err != nil || stat.ObjectCount == 0 || stat.Storage == 0 {
		t.Errorf("stat %+v, %v", stat, err)
	}
	wantCode(t, client.DeleteBucket(b.BucketName), "BucketNotEmpty")
	must(t, client.DeleteBucket("second-bucket"))
	_, err = client.GetBucketInfo("second-bucket")
	wantCode(t, err, "NoSuchBucket")
	_, err = client.GetBucketCORS(b.BucketName)
	wantCode(t, err, "NotImplemented")
}

func v1Presigned(t *testing.T, b *v1.Bucket) {
	put, err := b.SignURL(oddKey, v1.HTTPPut, 60, v1.ContentType("text/x"))
	must(t, err)
	must(t, b.PutObjectWithURL(put, body("signed"), v1.ContentType("text/x")))
	get, err := b.SignURL(oddKey, v1.HTTPGet, 60, v1.ResponseContentType("text/y z"))
	must(t, err)
	r, err := b.GetObjectWithURL(get)
	equal(t, "presigned get", read(t, r, err), "signed")
	_, err = b.GetObjectWithURL(get + "&x-oss-process=image")
	if c, _ := code(err); c == "" {
		t.Error("a changed URL was accepted")
	}
}
