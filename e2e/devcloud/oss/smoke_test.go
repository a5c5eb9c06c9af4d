package oss_test

import (
	"bytes"
	"io"
	"testing"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
)

func TestSmoke(t *testing.T) {
	cloud := devtest.Start(t)
	client, err := v1.New(cloud.Endpoint, cloud.AccessKeyID, cloud.AccessKeySecret, v1.AuthVersion(v1.AuthV4), v1.Region(cloud.Region))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := client.Bucket(cloud.Bucket)
	if err := b.PutObject("wal/a b", bytes.NewReader([]byte("hello")), v1.Meta("Lsn", "0/1")); err != nil {
		t.Fatal(err)
	}
	r, err := b.GetObject("wal/a b")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "hello" {
		t.Fatal(string(got), err)
	}
	h, err := b.GetObjectDetailedMeta("wal/a b")
	if err != nil {
		t.Fatal(err)
	}
	t.Log(h)
	l, err := b.ListObjectsV2(v1.Prefix("wal/"), v1.Delimiter("/"))
	if err != nil || len(l.Objects) != 1 {
		t.Fatal(l, err)
	}
	m, err := b.InitiateMultipartUpload("big")
	if err != nil {
		t.Fatal(err)
	}
	var parts []v1.UploadPart
	for i := range 3 {
		p, err := b.UploadPart(m, bytes.NewReader(make([]byte, 200<<10)), 200<<10, i+1)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, p)
	}
	if _, err := b.CompleteMultipartUpload(m, parts); err != nil {
		t.Fatal(err)
	}
	if _, err := b.DeleteObjects([]string{"big", "wal/a b"}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.GetObjectDetailedMeta("big"); err == nil {
		t.Fatal("still there")
	} else {
		t.Log(err)
	}
	t.Log(cloud.Requests())
}
