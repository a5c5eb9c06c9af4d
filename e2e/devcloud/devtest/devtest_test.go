package devtest_test

import (
	"strings"
	"testing"

	v1 "github.com/aliyun/aliyun-oss-go-sdk/oss"

	"outrider.dev/e2e/devcloud/devtest"
	"outrider.dev/e2e/devcloud/oss"
)

func TestOutage(t *testing.T) {
	cloud := devtest.Start(t)
	client, err := v1.New(cloud.Endpoint, cloud.AccessKeyID, cloud.AccessKeySecret, v1.AuthVersion(v1.AuthV4), v1.Region(cloud.Region))
	if err != nil {
		t.Fatal(err)
	}
	b, err := client.Bucket(cloud.Bucket)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.PutObject("k", strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	cloud.SetFaults(oss.Fault{Kind: oss.ResetBefore})
	cloud.Down()
	if err := b.PutObject("k", strings.NewReader("y")); err == nil {
		t.Error("somebody answers while the cloud is down")
	}
	before := cloud.Endpoint
	cloud.Up()
	if cloud.Endpoint != before {
		t.Errorf("moved from %s to %s", before, cloud.Endpoint)
	}
	if ok, err := b.IsObjectExist("k"); !ok || err != nil {
		t.Errorf("after the outage: %v %v", ok, err)
	}
	if n := cloud.Requests().Total(); n != 1 {
		t.Errorf("%d requests since then", n)
	}
}
