package oss_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func benchBucket(b *testing.B, cloud *devtest.Cloud) *v1.Bucket {
	b.Helper()
	client, err := v1.New(cloud.Endpoint, cloud.AccessKeyID, cloud.AccessKeySecret, v1.AuthVersion(v1.AuthV4), v1.Region(cloud.Region))
	if err != nil {
		b.Fatal(err)
	}
	bucket, err := client.Bucket(cloud.Bucket)
	if err != nil {
		b.Fatal(err)
	}
	return bucket
}

func BenchmarkPutSmall(b *testing.B) {
	for name, noSync := range map[string]bool{"sync": false, "no-sync": true} {
		b.Run(name, func(b *testing.B) {
			bucket := benchBucket(b, devtest.Start(b, func(c *oss.Config) { c.NoSync = noSync }))
			data := make([]byte, 4096)
			for i := 0; b.Loop(); i++ {
				if err := bucket.PutObject(fmt.Sprint(i), bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkTransfer(b *testing.B) {
	bucket := benchBucket(b, devtest.Start(b))
	data := make([]byte, 64<<20)
	b.SetBytes(2 * int64(len(data)))
	for b.Loop() {
		if err := bucket.PutObject("big", bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
		r, err := bucket.GetObject("big")
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != int64(len(data)) || err != nil {
			b.Fatal(n, err)
		}
		_ = r.Close()
	}
}

func BenchmarkListPage(b *testing.B) {
	cloud := devtest.Start(b)
	for i := range 50000 {
		if err := cloud.OSS.WriteObject(cloud.Bucket, fmt.Sprintf("wal_005/%024X.zst", i), nil); err != nil {
			b.Fatal(err)
		}
	}
	bucket := benchBucket(b, cloud)
	for b.Loop() {
		r, err := bucket.ListObjectsV2(v1.MaxKeys(1000), v1.StartAfter(fmt.Sprintf("wal_005/%024X.zst", 25000)))
		if err != nil || len(r.Objects) != 1000 {
			b.Fatal(len(r.Objects), err)
		}
	}
}
