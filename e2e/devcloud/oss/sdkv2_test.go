package oss_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	v2 "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/google/go-cmp/cmp"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func TestSDKv2(t *testing.T) {
	for name, version := range map[string]v2.SignatureVersionType{"V1": v2.SignatureVersionV1, "V4": v2.SignatureVersionV4} {
		t.Run(name, func(t *testing.T) {
			cloud := devtest.Start(t, func(c *oss.Config) { c.MinPartBytes = 10 })
			client := newV2(cloud, func(c *v2.Config) { c.WithSignatureVersion(version) })
			for name, test := range map[string]func(*testing.T, *v2.Client, string){
				"objects": v2Objects, "append": v2Append, "multipart": v2Multipart, "copy": v2Copy,
				"bucket": v2Bucket, "presigned": v2Presigned, "managers": v2Managers,
			} {
				t.Run(name, func(t *testing.T) { test(t, client, cloud.Bucket) })
			}
		})
	}
}

func v2Objects(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "objects/" + oddKey
	put, err := c.PutObject(ctx, &v2.PutObjectRequest{
		Bucket: &bucket, Key: &key, Body: body("hello"), ForbidOverwrite: v2.Ptr("true"), Metadata: map[string]string{"lsn": "0/1"},
		Tagging: v2.Ptr("k=v w"), ServerSideEncryption: v2.Ptr("KMS"), ServerSideEncryptionKeyId: v2.Ptr("key-1"),
	})
	must(t, err)
	equal(t, "etag", *put.ETag, `"5D41402ABC4B2A76B9719D911017C592"`)
	equal(t, "crc", *put.HashCRC64, "11177612005948864433")
	equal(t, "sse", put.Headers.Get("x-oss-server-side-encryption-key-id"), "key-1")
	_, err = c.PutObject(ctx, &v2.PutObjectRequest{Bucket: &bucket, Key: &key, Body: body("x"), ForbidOverwrite: v2.Ptr("true")})
	wantCode(t, err, "FileAlreadyExists")
	head, err := c.HeadObject(ctx, &v2.HeadObjectRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	equal(t, "length", head.ContentLength, 5)
	equal(t, "meta", head.Metadata["lsn"], "0/1")
	equal(t, "type", *head.ObjectType, "Normal")
	equal(t, "tags", head.TaggingCount, 1)
	meta, err := c.GetObjectMeta(ctx, &v2.GetObjectMetaRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	equal(t, "crc of objectMeta", *meta.HashCRC64, "11177612005948864433")
	got, err := c.GetObject(ctx, &v2.GetObjectRequest{Bucket: &bucket, Key: &key, Range: v2.Ptr("bytes=1-2"), RangeBehavior: v2.Ptr("standard")})
	must(t, err)
	equal(t, "range", read(t, got.Body, nil), "el")
	_, err = c.HeadObject(ctx, &v2.HeadObjectRequest{Bucket: &bucket, Key: v2.Ptr("missing")})
	wantCode(t, err, "NoSuchKey")
	_, err = c.HeadObject(ctx, &v2.HeadObjectRequest{Bucket: v2.Ptr("no-such-bucket"), Key: v2.Ptr("missing")})
	wantCode(t, err, "NoSuchBucket")
	list, err := c.ListObjectsV2(ctx, &v2.ListObjectsV2Request{Bucket: &bucket, Prefix: v2.Ptr("objects/"), FetchOwner: true, EncodingType: v2.Ptr("url")})
	must(t, err)
	if len(list.Contents) != 1 || *list.Contents[0].Key != key || list.Contents[0].Owner == nil || list.KeyCount != 1 {
		t.Errorf("listed %+v", list)
	}
	deleted, err := c.DeleteMultipleObjects(ctx, &v2.DeleteMultipleObjectsRequest{
		Bucket: &bucket, EncodingType: v2.Ptr("url"), Objects: []v2.DeleteObject{{Key: &key}, {Key: v2.Ptr("missing")}},
	})
	must(t, err)
	if len(deleted.DeletedObjects) != 2 || *deleted.DeletedObjects[0].Key != key {
		t.Errorf("deleted %+v", deleted.DeletedObjects)
	}
	_, err = c.DeleteObject(ctx, &v2.DeleteObjectRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	ok, err := c.IsObjectExist(ctx, bucket, key)
	if ok || err != nil {
		t.Errorf("exists %v, %v", ok, err)
	}
}

func v2Append(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "append/tail"
	for i, text := range []string{"abc", "def"} {
		result, err := c.AppendObject(ctx, &v2.AppendObjectRequest{Bucket: &bucket, Key: &key, Position: v2.Ptr(int64(3 * i)), Body: body(text)})
		must(t, err)
		equal(t, "next", result.NextPosition, int64(3*i+3))
	}
	_, err := c.AppendObject(ctx, &v2.AppendObjectRequest{Bucket: &bucket, Key: &key, Position: v2.Ptr(int64(3)), Body: body("x")})
	wantCode(t, err, "PositionNotEqualToLength")
	head, err := c.HeadObject(ctx, &v2.HeadObjectRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	equal(t, "crc", *head.HashCRC64, crcOf("abcdef"))
}

func v2Multipart(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "multipart/" + oddKey
	m, err := c.InitiateMultipartUpload(ctx, &v2.InitiateMultipartUploadRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	equal(t, "key", *m.Key, key)
	for n, text := range map[int32]string{2: "0123456789", 9: "abc"} {
		_, err := c.UploadPart(ctx, &v2.UploadPartRequest{Bucket: &bucket, Key: &key, UploadId: m.UploadId, PartNumber: n, Body: body(text)})
		must(t, err)
	}
	parts, err := c.ListParts(ctx, &v2.ListPartsRequest{Bucket: &bucket, Key: &key, UploadId: m.UploadId})
	must(t, err)
	if len(parts.Parts) != 2 || parts.Parts[1].PartNumber != 9 || parts.Parts[1].Size != 3 || *parts.Parts[1].HashCRC64 != crcOf("abc") {
		t.Errorf("parts %+v", parts)
	}
	done, err := c.CompleteMultipartUpload(ctx, &v2.CompleteMultipartUploadRequest{
		Bucket: &bucket, Key: &key, UploadId: m.UploadId, CompleteAll: v2.Ptr("yes"),
	})
	must(t, err)
	equal(t, "key", *done.Key, key)
	equal(t, "crc", *done.HashCRC64, crcOf("0123456789abc"))
	m, err = c.InitiateMultipartUpload(ctx, &v2.InitiateMultipartUploadRequest{Bucket: &bucket, Key: &key})
	must(t, err)
	uploads, err := c.ListMultipartUploads(ctx, &v2.ListMultipartUploadsRequest{Bucket: &bucket, Prefix: v2.Ptr("multipart/")})
	must(t, err)
	if len(uploads.Uploads) != 1 || *uploads.Uploads[0].Key != key {
		t.Errorf("uploads %+v", uploads)
	}
	_, err = c.AbortMultipartUpload(ctx, &v2.AbortMultipartUploadRequest{Bucket: &bucket, Key: &key, UploadId: m.UploadId})
	must(t, err)
	_, err = c.ListParts(ctx, &v2.ListPartsRequest{Bucket: &bucket, Key: &key, UploadId: m.UploadId})
	wantCode(t, err, "NoSuchUpload")
}

func v2Copy(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "copy/" + oddKey
	_, err := c.PutObject(ctx, &v2.PutObjectRequest{Bucket: &bucket, Key: &key, Body: body("0123456789abcdef")})
	must(t, err)
	result, err := c.CopyObject(ctx, &v2.CopyObjectRequest{Bucket: &bucket, Key: v2.Ptr("copy/2"), SourceKey: &key})
	must(t, err)
	equal(t, "crc", *result.HashCRC64, crcOf("0123456789abcdef"))
	m, err := c.InitiateMultipartUpload(ctx, &v2.InitiateMultipartUploadRequest{Bucket: &bucket, Key: v2.Ptr("copy/3")})
	must(t, err)
	part, err := c.UploadPartCopy(ctx, &v2.UploadPartCopyRequest{
		Bucket: &bucket, Key: v2.Ptr("copy/3"), UploadId: m.UploadId, PartNumber: 1, SourceKey: &key, Range: v2.Ptr("bytes=4-7"),
	})
	must(t, err)
	_, err = c.CompleteMultipartUpload(ctx, &v2.CompleteMultipartUploadRequest{
		Bucket: &bucket, Key: v2.Ptr("copy/3"), UploadId: m.UploadId,
		CompleteMultipartUpload: &v2.CompleteMultipartUpload{Parts: []v2.UploadPart{{PartNumber: 1, ETag: part.ETag}}},
	})
	must(t, err)
	got, err := c.GetObject(ctx, &v2.GetObjectRequest{Bucket: &bucket, Key: v2.Ptr("copy/3")})
	must(t, err)
	equal(t, "content", read(t, got.Body, nil), "4567")
}

func v2Bucket(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	second := v2.Ptr("second-bucket")
	_, err := c.PutBucket(ctx, &v2.PutBucketRequest{Bucket: second})
	must(t, err)
	info, err := c.GetBucketInfo(ctx, &v2.GetBucketInfoRequest{Bucket: second})
	must(t, err)
	equal(t, "region", *info.BucketInfo.Location, "oss-cn-hangzhou")
	ok, err := c.IsBucketExist(ctx, *second)
	if !ok || err != nil {
		t.Errorf("exists %v, %v", ok, err)
	}
	ok, err = c.IsBucketExist(ctx, "third-bucket")
	if ok || err != nil {
		t.Errorf("exists %v, %v", ok, err)
	}
	location, err := c.GetBucketLocation(ctx, &v2.GetBucketLocationRequest{Bucket: second})
	must(t, err)
	equal(t, "location", *location.LocationConstraint, "oss-cn-hangzhou")
	_, err = c.PutBucketVersioning(ctx, &v2.PutBucketVersioningRequest{
		Bucket: second, VersioningConfiguration: &v2.VersioningConfiguration{Status: v2.VersionSuspended},
	})
	must(t, err)
	versioning, err := c.GetBucketVersioning(ctx, &v2.GetBucketVersioningRequest{Bucket: second})
	must(t, err)
	equal(t, "versioning", *versioning.VersionStatus, "Suspended")
	stat, err := c.GetBucketStat(ctx, &v2.GetBucketStatRequest{Bucket: second})
	must(t, err)
	equal(t, "objects", stat.ObjectCount, 0)
	list, err := c.ListBuckets(ctx, &v2.ListBucketsRequest{})
	must(t, err)
	equal(t, "buckets", len(list.Buckets), 2)
	_, err = c.DeleteBucket(ctx, &v2.DeleteBucketRequest{Bucket: second})
	must(t, err)
}

func v2Presigned(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "presigned/" + oddKey
	_, err := c.PutObject(ctx, &v2.PutObjectRequest{Bucket: &bucket, Key: &key, Body: body("signed")})
	must(t, err)
	p, err := c.Presign(ctx, &v2.GetObjectRequest{Bucket: &bucket, Key: &key, ResponseContentType: v2.Ptr("text/x y")}, v2.PresignExpires(time.Minute))
	must(t, err)
	status, text := fetch(t, p.URL)
	equal(t, "status", status, 200)
	equal(t, "content", text, "signed")
	status, _ = fetch(t, p.URL+"&versionId=null")
	equal(t, "status of a changed URL", status, 403)
}

// v2Managers runs the SDK's own uploader, downloader and copier.
func v2Managers(t *testing.T, c *v2.Client, bucket string) {
	ctx := deadline(t)
	key := "managers/big"
	data := make([]byte, 1<<20+12345)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	_, err := v2.NewUploader(c, func(o *v2.UploaderOptions) { o.PartSize = 200 << 10 }).
		UploadFrom(ctx, &v2.PutObjectRequest{Bucket: &bucket, Key: &key}, struct{ io.Reader }{bytes.NewReader(data)})
	must(t, err)
	_, err = v2.NewCopier(c, func(o *v2.CopierOptions) { o.PartSize, o.MultipartCopyThreshold = 300<<10, 1000 }).
		Copy(ctx, &v2.CopyObjectRequest{Bucket: &bucket, Key: v2.Ptr("managers/copy"), SourceKey: &key})
	must(t, err)
	file := t.TempDir() + "/copy"
	_, err = v2.NewDownloader(c, func(o *v2.DownloaderOptions) { o.PartSize, o.CheckpointDir = 150<<10, "" }).
		DownloadFile(ctx, &v2.GetObjectRequest{Bucket: &bucket, Key: v2.Ptr("managers/copy")}, file)
	must(t, err)
	got, err := c.OpenFile(ctx, bucket, key)
	must(t, err)
	defer got.Close()
	all, err := io.ReadAll(got)
	must(t, err)
	if !bytes.Equal(all, data) || !bytes.Equal(readFile(t, file), data) {
		t.Error("what came back is not what was stored")
	}
	var keys []string
	p := c.NewListObjectsV2Paginator(&v2.ListObjectsV2Request{Bucket: &bucket, Prefix: v2.Ptr("managers/"), MaxKeys: 1})
	for p.HasNext() {
		page, err := p.NextPage(ctx)
		must(t, err)
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
		}
	}
	if diff := cmp.Diff([]string{"managers/big", "managers/copy"}, keys); diff != "" {
		t.Errorf("paginator: %s", diff)
	}
}
